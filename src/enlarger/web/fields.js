// Controls: one for each kind of option, made from its JSON Schema. Each is { node, get(), set(value) }.

import { choose, el, segmented } from "./dom.js";
import { choicesOf } from "./schema.js";
import { strings } from "./strings.js";

const MAX_SEGMENTS = 3;
let count = 0;

// onchange(): the value is another. The sentence of the schema stands under the control, or is its tooltip where `short`.
export function control({ name, label, spec }, onchange) {
  const id = `option-${name}-${(count += 1)}`;
  const choices = choicesOf(spec);
  if (choices.length && (choices.length > MAX_SEGMENTS || choices.some(([, , sentence]) => sentence))) {
    return select(id, name, label, spec, choices, onchange);
  }
  if (choices.length) return segments(id, name, label, spec, choices, onchange);
  if (spec.type === "boolean") return check(id, name, label, spec, onchange);
  if (spec.type === "string") return text(id, name, label, spec, onchange);
  const isShare = spec.minimum === 0 && spec.maximum === 1;
  return isShare ? share(id, name, label, spec, onchange) : number(id, name, label, spec, onchange);
}

// What a name says already need not be said twice.
const sentenceOf = (label, { description = "" }) => (description.replace(/\.$/, "") === label ? "" : description);

function field(name, label, spec, id, input, { extra, note } = {}) {
  const help = el("p", { class: "help", id: `${id}-help` }, note ?? sentenceOf(label, spec));
  input.setAttribute("aria-describedby", help.id);
  return el("div", { class: "field", "data-option": name },
    el("label", { class: "name", for: id }, label, extra), input, help);
}

function select(id, name, label, spec, choices, onchange) {
  const sentence = el("span", {}, spec.description ?? "");
  const empty = spec.default === undefined ? [el("option", { value: "" }, strings.form.auto)] : [];
  const input = el("select", { id, name, onchange: () => { told(); onchange(); } },
    empty, choices.map(([value, text]) => el("option", { value: String(value) }, text)));
  const told = () => {
    const [, , own] = choices.find(([value]) => String(value) === input.value) ?? [];
    sentence.textContent = own || spec.description || "";
  };
  const set = (value) => { input.value = String(value ?? spec.default ?? ""); told(); };
  set();
  return { node: field(name, label, spec, id, input, { note: sentence }), get: () => typed(input.value, spec), set };
}

function segments(id, name, label, spec, choices, onchange) {
  const options = choices.map(([value, text]) => [value, text]);
  if (spec.default === undefined) options.unshift(["", strings.form.auto]);
  const set = (value) => choose(input, value ?? spec.default ?? "");
  const input = segmented({ name: id, label, options, value: spec.default ?? "", onchange });
  input.title = spec.description ?? "";
  const node = el("div", { class: "field", "data-option": name }, el("span", { class: "name", "aria-hidden": "true" }, label), input,
    el("p", { class: "help" }, spec.description ?? ""));
  return { node, get: () => typed(input.querySelector(":checked")?.value ?? "", spec), set };
}

function check(id, name, label, spec, onchange) {
  const input = el("input", { type: "checkbox", id, name, class: "switch", role: "switch", checked: spec.default === true, onchange });
  const help = el("p", { class: "help", id: `${id}-help` }, sentenceOf(label, spec));
  input.setAttribute("aria-describedby", help.id);
  const node = el("div", { class: "field switched", "data-option": name }, el("label", { class: "name", for: id }, label), input, help);
  return { node, get: () => input.checked, set: (value) => { input.checked = value ?? spec.default ?? false; } };
}

function text(id, name, label, spec, onchange) {
  const isColour = spec.pattern?.startsWith("^#");
  const input = el("input", { type: isColour ? "color" : "text", id, name, value: spec.default ?? "", oninput: onchange, spellcheck: false });
  if (!isColour) input.autocomplete = "off";
  return {
    node: field(name, label, spec, id, input),
    get: () => input.value.trim(),
    set: (value) => { input.value = value ?? spec.default ?? ""; },
  };
}

function share(id, name, label, spec, onchange) {
  const output = el("output", { for: id });
  const input = el("input", { type: "range", id, name, min: "0", max: "1", step: "0.05", oninput: () => { told(); onchange(); } });
  const told = () => { output.textContent = Number(input.value).toFixed(2); };
  const set = (value) => { input.value = String(value ?? spec.default ?? 1); told(); };
  set();
  return { node: field(name, label, spec, id, input, { extra: output }), get: () => Number(input.value), set };
}

function number(id, name, label, spec, onchange) {
  const input = numberInput(spec, { id, name, oninput: onchange });
  return {
    node: field(name, label, spec, id, input),
    get: () => typed(input.value, spec),
    set: (value) => { input.value = String(value ?? spec.default ?? ""); },
  };
}

export function numberInput(spec, properties) {
  const input = el("input", {
    type: "number", inputMode: spec.type === "integer" ? "numeric" : "decimal", step: spec.type === "integer" ? "1" : "any",
    ...properties,
  });
  if (spec.minimum !== undefined) input.min = String(spec.minimum);
  if (spec.maximum !== undefined) input.max = String(spec.maximum);
  input.value = String(spec.default ?? "");
  if (spec.default === undefined) input.placeholder = strings.form.auto;
  return input;
}

// What an input holds, in the type of the schema; null for nothing.
export function typed(value, spec) {
  if (value === "") return null;
  return spec.type === "integer" || spec.type === "number" ? Number(value) : value;
}
