// HTTP calls: `{ok, data}` in, data out; everything that goes wrong is an ApiError.

const TIMEOUT_MS = 30_000;

export class ApiError extends Error {
  constructor({ code, status = 0, message = "", hint = null, field = null, retryAfterS = null }) {
    super(message);
    Object.assign(this, { code, status, hint, field, retryAfterS });
  }
}

export class Api {
  // `token()` is the token of now or null; `onSignedOut()` is called when the server does not take it any more.
  constructor(token, onSignedOut) {
    this.token = token;
    this.onSignedOut = onSignedOut;
  }

  get(path) {
    return this.request("GET", path);
  }

  async request(method, path, body) {
    const response = await this.#send(method, path, body);
    const answer = await read(response);
    if (response.ok && answer?.ok) return answer.data;
    const error = toError(response, answer);
    if (response.status === 401 && this.token()) this.onSignedOut();
    throw error;
  }

  // Text that is no `{ok, data}`, such as /metrics.
  async text(path) {
    const response = await this.#send("GET", path);
    if (!response.ok) throw toError(response, null);
    return await response.text();
  }

  async #send(method, path, body) {
    const headers = {};
    const token = this.token();
    if (token) headers.Authorization = `Bearer ${token}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const options = {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    };
    try {
      return await fetch(path, options);
    } catch {
      throw new ApiError({ code: "NETWORK" });
    }
  }
}

async function read(response) {
  try {
    return await response.json();
  } catch {
    return null;
  }
}

function toError(response, answer) {
  const seconds = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  return new ApiError({
    code: answer?.error?.code ?? "UNREADABLE",
    status: response.status,
    message: answer?.error?.message ?? "",
    hint: answer?.error?.hint ?? null,
    field: answer?.error?.field ?? null,
    retryAfterS: Number.isFinite(seconds) ? seconds : null,
  });
}
