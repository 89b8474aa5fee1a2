// The page's address after the #: {page, id, sub}. A token is never in it.

const ID = /^[A-Za-z0-9_.:@-]{1,128}$/;

export function parseRoute(hash) {
  const [page, second, third] = hash.replace(/^#\/?/, "").split("/").map(decoded);
  if (page === "operations") return { page, tab: second || "overview", id: ID.test(third ?? "") ? third : null };
  return { page: "chat", tab: null, id: ID.test(second ?? "") ? second : null };
}

export function chatRoute(sessionId) {
  return sessionId ? `#/chat/${encodeURIComponent(sessionId)}` : "#/chat";
}

export function operationsRoute(tab, id) {
  return id ? `#/operations/${tab}/${encodeURIComponent(id)}` : `#/operations/${tab}`;
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}
