// The API key. It arrives in the fragment of the address, which no server and no log ever sees, and is kept in this
// browser, so that a link to a prediction opens in a new tab too.

const NAME = "enlarger-key";

// Takes the key out of `#key=…` and the address bar, so that neither bookmark nor screenshot keeps it.
export function takeKey() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const given = fragment.get("key");
  if (given) {
    setKey(given);
    fragment.delete("key");
    history.replaceState(null, "", location.pathname + (fragment.size ? `#${fragment}` : ""));
  }
  return key();
}

export function key() {
  return localStorage.getItem(NAME) ?? "";
}

export function setKey(value) {
  localStorage.setItem(NAME, value.trim());
}

export function forgetKey() {
  localStorage.removeItem(NAME);
}

export function masked(value) {
  return `${value.slice(0, 4)}${"•".repeat(8)}`;
}
