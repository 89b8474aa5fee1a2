// A key that nobody else makes. (crypto.randomUUID is missing where a page came over plain HTTP.)
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
