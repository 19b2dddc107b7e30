// The rail: every picture of the page with how it stands.

import { el, find, icon, iconButton } from "./dom.js";
import { progressOf } from "./action.js";
import { store, UNFINISHED } from "./store.js";
import { strings } from "./strings.js";
import { thumbUrl } from "./thumbnails.js";

const words = strings.rail;
const rows = new Map(); // item → its nodes

export function showRail() {
  const list = find("#rail-items");
  for (const [item, { node }] of rows) {
    if (!store.items.includes(item)) {
      node.remove();
      rows.delete(item);
    }
  }
  for (const item of store.items) {
    if (!rows.has(item)) {
      rows.set(item, rowOf(item));
      list.prepend(rows.get(item).node); // the newest first
    }
    draw(item, rows.get(item));
  }
}

function rowOf(item) {
  const image = el("img", { alt: "" });
  const badge = el("span", { class: "badge" });
  const bar = el("span", { class: "bar" });
  const button = el("button", { type: "button", class: "thumb", onclick: () => store.select(item) }, icon("picture"), image, badge, bar);
  const close = iconButton("close", words.remove(item.name), () => store.drop(item), { class: "icon-button drop" });
  return { node: el("li", {}, button, close), button, image, badge, bar, close, source: "", mark: "" };
}

function draw(item, row) {
  const source = thumbUrl(item.thumb) || item.preview || "";
  if (source !== row.source) {
    row.source = source;
    row.image.src = source;
  }
  row.image.hidden = !source;
  const mark = { completed: "check", failed: "warning", broken: "warning", gone: "warning", unopened: "warning" }[item.state] ?? "";
  if (mark !== row.mark) {
    row.mark = mark;
    row.badge.replaceChildren(...(mark ? [icon(mark)] : []));
    row.badge.className = `badge ${mark}`;
  }
  const isBusy = UNFINISHED.has(item.state) || item.state === "uploading";
  row.bar.hidden = !isBusy;
  row.bar.style.transform = `scaleX(${isBusy ? progressOf(item).share ?? 0.04 : 0})`;
  row.button.setAttribute("aria-current", String(item === store.selected));
  row.button.title = item.name;
  const label = words.item(item.name, strings.states[item.state] ?? item.state);
  if (row.button.getAttribute("aria-label") !== label) row.button.setAttribute("aria-label", label);
  row.close.hidden = isBusy;
}
