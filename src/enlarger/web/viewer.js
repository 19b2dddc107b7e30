// Viewer: before and after over one view, with a divider or side by side. Draws tiles on one canvas, at most once a frame.

import { choose, el, icon, iconButton, segmented } from "./dom.js";
import { faceMarks } from "./faces.js";
import { percent } from "./format.js";
import { listenToGestures } from "./gestures.js";
import { strings } from "./strings.js";
import * as views from "./view.js";

const BUTTON_ZOOM = 1.5;
const SMOOTH_UNTIL = 3; // from here on the pixels of the result are shown as squares
const words = strings.viewer;

export class Viewer {
  #mode = "split";
  #split = 0.5;
  #view = null;
  #isFitted = true;
  #frame = 0;
  #observer;
  #checks; // what shows through transparency

  // after, before: Pyramid or Whole, `before` may be null. fields: of the run. faces: of the report, or [].
  constructor({ name, after, before, fields, faces, onFace }) {
    this.after = after;
    this.before = before;
    for (const picture of [after, before]) if (picture) picture.onTile = () => this.#draw();
    this.placement = this.before && views.inputPlacement(this.before, this.after, fields);
    if (!this.before) this.#mode = "after";
    this.#build(name);
    this.marks = faceMarks(faces, this.placement, onFace);
    this.#pane.append(this.marks.node);
    this.#facesButton.hidden = !faces.length;
    this.#observer = new ResizeObserver(() => this.#resized());
    this.#observer.observe(this.#pane);
  }

  #pane; #canvas; #handle; #readout; #labels; #modes; #facesButton;

  #build(name) {
    this.#canvas = el("canvas", { "aria-hidden": "true" });
    this.#handle = el("div", {
      class: "divider", role: "slider", tabIndex: 0, "aria-label": words.divider, "aria-valuemin": "0",
      "aria-valuemax": "100", "aria-orientation": "horizontal", onkeydown: (event) => this.#keyOnHandle(event),
    }, el("span", { class: "grip" }, icon("split")));
    this.#labels = [el("span", { class: "side-label before" }, words.before), el("span", { class: "side-label after" }, words.after)];
    this.#pane = el("div", {
      class: "pane", tabIndex: 0, role: "group", "aria-label": `${words.label}: ${name}`, "aria-describedby": "viewer-help",
    }, this.#canvas, this.#labels, this.#handle);
    this.#listen();
    this.node = el("div", { class: "viewer" }, this.#bar(), this.#pane,
      el("p", { id: "viewer-help", class: "hidden-text" }, words.help));
  }

  #bar() {
    this.#modes = segmented({
      name: "viewer-mode", label: words.mode, value: this.#mode, options: Object.entries(words.modes),
      onchange: (mode) => this.#setMode(mode),
    });
    this.#modes.hidden = !this.before;
    this.#readout = el("output", { class: "readout", "aria-label": words.zoom });
    this.#facesButton = el("button", {
      type: "button", class: "small quiet", "aria-pressed": "true", onclick: () => this.#command("faces"),
    }, icon("face"), el("span", { class: "wide-only" }, words.faces));
    const full = iconButton("full", words.full, () => this.#full(), { hidden: !document.fullscreenEnabled });
    return el("div", { class: "viewer-bar" }, this.#modes, el("span", { class: "grow" }), this.#facesButton,
      iconButton("minus", words.zoomOut, () => this.#zoom(1 / BUTTON_ZOOM)), this.#readout,
      iconButton("plus", words.zoomIn, () => this.#zoom(BUTTON_ZOOM)),
      el("button", { type: "button", class: "small quiet", onclick: () => this.#command("fit") }, words.fit),
      el("button", { type: "button", class: "small quiet", title: words.actualTitle, onclick: () => this.#command("actual") },
        words.actual), full);
  }

  #listen() {
    listenToGestures(this.#pane, {
      pan: (dx, dy) => this.#move(views.panned(this.#view, dx, dy)),
      zoom: (factor, at) => this.#zoom(factor, at),
      doubleTap: (at) => this.#command(this.#isFitted ? "actual" : "fit", at),
      command: (name) => this.#command(name),
      drag: (event) => this.#dragsDivider(event),
    });
    this.#handle.addEventListener("pointerdown", (event) => {
      this.holdsDivider = true;
      addEventListener("pointerup", () => { this.holdsDivider = false; }, { once: true });
      event.target.closest("[role=slider]").focus({ preventScroll: true });
    });
  }

  // While all of the picture is in view there is nothing to pan: dragging anywhere moves the divider.
  #dragsDivider(event) {
    if (this.#mode !== "split" || !(this.holdsDivider || this.#isFitted)) return false;
    const box = this.#pane.getBoundingClientRect();
    this.#setSplit((event.clientX - box.left) / box.width);
    return true;
  }

  #keyOnHandle(event) {
    const step = event.shiftKey ? 0.1 : 0.02;
    const to = { ArrowLeft: this.#split - step, ArrowRight: this.#split + step, Home: 0, End: 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.#setSplit(to);
  }

  #command(name, at) {
    const pane = this.#half();
    const commands = {
      fit: () => this.#move(views.fitted(this.after, pane)),
      actual: () => this.#zoom(1 / devicePixelRatio / this.#view.zoom, at),
      mode: () => this.#setMode({ split: "side", side: "after", after: "split" }[this.#mode]),
      faces: () => this.#facesButton.setAttribute("aria-pressed", String(this.marks.toggle())),
      left: () => this.#setSplit(this.#split - 0.05),
      right: () => this.#setSplit(this.#split + 0.05),
    };
    commands[name]();
  }

  #setMode(mode) {
    if (!this.before) return;
    this.#mode = mode;
    choose(this.#modes, mode);
    this.#move(this.#isFitted ? views.fitted(this.after, this.#half()) : this.#view);
  }

  #setSplit(share) {
    this.#split = Math.min(Math.max(share, 0), 1);
    this.#draw();
  }

  #zoom(factor, at) {
    const pane = this.#half();
    // Side by side each half has the view in its own middle.
    const [first] = this.#panes();
    const second = this.#panes()[1];
    const half = at && second && (at.x >= second.x && at.y >= second.y) ? second : first;
    const point = at ? { x: at.x - half.x, y: at.y - half.y } : { x: pane.width / 2, y: pane.height / 2 };
    this.#move(views.zoomedAt(this.#view, factor, point, pane));
  }

  #move(view) {
    const pane = this.#half();
    this.#view = views.clamped(view, this.after, pane);
    this.#isFitted = views.isFitted(this.#view, this.after, pane);
    this.#draw();
  }

  // The panes of this mode: one, or two beside or above each other. Left, top, width, height in CSS pixels.
  #panes() {
    const { clientWidth: width, clientHeight: height } = this.#pane;
    if (this.#mode !== "side") return [{ x: 0, y: 0, width, height }];
    if (width >= height) {
      return [{ x: 0, y: 0, width: width / 2, height }, { x: width / 2, y: 0, width: width / 2, height }];
    }
    return [{ x: 0, y: 0, width, height: height / 2 }, { x: 0, y: height / 2, width, height: height / 2 }];
  }

  #half() { return this.#panes()[0]; }

  #resized() {
    const { clientWidth, clientHeight } = this.#pane;
    if (!clientWidth || !clientHeight) return;
    this.#canvas.width = Math.round(clientWidth * devicePixelRatio);
    this.#canvas.height = Math.round(clientHeight * devicePixelRatio);
    this.#move(this.#isFitted || !this.#view ? views.fitted(this.after, this.#half()) : this.#view);
    this.#drawNow();
  }

  #draw() { this.#frame ||= requestAnimationFrame(() => this.#drawNow()); }

  #drawNow() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    if (!this.#view) return;
    const context = this.#canvas.getContext("2d");
    context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    const panes = this.#panes();
    if (this.#mode === "side") {
      this.#drawInto(context, this.before, panes[0], panes[0]);
      this.#drawInto(context, this.after, panes[1], panes[1]);
    } else {
      const [pane] = panes;
      const cut = this.#mode === "split" ? pane.width * this.#split : 0;
      if (cut > 0) this.#drawInto(context, this.before, pane, { ...pane, width: cut });
      this.#drawInto(context, this.after, pane, { ...pane, x: cut, width: pane.width - cut });
    }
    this.#drawRest(panes);
  }

  // `clip`: the part of `pane` to be drawn in.
  #drawInto(context, picture, pane, clip) {
    if (clip.width <= 0) return;
    const ratio = devicePixelRatio;
    const isBefore = picture === this.before;
    const { left, top, scaleX, scaleY } = isBefore ? this.placement : { left: 0, top: 0, scaleX: 1, scaleY: 1 };
    const place = (x, y) => {
      const { x: px, y: py } = views.placed(this.#view, { x: left + x * scaleX, y: top + y * scaleY }, pane);
      return { x: (px + pane.x) * ratio, y: (py + pane.y) * ratio };
    };
    const part = views.shownPart(this.#view, pane);
    const cut = { // of the picture, as far as `clip` shows it
      left: (part.left + (clip.x - pane.x) / this.#view.zoom - left) / scaleX,
      right: (part.left + (clip.x - pane.x + clip.width) / this.#view.zoom - left) / scaleX,
      top: (part.top - top) / scaleY,
      bottom: (part.bottom - top) / scaleY,
    };
    context.save();
    context.beginPath();
    this.#clipTo(context, pane, clip);
    // The input is always smoothed: that is what enlarging without a network looks like.
    context.imageSmoothingEnabled = isBefore || this.#view.zoom * ratio < SMOOTH_UNTIL;
    context.fillStyle = this.#checks ??= checksOf(context);
    context.fill();
    picture.draw(context, cut, place, this.#view.zoom * ratio * (isBefore ? scaleX : 1));
    context.restore();
  }

  // Inside `clip` and inside the result, which a cropped input is larger than.
  #clipTo(context, pane, clip) {
    const ratio = devicePixelRatio;
    const from = views.placed(this.#view, { x: 0, y: 0 }, pane);
    const to = views.placed(this.#view, { x: this.after.width, y: this.after.height }, pane);
    const left = Math.max(clip.x, pane.x + from.x);
    const top = Math.max(clip.y, pane.y + from.y);
    const right = Math.min(clip.x + clip.width, pane.x + to.x);
    const bottom = Math.min(clip.y + clip.height, pane.y + to.y);
    const [x, y] = [Math.round(left * ratio), Math.round(top * ratio)];
    context.rect(x, y, Math.max(0, Math.round(right * ratio) - x), Math.max(0, Math.round(bottom * ratio) - y));
    context.clip();
  }

  // What lies over the canvas: divider, labels, faces, and the number that tells the zoom.
  #drawRest(panes) {
    const share = percent(this.#split);
    this.#handle.hidden = this.#mode !== "split";
    this.#handle.style.left = `${this.#split * 100}%`;
    this.#handle.setAttribute("aria-valuenow", String(share));
    this.#handle.setAttribute("aria-valuetext", words.dividerAt(share));
    this.#readout.textContent = `${percent(this.#view.zoom * devicePixelRatio)} %`;
    this.node.dataset.mode = this.#mode;
    this.node.dataset.stacked = String(this.#mode === "side" && panes[1].y > 0);
    this.#pane.classList.toggle("fitted", this.#isFitted);
    this.#frameWith(panes[0]);
    for (const label of this.#labels) label.hidden = this.#mode === "after";
    this.marks.place(this.#view, panes.at(-1));
  }

  // Divider and labels stay on the picture where the pane is larger.
  #frameWith(pane) {
    const { x, y } = views.placed(this.#view, { x: 0, y: 0 }, pane);
    this.#pane.style.setProperty("--beside", `${Math.max(0, x)}px`);
    this.#pane.style.setProperty("--above", `${Math.max(0, y)}px`);
  }

  #full() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.node.requestFullscreen();
  }

  close() {
    this.#observer.disconnect();
    cancelAnimationFrame(this.#frame);
    this.after.close();
    this.before?.close();
  }
}

const CHECK_PX = 8;

// A pattern of two grays, the same in light and dark: it says "nothing here" in both.
function checksOf(context) {
  const side = Math.round(CHECK_PX * devicePixelRatio);
  const tile = new OffscreenCanvas(2 * side, 2 * side);
  const paint = tile.getContext("2d");
  paint.fillStyle = "#d8d8d8";
  paint.fillRect(0, 0, 2 * side, 2 * side);
  paint.fillStyle = "#bdbdbd";
  paint.fillRect(0, 0, side, side);
  paint.fillRect(side, side, side, side);
  return context.createPattern(tile, "repeat");
}
