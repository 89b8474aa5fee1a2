// What a tab keeps: the sign-in and drafts while it lives (sessionStorage), tastes for longer (localStorage).

const SIGN_IN = "wunder.sign_in";
const DRAFTS = "wunder.drafts";

let signIn = read(sessionStorage, SIGN_IN);

export const token = () => signIn?.token ?? null;
export const user = () => signIn?.user ?? null;

export function setSignIn(accessToken, account) {
  if (signIn?.user && signIn.user.user_id !== account.user_id) write(sessionStorage, DRAFTS, null);
  signIn = { token: accessToken, user: account };
  write(sessionStorage, SIGN_IN, signIn);
}

// Forgets the token. Who it was stays known, so that only somebody else's sign-in throws the drafts away.
export function endSignIn() {
  signIn = signIn ? { token: null, user: signIn.user } : null;
  write(sessionStorage, SIGN_IN, signIn);
}

export const draft = (key) => (read(sessionStorage, DRAFTS) ?? {})[key] ?? "";

export function setDraft(key, text) {
  const drafts = read(sessionStorage, DRAFTS) ?? {};
  if (text) drafts[key] = text;
  else delete drafts[key];
  write(sessionStorage, DRAFTS, drafts);
}

export const preference = (name) => read(localStorage, `wunder.${name}`);

export function setPreference(name, value) {
  write(localStorage, `wunder.${name}`, value);
}

function read(storage, key) {
  try {
    return JSON.parse(storage.getItem(key));
  } catch {
    return null;
  }
}

function write(storage, key, value) {
  try {
    if (value === null) storage.removeItem(key);
    else storage.setItem(key, JSON.stringify(value));
  } catch {
    // Storage may be full or forbidden: the page works on without it.
  }
}
