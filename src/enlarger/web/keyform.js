// The key: asked for where there is none, changed or forgotten in its dialog.

import { el, find, iconButton } from "./dom.js";
import { forgetKey, key, masked, setKey } from "./key.js";
import { strings } from "./strings.js";

const words = strings.key;

// A form that takes a key. onKey(): there is one now.
export function keyForm(onKey, note = "") {
  const input = el("input", { type: "password", name: "key", required: true, autocomplete: "off", spellcheck: false, "aria-label": words.label, placeholder: "wsk_…" });
  return el("form", { class: "key-form", onsubmit: (event) => {
    event.preventDefault();
    setKey(input.value);
    onKey();
  } }, note && el("p", { class: "note bad-text", role: "alert" }, note),
  el("div", { class: "row" }, input, el("button", { type: "submit", class: "primary" }, words.use)));
}

export function openKeyDialog(onKey) {
  const dialog = find("#key-dialog");
  const content = [
    el("header", {}, el("h2", { id: "key-title" }, strings.header.key), iconButton("close", words.close, () => dialog.close())),
    key() && el("p", {}, words.now(masked(key()))),
    keyForm(onKey),
    key() && el("button", { type: "button", class: "quiet", onclick: () => { forgetKey(); onKey(); } }, words.forget),
  ];
  dialog.replaceChildren(...content.filter(Boolean));
  dialog.showModal();
}
