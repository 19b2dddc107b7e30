// Building the page: elements without markup strings, icons, texts of the skeleton, and what screen readers are told.

import { strings } from "./strings.js";

const SVG = "http://www.w3.org/2000/svg";
const SPRITE = new URL("./icons.svg", import.meta.url).href;

export const find = (selector, root = document) => root.querySelector(selector);

// el("button", { class: "quiet", type: "button", onclick: run, disabled: true }, icon("close"), "Close")
// Strings become attributes, other values properties; null, undefined and false children are left out.
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (typeof value === "string") node.setAttribute(name, value);
    else if (name in node) node[name] = value;
    else node.setAttribute(name, String(value));
  }
  node.append(...children.flat(2).filter((child) => child !== undefined && child !== null && child !== false));
  return node;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `${SPRITE}#${name}`);
  svg.append(use);
  return svg;
}

// A button that shows an icon alone; its name is for those who hear it and those who hover.
export function iconButton(name, label, onclick, properties = {}) {
  return el("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...properties },
    icon(name));
}

// One choice of several, as a row of radio buttons. `options`: [value, label] pairs.
export function segmented({ name, label, options, value, onchange, class: extra = "" }) {
  const choices = options.map(([key, text]) => {
    const input = el("input", { type: "radio", name, value: String(key), checked: String(key) === String(value) });
    return el("label", {}, input, el("span", {}, text));
  });
  return el("fieldset", { class: `segmented ${extra}`, onchange: (event) => onchange(event.target.value) },
    el("legend", { class: "hidden-text" }, label), ...choices);
}

export function choose(fieldset, value) {
  for (const input of fieldset.querySelectorAll("input")) input.checked = input.value === String(value);
}

// Texts and icons of the skeleton: <p data-text="welcome.title">, <span data-icon="plus">,
// <input data-label="intake.url" data-placeholder="intake.urlPlaceholder">.
export function fill(root = document) {
  const text = (path) => path.split(".").reduce((place, part) => place[part], strings);
  for (const node of root.querySelectorAll("[data-text]")) node.append(text(node.dataset.text));
  for (const node of root.querySelectorAll("[data-icon]")) node.prepend(icon(node.dataset.icon));
  for (const node of root.querySelectorAll("[data-label]")) node.setAttribute("aria-label", text(node.dataset.label));
  for (const node of root.querySelectorAll("[data-title]")) node.title = text(node.dataset.title);
  for (const node of root.querySelectorAll("[data-placeholder]")) node.placeholder = text(node.dataset.placeholder);
}

// Told to screen readers, politely; the same words twice are told twice.
export function announce(text) {
  const live = find("#live");
  live.textContent = "";
  requestAnimationFrame(() => { live.textContent = text; });
}

// Only writes what is different: a live region reads every write aloud, and a focused button must not be replaced.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Asks a second time before it does something that cannot be undone.
export function sureButton(properties, content, sure, act) {
  let armed = 0;
  const button = el("button", { type: "button", ...properties }, ...content);
  const disarm = () => {
    clearTimeout(armed);
    armed = 0;
    button.replaceChildren(...content);
    button.classList.remove("armed");
  };
  button.addEventListener("click", () => {
    if (armed) {
      disarm();
      act();
      return;
    }
    armed = setTimeout(disarm, 4000);
    button.classList.add("armed");
    button.replaceChildren(icon("trash"), el("span", {}, sure));
    announce(sure);
  });
  button.addEventListener("blur", () => armed && disarm());
  return button;
}

export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Browsers offer the clipboard to https and to the machine itself only; elsewhere a selection will do.
  const area = el("textarea", { class: "hidden-text", value: text });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
