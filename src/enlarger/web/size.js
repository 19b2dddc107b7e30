// The size control: by a factor, or to a size in one of several ways. Gives the fields of the schema that this means.

import { choose, el, segmented } from "./dom.js";
import { control, numberInput, typed } from "./fields.js";
import { TARGETS } from "./schema.js";
import { strings } from "./strings.js";

const FACTORS = [2, 3, 4, 6, 8];
const words = strings.form;

export class SizeControl {
  #way = "scale";
  #kind = "box";
  #inputs = {};
  #onchange;

  // fields: those of the group "size"
  constructor(fields, onchange) {
    this.specs = Object.fromEntries(fields.map(({ name, spec }) => [name, spec]));
    this.#onchange = onchange;
    this.fit = this.specs.fit && control(fields.find(({ name }) => name === "fit"), onchange);
    this.node = el("fieldset", { class: "group size" }, el("legend", {}, words.size), this.#ways(), this.#byScale(), this.#byTarget());
    this.#show();
  }

  #ways() {
    this.ways = segmented({
      name: "size-way", label: words.size, value: this.#way, options: Object.entries(words.by),
      onchange: (way) => { this.#way = way; this.#show(); this.#onchange(); },
    });
    return this.ways;
  }

  #byScale() {
    const spec = this.specs.scale;
    const input = numberInput(spec, {
      id: "scale", name: "scale", "aria-label": words.scale, step: "any", min: "0.1",
      oninput: () => { choose(this.factors, input.value); this.#onchange(); },
    });
    this.#inputs.scale = input;
    this.factors = segmented({
      name: "factor", label: words.scale, value: spec.default, options: FACTORS.map((factor) => [factor, `${factor}×`]),
      onchange: (factor) => { input.value = factor; this.#onchange(); },
    });
    this.scalePart = el("div", { class: "scale-part" }, this.factors, el("span", { class: "suffixed" }, input, el("span", {}, words.units.scale)));
    return this.scalePart;
  }

  #byTarget() {
    this.kinds = el("select", { "aria-label": words.target, onchange: () => { this.#kind = this.kinds.value; this.#show(); this.#onchange(); } },
      Object.entries(words.targets).filter(([kind]) => kind === "box" || this.specs[kind])
        .map(([kind, text]) => el("option", { value: kind }, text)));
    this.targetInputs = {};
    for (const name of TARGETS.filter((target) => this.specs[target])) {
      const input = numberInput(this.specs[name], { name, "aria-label": words.fields[name], placeholder: words.fields[name], oninput: () => { this.#show(); this.#onchange(); } });
      this.#inputs[name] = input;
      const unit = name === "megapixels" ? words.units.megapixels : words.units.side;
      this.targetInputs[name] = el("span", { class: "suffixed", "data-option": name }, input, el("span", {}, unit));
    }
    this.targetPart = el("div", { class: "target-part" }, this.kinds, el("div", { class: "targets" }, Object.values(this.targetInputs)), this.fit?.node);
    return this.targetPart;
  }

  #names() {
    if (this.#way === "scale") return ["scale"];
    return this.#kind === "box" ? ["width", "height"] : [this.#kind];
  }

  #show() {
    const names = this.#names();
    this.scalePart.hidden = this.#way !== "scale";
    this.targetPart.hidden = this.#way === "scale";
    for (const [name, node] of Object.entries(this.targetInputs)) node.hidden = !names.includes(name);
    if (this.fit) this.fit.node.hidden = !(names.includes("width") && this.#inputs.width.value && this.#inputs.height.value);
  }

  values() {
    const found = Object.fromEntries(this.#names().map((name) => [name, typed(this.#inputs[name].value, this.specs[name])]));
    const isEmpty = Object.values(found).every((value) => value === null);
    if (isEmpty) return { scale: this.specs.scale.default };
    return this.fit && !this.fit.node.hidden ? { ...found, fit: this.fit.get() } : found;
  }

  set(fields) {
    const target = TARGETS.find((name) => fields[name] !== undefined);
    this.#way = target ? "target" : "scale";
    this.#kind = !target || target === "width" || target === "height" ? "box" : target;
    choose(this.ways, this.#way);
    this.kinds.value = this.#kind;
    for (const [name, input] of Object.entries(this.#inputs)) input.value = String(fields[name] ?? this.specs[name].default ?? "");
    choose(this.factors, this.#inputs.scale.value);
    this.fit?.set(fields.fit);
    this.#show();
  }
}
