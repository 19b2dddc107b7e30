// The stage: the selected picture, waiting, in work, or beside its result. One view at a time, made anew only when the
// picture or its state is another.

import { el, find, icon } from "./dom.js";
import { problemCard } from "./problems.js";
import { Progress } from "./progress.js";
import { store } from "./store.js";
import { strings } from "./strings.js";
import { thumbOf, thumbUrl } from "./thumbnails.js";

const words = strings.stage;

export class Stage {
  #shown = ""; // what the view was made for
  #view = null; // { update(), close() }
  #node = find("#stage");
  #retry;

  // onRetry(item), onFace(index)
  constructor({ onRetry, onFace }) {
    this.#retry = onRetry;
    this.onFace = onFace;
  }

  show(item) {
    const shown = item ? [item.key, item.id, modeOf(item), item.preview ?? "", item.problem?.message ?? ""].join("|") : "";
    if (shown === this.#shown) {
      this.#view?.update?.();
      return;
    }
    this.#shown = shown;
    this.#view?.close?.();
    this.#view = null;
    this.#node.replaceChildren();
    if (item) this[modeOf(item)](item);
  }

  waiting(item) {
    const source = item.preview || thumbUrl(item.thumb);
    const why = item.kind === "url" ? words.fromUrl : words.noPreview;
    this.#node.append(source
      ? el("img", { class: "still", src: source, alt: item.name })
      : el("div", { class: "blank" }, icon("picture"), el("p", { class: "file-name" }, item.name), el("p", {}, why)));
  }

  working(item) {
    const progress = new Progress(item);
    this.#view = progress;
    this.#node.append(progress.node);
  }

  failed(item) {
    const source = item.preview || thumbUrl(item.thumb);
    const problem = item.state === "failed" ? item.prediction : item.problem;
    const title = item.state === "broken" ? strings.error.broken : strings.error.title;
    const retry = item.state !== "gone" && el("button", { type: "button", onclick: () => this.#retry(item) }, icon("redo"), strings.action.retry);
    if (source) this.#node.append(el("img", { class: "still dim", src: source, alt: "" }));
    this.#node.append(problemCard(title, problem, retry ? [retry] : []));
  }

  opening() {
    this.#node.append(el("p", { class: "blank", role: "status" }, strings.status.asking));
  }

  result(item) {
    const controller = new AbortController();
    const source = item.preview || thumbUrl(item.thumb);
    this.#view = { close: () => controller.abort() };
    this.#node.append(source ? el("img", { class: "still soft", src: source, alt: "" }) : "",
      el("p", { class: "preparing", role: "status" }, words.preparing));
    this.#open(item, controller.signal).catch((error) => {
      if (error.name === "AbortError") return;
      this.#node.replaceChildren(problemCard(words.noViewer, error, []));
      store.update(item, { told: item.told ?? {} });
    });
  }

  async #open(item, signal) {
    const { Viewer, facesOf, openResult } = await import("./outcome.js");
    const { after, before, told } = await openResult(item, signal);
    if (signal.aborted) {
      after.close();
      before?.close();
      return;
    }
    const faces = facesOf(told.report);
    this.#view = new Viewer({ name: item.name, after, before, fields: item.fields ?? {}, faces, onFace: this.onFace });
    this.#node.replaceChildren(this.#view.node);
    const thumb = item.thumb || (after.bitmap ? thumbOf(after.bitmap) : "");
    store.update(item, { told, thumb, outputSize: [after.width, after.height] });
  }
}

function modeOf(item) {
  if (item.state === "completed") return "result";
  if (["submitting", "created", "processing"].includes(item.state)) return "working";
  if (["failed", "broken", "gone", "unopened"].includes(item.state)) return "failed";
  return item.state === "opening" ? "opening" : "waiting";
}
