// The foot of the panel: what a run will be, how it goes, what came of it, and the one thing to do next.

import { copy, el, find, icon, iconButton, setText, sureButton } from "./dom.js";
import { bytes, estimate, percent, pixels, resultName, seconds } from "./format.js";
import { saved } from "./api.js";
import { problemCard } from "./problems.js";
import { canStart } from "./plan.js";
import { store } from "./store.js";
import { strings } from "./strings.js";

const words = strings.action;

export class Action {
  #node = find("#action");
  #shape = "";
  #do;

  // does: { start(items), cancel(item), remove(item), link(item) → address }; changed(item) → whether the form says
  // something else than what made the result
  constructor(does, changed) {
    this.#do = does;
    this.changed = changed;
  }

  show(item) {
    this.#node.hidden = !item || ["gone", "opening", "unopened"].includes(item.state);
    if (this.#node.hidden) return;
    const kind = kindOf(item);
    // Buttons are made anew only when others are needed: nobody shall lose the focus to a progress bar.
    const shape = [item.key, item.id, kind, kind === "done" && this.changed(item), waiting().length, Boolean(item.cancelling)].join("|");
    if (shape !== this.#shape) {
      this.#shape = shape;
      this.#node.className = `action ${kind}`;
      this.#node.replaceChildren(...this[kind](item).filter(Boolean));
    }
    this[`${kind}Now`]?.(item);
  }

  // Before the run

  ready(item) {
    const all = waiting();
    this.facts = el("ul", { class: "estimate", "aria-live": "polite" });
    this.trouble = el("div");
    this.button = el("button", { type: "button", class: "primary wide", id: "enlarge", onclick: () => this.#do.start(waiting()) },
      all.length > 1 ? words.enlargeAll(all.length) : words.enlarge);
    this.button.hidden = !item.image && Boolean(item.id);
    return [this.facts, this.trouble, this.button, item.id && this.#tools(item)];
  }

  readyNow(item) {
    const { plan, refusal, problem } = item;
    const bad = problem ?? refusal;
    const parts = plan && !bad ? this.#parts(plan) : [item.planning && !bad ? words.planning : ""];
    const text = parts.filter(Boolean).join("\n");
    if (this.facts.dataset.text !== text) {
      this.facts.dataset.text = text;
      this.facts.replaceChildren(...parts.filter(Boolean).map((part) => el("li", {}, part)));
    }
    this.facts.hidden = !text;
    if (this.trouble.dataset.text !== (bad?.message ?? "")) {
      this.trouble.dataset.text = bad?.message ?? "";
      this.trouble.replaceChildren(...(bad ? [problemCard(strings.error.refused, bad)] : []));
    }
    this.button.disabled = Boolean(refusal && refusal.status === 400) || !item.image;
  }

  #parts(plan) {
    const all = waiting().map((item) => item.plan).filter(Boolean);
    const sum = all.reduce((total, { seconds: each }) => total + each, 0);
    const parts = [words.size(pixels(plan.output)), words.eta(estimate(plan.eta_seconds)), words.memory(bytes(plan.memory_bytes))];
    return all.length > 1 ? [...parts, words.all(all.length, estimate(sum))] : [...parts, ...plan.choices];
  }

  // While it runs

  running(item) {
    this.bar = el("progress", { max: 1, "aria-label": words.progress });
    this.line = el("p", { class: "progress-line" }, el("span"), el("span", { class: "quiet-text" }));
    const cancel = el("button", { type: "button", class: "wide", id: "cancel", disabled: Boolean(item.cancelling), onclick: () => this.#do.cancel(item) },
      item.cancelling ? words.cancelling : words.cancel);
    return [this.bar, this.line, item.state !== "uploading" && cancel];
  }

  runningNow(item) {
    const { share, told, left } = progressOf(item);
    if (share === null) this.bar.removeAttribute("value");
    else this.bar.value = share;
    const [first, second] = this.line.children;
    setText(first, told);
    setText(second, left);
  }

  // After it

  done(item) {
    const [url] = item.prediction.outputs;
    const download = el("a", { class: "button primary wide", id: "download", href: saved(url, resultName(item.name, item.outputSize, url)), download: "" },
      icon("download"), words.download);
    const again = this.changed(item) && item.image && el("button", { type: "button", class: "wide", id: "again", onclick: () => this.#do.start([item]) },
      icon("redo"), words.again);
    this.facts = el("p", { class: "made" });
    return [this.facts, download, again, this.#tools(item)];
  }

  doneNow(item) {
    const output = item.told?.outputs?.[0];
    const total = item.told?.total_ms ?? item.prediction.executionTime;
    const parts = [
      item.outputSize && words.size(pixels(item.outputSize)),
      output && `${output.media_type.replace("image/", "").toUpperCase()}, ${bytes(output.bytes)}`,
      total && words.took(seconds(total / 1000)),
    ];
    setText(this.facts, parts.filter(Boolean).join(" · "));
    const [url] = item.prediction.outputs;
    find("#download").href = saved(url, resultName(item.name, item.outputSize, url));
  }

  #tools(item) {
    const link = iconButton("link", words.link, async () => {
      await copy(this.#do.link(item));
      link.title = words.linkCopied;
      link.replaceChildren(icon("check"));
    });
    const remove = sureButton({ class: "quiet small", id: "delete" }, [icon("trash"), el("span", {}, words.remove)], words.removeSure, () => this.#do.remove(item));
    return el("div", { class: "row tools" }, link, el("span", { class: "grow" }), remove);
  }
}

function waiting() {
  const { selected, items } = store;
  const others = items.filter((item) => item !== selected && item.state === "ready" && item.image);
  return [selected, ...others].filter((item) => item && canStart(item));
}

function kindOf(item) {
  if (item.state === "completed") return "done";
  return ["uploading", "submitting", "created", "processing"].includes(item.state) ? "running" : "ready";
}

// { share: 0..1 or null while nobody knows, told: what is happening, left: how long still }
export function progressOf(item) {
  if (item.state === "uploading") return { share: item.uploaded, told: words.uploading(percent(item.uploaded)), left: "" };
  if (item.state === "submitting" || !item.prediction) return { share: null, told: words.starting, left: "" };
  const { progress, queue_position: position, eta_seconds: eta } = item.prediction;
  const left = eta === null || eta === undefined ? "" : eta < 1 ? words.soon : words.left(estimate(eta));
  if (item.state === "created") return { share: null, told: words.waiting(position ?? 0), left };
  const share = Math.max(progress, item.tile ? item.tile.done / item.tile.total : 0);
  const told = item.tileCount > 1 ? words.tiles(Math.min(item.tiles.length, item.tileCount), item.tileCount) : words.working;
  // Until the first tile is done there is nothing to measure.
  return { share: share || null, told, left };
}
