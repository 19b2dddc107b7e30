// The API call that the page would make now, always in view, to be copied.

import { copy, el, find, icon, segmented } from "./dom.js";
import { key } from "./key.js";
import { snippets } from "./snippets.js";
import { strings } from "./strings.js";

const KEPT = "enlarger-language";
const words = strings.call;

export class Call {
  #language = localStorage.getItem(KEPT) ?? "curl";
  #showsKey = false;
  #body = {};
  example = "https://example.com/photo.jpg"; // in place of the picture that there is not yet

  constructor() {
    if (!(this.#language in snippets)) this.#language = "curl";
    this.code = el("code");
    const languages = segmented({
      name: "language", label: words.label, value: this.#language, options: Object.entries(words.languages),
      onchange: (language) => {
        this.#language = language;
        localStorage.setItem(KEPT, language);
        this.#draw();
      },
    });
    this.keyButton = el("button", { type: "button", class: "quiet small", "aria-pressed": "false", onclick: () => this.#toggleKey() },
      icon("key"), el("span"));
    this.copyButton = el("button", { type: "button", class: "quiet small", onclick: () => this.#copy() }, icon("copy"), el("span", {}, words.copy));
    find("#call").append(
      el("div", { class: "call-bar" }, el("h2", {}, words.title), languages, el("span", { class: "grow" }), this.keyButton, this.copyButton),
      el("pre", { tabIndex: 0, role: "region", "aria-label": words.label }, this.code));
    this.#draw();
  }

  // body: of the submit, the picture last: its address is long
  show(body) {
    this.#body = body;
    this.#draw();
  }

  #text() {
    return snippets[this.#language]({ origin: location.origin, body: this.#body, key: this.#showsKey ? key() : "" });
  }

  #draw() {
    const text = this.#text();
    if (this.code.textContent !== text) this.code.textContent = text;
    this.keyButton.hidden = !key();
    this.keyButton.setAttribute("aria-pressed", String(this.#showsKey));
    this.keyButton.querySelector("span").textContent = this.#showsKey ? words.hideKey : words.showKey;
  }

  #toggleKey() {
    this.#showsKey = !this.#showsKey;
    this.#draw();
  }

  async #copy() {
    await copy(this.#text());
    const label = this.copyButton.querySelector("span");
    label.textContent = words.copied;
    setTimeout(() => { label.textContent = words.copy; }, 1500);
  }
}
