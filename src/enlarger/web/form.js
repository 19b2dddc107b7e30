// The form: every option of the API, from its schema, in the order in which people ask for them.

import { el, icon } from "./dom.js";
import { control } from "./fields.js";
import { kept, NAMES } from "./kept.js";
import { fieldsToSend, groupsOf, isShown } from "./schema.js";
import { SizeControl } from "./size.js";
import { strings } from "./strings.js";

const words = strings.form;

export class Form {
  #controls = new Map();
  #onchange;

  // onchange(fields): what would be sent now
  constructor(schema, onchange) {
    this.schema = schema;
    this.#onchange = onchange;
    const groups = groupsOf(schema);
    this.size = new SizeControl(groups.size, () => this.#changed());
    const nodes = (fields) => fields.map((field) => this.#made(field));
    this.node = el("form", { class: "form", onsubmit: (event) => event.preventDefault() },
      this.size.node,
      el("div", { class: "group" }, nodes(groups.model)),
      el("fieldset", { class: "group" }, el("legend", {}, words.faces), nodes(groups.faces)),
      el("fieldset", { class: "group" }, el("legend", {}, words.output), nodes(groups.output)),
      el("details", { class: "group advanced" },
        el("summary", {}, icon("chevron"), words.advanced), nodes(groups.advanced),
        el("button", { type: "button", class: "quiet small", onclick: () => this.set({}) }, words.reset)));
    this.set(kept(localStorage, NAMES.form, {}), false);
  }

  #made(field) {
    const made = control(field, () => this.#changed());
    this.#controls.set(field.name, made);
    return made.node;
  }

  #values() {
    const values = this.size.values();
    for (const [name, { get }] of this.#controls) values[name] = get();
    return values;
  }

  // What a request would say now, besides the picture.
  fields() { return fieldsToSend(this.#values(), this.schema); }

  // Shows the options of an earlier request; what it does not name is at its default.
  set(fields, tell = true) {
    this.size.set(fields);
    for (const [name, { set }] of this.#controls) set(fields[name]);
    this.#changed(tell);
  }

  #changed(tell = true) {
    const values = this.#values();
    for (const [name, { node }] of this.#controls) node.hidden = !isShown(name, values);
    const fields = this.fields();
    localStorage.setItem(NAMES.form, JSON.stringify(fields));
    this.node.querySelectorAll(".refused").forEach((node) => node.classList.remove("refused"));
    if (tell) this.#onchange(fields);
  }

  // Marks the option that a refusal begins with.
  mark(message = "") {
    const name = message.split(/[\s=:]/)[0];
    this.node.querySelector(`[data-option="${CSS.escape(name)}"]`)?.classList.add("refused");
  }
}
