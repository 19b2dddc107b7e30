// At work: one place for every change of the store. What is on the page is what the store says.

import { Action } from "./action.js";
import * as connection from "./connection.js";
import { choose, find, segmented } from "./dom.js";
import { Form } from "./form.js";
import { planSoon } from "./plan.js";
import { showRail } from "./rail.js";
import * as runs from "./runs.js";
import { Stage } from "./stage.js";
import { store } from "./store.js";
import { strings } from "./strings.js";
import { Watch } from "./watch.js";

export class Work {
  #schema;
  #call;
  #intake;
  #planned = ""; // the pictures the plan was made for
  #tab = "settings";
  #tabFor = ""; // the prediction whose result was shown once by itself
  #told = null; // the report that is drawn
  #history = null;

  // schema: of a request; call: the Call to keep current; intake: the node that lives on the first screen
  constructor({ schema, call, intake }) {
    this.#schema = schema;
    this.#call = call;
    this.#intake = intake;
    this.#watch = new Watch({
      prediction: runs.takeNews,
      progress: runs.takeProgress,
      tile: runs.takeTile,
      gone: runs.takeGone,
      lost: connection.lost,
      back: connection.back,
    });
    this.#stage = new Stage({ onRetry: (item) => this.#retry(item), onFace: (index) => this.#pickFace(index) });
    this.#action = new Action({ start: (items) => this.#begin(items), cancel: runs.cancel, remove: runs.remove, link: linkTo },
      (item) => JSON.stringify(this.#form.fields()) !== JSON.stringify(item.fields));
    this.#form = new Form(schema, () => { this.#plan(); this.#show(); });
    find("#settings").append(this.#form.node);
    find("#tabs").append(this.#tabs());
    store.restore();
    store.subscribe(() => this.#show());
    addEventListener("pagehide", () => store.save());
    store.items.filter(({ id }) => id).forEach(runs.refresh);
    this.openLinked();
    store.select(store.selected);
    // Nothing is lost if that fails: the history has them too.
    if (!store.items.length) runs.adopt().catch(() => {});
  }

  #watch; #stage; #action; #form;

  addFiles(files) {
    const items = files.map(({ file, name }) => store.add({ kind: "file", name, bytes: file.size, file }));
    store.select(items[0]);
    for (const item of items) runs.take(item);
  }

  addUrl(url, name) {
    store.add({ kind: "url", name, image: url });
  }

  // The prediction that the address names.
  openLinked() {
    const id = new URLSearchParams(location.hash.slice(1)).get("p");
    if (id && id !== store.selected?.id) runs.open(id);
  }

  // The server is back.
  resume() {
    store.items.filter(({ state }) => state === "unopened").forEach(runs.refresh);
    this.#plan();
  }

  openHistory = async () => {
    const { History } = await import("./history.js");
    this.#history ??= new History();
    this.#history.open();
  };

  #show() {
    const item = store.selected;
    const isWorking = document.documentElement.classList.toggle("working", Boolean(item));
    if (isWorking) import("./outcome.js"); // to be here before the first result is
    else find(".intro").append(this.#intake);
    this.#watch.follow(store.unfinished().map(({ id }) => id), item?.id);
    const subject = JSON.stringify([item?.key, store.items.map(({ key, image, state }) => [key, image, state])]);
    if (subject !== this.#planned) {
      this.#planned = subject;
      this.#plan();
    }
    showRail();
    this.#stage.show(item);
    this.#showTabs(item);
    this.#action.show(item);
    this.#form.mark(item?.refusal?.message ?? item?.problem?.message);
    showAddress(item);
    showTitle(item);
  }

  #plan() {
    const fields = this.#form.fields();
    planSoon(fields);
    this.#call.show({ ...fields, image: store.selected?.image || this.#call.example });
  }

  // Settings and result share the panel; a new result is shown once by itself, then the reader decides.
  #showTabs(item) {
    const told = item?.state === "completed" ? item.told : null;
    if (told && this.#tabFor !== item.id) {
      this.#tabFor = item.id;
      this.#tab = "result";
    }
    const tab = told ? this.#tab : "settings";
    find("#tabs").hidden = !told;
    find("#settings").hidden = tab !== "settings";
    find("#result").hidden = tab !== "result";
    choose(find("#tabs"), tab);
    if (told === this.#told) return;
    this.#told = told;
    find("#result").replaceChildren();
    if (told) this.#showResult(item, told);
  }

  async #showResult(item, told) {
    const { facesPanel, reportPanel } = await import("./outcome.js");
    if (this.#told !== told) return;
    // A picture that came inside a request of somebody else's cannot be sent once more.
    const again = item.image ? (fields) => { this.#form.set(fields); this.#begin([item]); } : null;
    const faces = facesPanel(told.report, item.fields ?? {}, this.#schema, again);
    find("#result").replaceChildren(...[faces, reportPanel(told)].filter(Boolean));
  }

  #tabs() {
    return segmented({
      name: "panel-tab", label: strings.form.panel, value: "settings",
      options: [["result", strings.form.result], ["settings", strings.form.label]],
      onchange: (tab) => { this.#tab = tab; this.#show(); },
    });
  }

  #begin(items) {
    find("#stage").scrollIntoView({ block: "nearest" }); // on a phone it may be out of sight
    runs.start(items, this.#form.fields());
  }

  #retry(item) {
    if (item.state === "broken") runs.take(item);
    else if (item.state === "unopened") runs.refresh(item);
    else this.#begin([item]);
  }

  #pickFace(index) {
    this.#tab = "result";
    this.#show();
    find(`#result [data-face="${index}"] input`)?.focus();
  }
}

function linkTo(item) {
  return `${location.origin}/#p=${item.id}`;
}

// The address names the prediction that is looked at, so that a reload and a bookmark find it again.
function showAddress(item) {
  const wanted = item?.id && item.state !== "gone" ? `#p=${item.id}` : "";
  if (location.hash !== wanted) history.replaceState(null, "", location.pathname + wanted);
}

function showTitle(item) {
  const isRunning = item?.state === "processing" && item.prediction;
  document.title = isRunning ? `${Math.round(item.prediction.progress * 100)} % · ${strings.title}` : strings.title;
}
