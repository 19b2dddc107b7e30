// Pyramid: a picture of any size as tiles of several levels, fetched as they are needed and forgotten again.
// Level k has one pixel for 2^k × 2^k of the picture; the last level is one tile and stays.

import { own } from "./api.js";

const MAX_TILES = 192; // of 512 × 512 × 4 bytes: 200 MB at the most
const AT_ONCE = 5; // one connection of six is left for the rest of the page

export class Pyramid {
  #tiles = new Map(); // "level/column/row" → { bitmap, used }
  #wanted = new Map(); // the same → distance from the middle
  #loading = new Map(); // the same → AbortController
  #failed = new Map(); // the same → how often
  #clock = 0;
  #template;
  onTile = () => {}; // one more tile can be drawn

  // told: the answer of the viewer route
  constructor(told) {
    this.width = told.width;
    this.height = told.height;
    this.tileSize = told.tile_size;
    this.levels = told.levels;
    this.#template = told.url;
  }

  // Draws what is inside `part` (picture pixels) through `place`, which turns picture pixels into canvas pixels, and asks
  // for what is missing. `zoom`: canvas pixels a picture pixel. Between tiles coarser ones stand in.
  draw(context, part, place, zoom) {
    const last = this.levels.length - 1;
    const level = Math.min(Math.max(Math.floor(Math.log2(1 / zoom) + 1e-6), 0), last);
    this.#clock += 1;
    this.#wanted.clear();
    this.#want(last, 0, 0, Infinity);
    for (const { column, row, distance } of this.#covering(level, part)) {
      this.#want(level, column, row, distance);
      this.#drawTile(context, level, column, row, place);
    }
    this.#load();
    this.#forget();
  }

  close() {
    this.#wanted.clear();
    for (const controller of this.#loading.values()) controller.abort();
    for (const { bitmap } of this.#tiles.values()) bitmap.close();
    this.#tiles.clear();
    this.onTile = () => {};
  }

  *#covering(level, part) {
    const span = this.tileSize * 2 ** level;
    const { columns, rows } = this.levels[level];
    const from = (at, count) => Math.min(Math.max(Math.floor(at / span), 0), count - 1);
    const middle = { x: (part.left + part.right) / 2 / span, y: (part.top + part.bottom) / 2 / span };
    for (let row = from(part.top, rows); row <= from(part.bottom, rows); row += 1) {
      for (let column = from(part.left, columns); column <= from(part.right, columns); column += 1) {
        yield { column, row, distance: Math.hypot(column + 0.5 - middle.x, row + 0.5 - middle.y) };
      }
    }
  }

  // The tile itself or the part of a coarser one that covers the same place.
  #drawTile(context, level, column, row, place) {
    for (let above = level; above < this.levels.length; above += 1) {
      const shift = 2 ** (above - level);
      const [c, r] = [Math.floor(column / shift), Math.floor(row / shift)];
      const tile = this.#tiles.get(`${above}/${c}/${r}`);
      if (!tile) continue;
      tile.used = this.#clock;
      this.#paint(context, tile.bitmap, { level, column, row }, { above, c, r, shift }, place);
      return;
    }
  }

  #paint(context, bitmap, { level, column, row }, { above, c, r, shift }, place) {
    const side = this.tileSize;
    const scale = 2 ** level;
    const { width, height } = this.levels[above];
    // Padding at the lower right is no part of the picture.
    const right = Math.min(width - c * side, side);
    const bottom = Math.min(height - r * side, side);
    const sx = (column / shift - c) * side;
    const sy = (row / shift - r) * side;
    const sw = Math.min(side / shift, right - sx);
    const sh = Math.min(side / shift, bottom - sy);
    if (sw <= 0 || sh <= 0) return;
    const from = place(column * side * scale, row * side * scale);
    const to = place(column * side * scale + sw * shift * scale, row * side * scale + sh * shift * scale);
    // Whole canvas pixels, the same for neighbours: no seams.
    const [x, y] = [Math.round(from.x), Math.round(from.y)];
    context.drawImage(bitmap, sx, sy, sw, sh, x, y, Math.round(to.x) - x, Math.round(to.y) - y);
  }

  #want(level, column, row, distance) {
    const name = `${level}/${column}/${row}`;
    if (!this.#tiles.has(name) && (this.#failed.get(name) ?? 0) < 3) this.#wanted.set(name, distance);
  }

  #load() {
    for (const [name, controller] of this.#loading) {
      if (!this.#wanted.has(name)) controller.abort();
    }
    // The coarsest first, it stands in for all; then from the middle outwards.
    const rank = (distance) => (distance === Infinity ? -1 : distance);
    const next = [...this.#wanted].filter(([name]) => !this.#loading.has(name)).sort((a, b) => rank(a[1]) - rank(b[1]));
    for (const [name] of next.slice(0, AT_ONCE - this.#loading.size)) this.#fetch(name);
  }

  async #fetch(name) {
    const controller = new AbortController();
    this.#loading.set(name, controller);
    const [level, column, row] = name.split("/");
    const url = this.#template.replace("{level}", level).replace("{column}", column).replace("{row}", row);
    try {
      const answer = await fetch(own(url), { signal: controller.signal });
      if (!answer.ok) throw new Error(String(answer.status));
      const bitmap = await createImageBitmap(await answer.blob());
      this.#tiles.set(name, { bitmap, used: this.#clock });
    } catch (error) {
      if (error.name !== "AbortError") this.#failed.set(name, (this.#failed.get(name) ?? 0) + 1);
    }
    this.#loading.delete(name);
    this.#wanted.delete(name);
    this.onTile();
    this.#load();
  }

  #forget() {
    if (this.#tiles.size <= MAX_TILES) return;
    const keep = `${this.levels.length - 1}/0/0`;
    const oldest = [...this.#tiles].filter(([name]) => name !== keep).sort((a, b) => a[1].used - b[1].used);
    for (const [name, { bitmap }] of oldest.slice(0, this.#tiles.size - MAX_TILES)) {
      bitmap.close();
      this.#tiles.delete(name);
    }
  }
}
