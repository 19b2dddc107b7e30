// A run on the stage: the picture dimmed, and clear where tiles of the result are done.

import { el } from "./dom.js";
import { thumbUrl } from "./thumbnails.js";

export class Progress {
  #drawn = 0;

  constructor(item) {
    this.item = item;
    this.source = item.preview || thumbUrl(item.thumb);
    this.picture = el("img", { alt: "", class: "dim", src: this.source || undefined, hidden: !this.source });
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.node = el("div", { class: "developing" }, this.picture, this.canvas);
    this.picture.addEventListener("load", () => this.update());
    this.observer = new ResizeObserver(() => this.#fit());
    this.observer.observe(this.node);
  }

  // The box of the picture on the stage, in the shape of the result.
  #shape() {
    if (this.item.outputSize) return this.item.outputSize;
    if (this.picture.naturalWidth) return [this.picture.naturalWidth, this.picture.naturalHeight];
    return this.item.size ?? [3, 2];
  }

  #fit() {
    const [width, height] = this.#shape();
    const { clientWidth, clientHeight } = this.node;
    const zoom = Math.min(clientWidth / width, clientHeight / height);
    for (const node of [this.picture, this.canvas]) {
      node.style.width = `${Math.round(width * zoom)}px`;
      node.style.height = `${Math.round(height * zoom)}px`;
    }
    this.canvas.width = Math.round(width * zoom * devicePixelRatio);
    this.canvas.height = Math.round(height * zoom * devicePixelRatio);
    this.#drawn = 0;
    this.update();
  }

  update() {
    const { tiles } = this.item;
    if (tiles.length < this.#drawn) this.#drawn = 0;
    const context = this.canvas.getContext("2d");
    if (this.#drawn === 0) context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    const hasPicture = this.picture.naturalWidth > 0;
    // Without the picture it comes again when that is loaded; without the size nobody can say where a tile is.
    if ((this.source && !hasPicture) || !this.item.outputSize) return;
    for (const tile of tiles.slice(this.#drawn)) this.#reveal(context, tile, hasPicture);
    this.#drawn = tiles.length;
  }

  #reveal(context, { x, y, w, h }, hasPicture) {
    const [width, height] = this.#shape();
    const { naturalWidth, naturalHeight } = this.picture;
    const box = [x / width, y / height, w / width, h / height];
    const scaled = ([left, top, across, down], wide, high) => [left * wide, top * high, across * wide, down * high];
    const target = scaled(box, this.canvas.width, this.canvas.height);
    if (hasPicture) context.drawImage(this.picture, ...scaled(box, naturalWidth, naturalHeight), ...target);
    else {
      context.fillStyle = getComputedStyle(this.node).getPropertyValue("--tile");
      context.fillRect(...target);
    }
    context.strokeStyle = getComputedStyle(this.node).getPropertyValue("--tile-edge");
    context.lineWidth = devicePixelRatio;
    context.strokeRect(target[0] + 0.5, target[1] + 0.5, target[2] - 1, target[3] - 1);
  }

  close() { this.observer.disconnect(); }
}
