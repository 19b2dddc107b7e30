// History: what this browser has enlarged, and what was enlarged with its key by whatever program.

import * as api from "./api.js";
import { announce, el, find, icon, iconButton, segmented, sureButton } from "./dom.js";
import { ago, resultName } from "./format.js";
import { open } from "./runs.js";
import { problemCard } from "./problems.js";
import { forget, seen, store } from "./store.js";
import { strings } from "./strings.js";
import { thumbUrl } from "./thumbnails.js";

const words = strings.history;
const PAGE = 20;
const BROWSER_PAGE = 100;

export class History {
  #dialog = find("#history");
  #tab = "browser";
  #page = 1;

  constructor() {
    this.list = el("ul", { class: "history-list" });
    this.state = el("div", { role: "status" });
    this.more = el("button", { type: "button", class: "wide", hidden: true, onclick: () => this.#load(this.#page + 1) }, words.more);
    const tabs = segmented({
      name: "history-tab", label: words.title, value: this.#tab, options: [["browser", words.browser], ["key", words.key]],
      onchange: (tab) => { this.#tab = tab; this.#load(1); },
    });
    this.#dialog.append(
      el("header", {}, el("h2", { id: "history-title" }, words.title), iconButton("close", words.close, () => this.#dialog.close())),
      tabs, this.state, this.list, this.more);
    // A click beside the drawer closes it.
    this.#dialog.addEventListener("click", (event) => { if (event.target === this.#dialog) this.#dialog.close(); });
  }

  open() {
    this.#dialog.showModal();
    this.#load(1);
  }

  async #load(page) {
    const tab = this.#tab;
    this.#page = page;
    this.more.hidden = true;
    if (page === 1) {
      this.list.replaceChildren();
      this.state.replaceChildren(el("p", { class: "note" }, words.loading));
    }
    try {
      const items = tab === "browser" ? await this.#ofBrowser() : (await api.list(page, PAGE)).items;
      if (tab !== this.#tab) return;
      const empty = tab === "browser" ? words.emptyBrowser : words.emptyKey;
      this.state.replaceChildren(...(items.length || page > 1 ? [] : [el("p", { class: "note" }, empty)]));
      this.list.append(...items.map((prediction) => this.#row(prediction)));
      this.more.hidden = tab === "browser" || items.length < PAGE;
    } catch (problem) {
      this.state.replaceChildren(problemCard(strings.error.title, problem));
    }
  }

  // Those of this browser that the server still has. One list answers for most of them.
  async #ofBrowser() {
    const mine = seen();
    if (!mine.length) return [];
    const { items } = await api.list(1, BROWSER_PAGE);
    const known = new Map(items.map((prediction) => [prediction.id, prediction]));
    const found = await Promise.all(mine.map(({ id }) => known.get(id) ?? this.#single(id)));
    return found.filter(Boolean);
  }

  async #single(id) {
    try {
      return await api.poll(id);
    } catch (problem) {
      if (problem.status !== 404) throw problem;
      forget(id);
      return null;
    }
  }

  #row(prediction) {
    const { id, status, created_at: created, outputs } = prediction;
    const { name = nameOf(prediction), thumb = "" } = seen().find((other) => other.id === id) ?? {};
    const source = thumbUrl(thumb);
    const row = el("li", { "data-id": id },
      el("button", { type: "button", class: "history-open", "aria-label": words.open(name), onclick: () => { this.#dialog.close(); open(id, { name, thumb }); } },
        source ? el("img", { src: source, alt: "" }) : el("span", { class: "no-thumb" }, icon("picture")),
        el("span", { class: "history-text" }, el("b", {}, name),
          el("small", {}, [strings.states[status], askedFor(prediction.input), ago(created)].filter(Boolean).join(" · ")))),
      outputs[0] && el("a", {
        class: "button icon-button", href: api.saved(outputs[0], resultName(name, null, outputs[0])), download: "",
        "aria-label": words.download(name), title: words.download(name),
      }, icon("download")),
      sureButton({ class: "quiet small", "aria-label": words.remove(name), title: words.remove(name) }, [icon("trash")], strings.action.removeSure,
        () => this.#remove(row, id, name)));
    return row;
  }

  async #remove(row, id, name) {
    try {
      await api.remove(id);
    } catch (problem) {
      if (problem.status !== 404) {
        this.state.replaceChildren(problemCard(strings.error.title, problem));
        return;
      }
    }
    const next = row.nextElementSibling ?? row.previousElementSibling;
    row.remove();
    forget(id);
    const item = store.byId(id);
    if (item) store.drop(item);
    announce(words.removed(name));
    (next?.querySelector("button") ?? this.#dialog.querySelector("header button")).focus();
    if (!this.list.children.length) this.#load(1);
  }
}

// A prediction of another program has no name but that of its picture.
function nameOf({ id, input }) {
  const image = String(input.image ?? "");
  const last = /^https?:/.test(image) ? new URL(image).pathname.split("/").at(-1) : "";
  return /^[^/]+\.\w{2,5}$/.test(last) && !image.includes("/files/") ? decodeURIComponent(last) : words.unnamed(id);
}

function askedFor({ scale, width, height, long_side: long, short_side: short, megapixels }) {
  if (width || height) return `${width ?? "…"} × ${height ?? "…"}`;
  if (long || short) return `${long ?? short} px`;
  return megapixels ? `${megapixels} MP` : `${scale ?? 4}×`;
}
