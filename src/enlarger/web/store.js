// The pictures on the page and which one is looked at. What must survive a reload is kept: addresses, ids and small
// thumbnails. The tab keeps its own pictures, the browser every prediction it has started; how a prediction stands is
// always the server's word.

import { kept, NAMES } from "./kept.js";

const MAX_ITEMS = 40;
const MAX_SEEN = 100;
const KEPT = ["key", "name", "bytes", "image", "kind", "thumb", "size", "outputSize", "tileCount", "id", "fields"];

export const UNFINISHED = new Set(["created", "processing"]);

// An item: { key, name, bytes, image, kind: "file" | "url" | "sample" | "history", size: [w, h] | null, thumb, state,
//   file, preview: in memory only; uploaded: 0..1; id, prediction, fields, once: of its newest run; plan, problem;
//   outputSize: [w, h]; tiles: [{x, y, w, h}] done, of tileCount; told: the report of its result }
class Store {
  items = [];
  selected = null;
  #listeners = new Set();
  #writing = 0;

  subscribe(listener) { this.#listeners.add(listener); }

  add(item) {
    const made = { key: crypto.randomUUID?.() ?? String(Math.random()), state: "ready", size: null, tiles: [], ...item };
    this.items = [...this.items, made].slice(-MAX_ITEMS);
    this.select(made);
    return made;
  }

  update(item, changes) {
    Object.assign(item, changes);
    this.#changed();
  }

  select(item) {
    this.selected = item;
    this.#changed();
  }

  drop(item) {
    const place = this.items.indexOf(item);
    if (place < 0) return;
    if (item.preview) URL.revokeObjectURL(item.preview);
    this.items = this.items.filter((other) => other !== item);
    if (this.selected === item) this.selected = this.items[Math.min(place, this.items.length - 1)] ?? null;
    this.#changed();
  }

  byId(id) { return this.items.find((item) => item.id === id); }

  unfinished() { return this.items.filter((item) => item.id && UNFINISHED.has(item.state)); }

  #changed() {
    for (const listener of this.#listeners) listener(this);
    this.#writing ||= setTimeout(() => this.save(), 100);
  }

  save() {
    clearTimeout(this.#writing);
    this.#writing = 0;
    const items = this.items.filter((item) => item.id || item.image);
    write(sessionStorage, NAMES.items, items.map((item) => Object.fromEntries(KEPT.map((name) => [name, item[name]]))));
  }

  restore() {
    // Of a prediction only the server knows how it stands; a picture without one has not been started.
    this.items = kept(sessionStorage, NAMES.items, []).map((item) =>
      ({ ...item, state: item.id ? "opening" : "ready", tiles: item.id ? readTiles(item.id) : [] }));
    this.selected = this.items.at(-1) ?? null;
  }
}

export const store = new Store();

// The predictions this browser has started, newest first: [{ id, name, thumb }].
export function seen() { return kept(localStorage, NAMES.seen, []); }

export function remember({ id, name, thumb }) {
  write(localStorage, NAMES.seen, [{ id, name, thumb }, ...seen().filter((other) => other.id !== id)].slice(0, MAX_SEEN));
}

export function forget(id) {
  write(localStorage, NAMES.seen, seen().filter((other) => other.id !== id));
  sessionStorage.removeItem(`enlarger-tiles-${id}`);
}

// The tiles seen so far: a stream tells each of them once, and a reload shall not make the picture blank again.
export function keepTiles(item) {
  sessionStorage.setItem(`enlarger-tiles-${item.id}`, JSON.stringify(item.tiles.slice(-2000)));
}

function readTiles(id) {
  return JSON.parse(sessionStorage.getItem(`enlarger-tiles-${id}`) ?? "[]");
}

function write(storage, name, values) {
  try {
    storage.setItem(name, JSON.stringify(values));
  } catch {
    // No room left: thumbnails are what takes it.
    storage.setItem(name, JSON.stringify(values.map((value) => ({ ...value, thumb: "" }))));
  }
}
