// From a picture to its prediction and back: upload, submit, cancel, delete, and the news of the watch.

import * as api from "./api.js";
import { announce } from "./dom.js";
import { pixels } from "./format.js";
import { canStart } from "./plan.js";
import { forget, keepTiles, remember, seen, store, UNFINISHED } from "./store.js";
import { strings } from "./strings.js";
import { previewOf } from "./thumbnails.js";

// Takes a file in: its preview and its upload side by side, for one needs no network and the other no decoder.
export async function take(item) {
  if (!item.preview) previewOf(item.file).then((seen) => store.update(item, seen));
  store.update(item, { state: "uploading", uploaded: 0, problem: null });
  try {
    const image = await api.upload(item.file, item.name, (uploaded) => store.update(item, { uploaded }));
    store.update(item, { state: "ready", image });
  } catch (problem) {
    store.update(item, { state: "broken", problem });
  }
}

// Starts every item that can be; each is told of by itself.
export async function start(items, fields) {
  await Promise.all(items.filter(canStart).map((item) => submit(item, fields)));
}

async function submit(item, fields) {
  const body = { image: item.image, ...fields };
  // After a lost answer the same body goes out under the same word, and starts no second prediction.
  const same = item.once && JSON.stringify(item.once.body) === JSON.stringify(body);
  const once = same ? item.once : { body, word: crypto.randomUUID?.() ?? String(Math.random()) };
  store.update(item, { state: "submitting", problem: null, once, tiles: [] });
  try {
    const prediction = await api.submit(body, once.word);
    const { output: outputSize = null, tiles: tileCount = 0 } = item.plan ?? {};
    Object.assign(item, { id: prediction.id, fields, outputSize, tileCount, once: null, tile: null, told: null });
    remember(item);
    takeNews(prediction);
  } catch (problem) {
    store.update(item, { state: item.id ? item.prediction?.status ?? "ready" : "ready", problem });
  }
}

// How a prediction stands, from wherever it was told.
export function takeNews(prediction) {
  const item = store.byId(prediction.id);
  if (!item) return;
  const before = item.state;
  const ended = prediction.status !== before && prediction.status === "completed";
  store.update(item, { state: prediction.status, prediction, cancelling: false });
  if (ended) announce(strings.action.done(item.name, item.outputSize ? pixels(item.outputSize) : ""));
  else if (prediction.status !== before && prediction.status === "failed") announce(prediction.error);
}

export function takeProgress(id, progress) {
  const item = store.byId(id);
  if (item?.prediction) store.update(item, { prediction: { ...item.prediction, ...progress } });
}

export function takeTile(id, { x, y, w, h, done, total }) {
  const item = store.byId(id);
  if (!item) return;
  // A job that is taken up again after a crash begins anew.
  const tiles = item.tile && done < item.tile.done ? [] : item.tiles;
  // One without area tells only how far the work is.
  if (w && h) tiles.push({ x, y, w, h });
  store.update(item, { tiles, tile: { done, total } });
  keepTiles(item);
}

export function takeGone(id) {
  const item = store.byId(id);
  if (item) store.update(item, { state: "gone", problem: new Error(strings.error.gone) });
}

export async function cancel(item) {
  store.update(item, { cancelling: true, problem: null });
  try {
    takeNews(await api.cancel(item.id));
    announce(strings.action.cancelled);
  } catch (problem) {
    store.update(item, { cancelling: false, problem });
  }
}

// Deletes the prediction with its files; the picture leaves the page with it.
export async function remove(item) {
  try {
    await api.remove(item.id);
  } catch (problem) {
    if (problem.status !== 404) {
      store.update(item, { problem });
      return;
    }
  }
  forget(item.id);
  store.drop(item);
  announce(strings.history.removed(item.name));
}

// A prediction by its id, from a link or the history, as an item of the page.
export async function open(id, { name = "", thumb = "" } = {}) {
  const known = store.byId(id);
  if (known) {
    store.select(known);
    return;
  }
  await refresh(store.add({ kind: "history", name: name || strings.history.unnamed(id), thumb, id, image: "", state: "opening" }));
}

// Asks how the prediction of an item stands that the page knows only the id of.
export async function refresh(item) {
  store.update(item, { state: "opening", problem: null });
  try {
    const prediction = await api.poll(item.id);
    const { image = "", ...fields } = prediction.input;
    Object.assign(item, { image: item.image || (/^https?:/.test(image) ? image : ""), fields });
    takeNews(prediction);
  } catch (problem) {
    store.update(item, problem.status === 404
      ? { state: "gone", problem: new Error(strings.error.gone) }
      : { state: "unopened", problem });
  }
}

// In a new tab: what this browser has started and what still goes on.
export async function adopt() {
  const mine = new Map(seen().map((known) => [known.id, known]));
  if (!mine.size) return;
  const { items } = await api.list(1, 50);
  const going = items.filter(({ id, status }) => mine.has(id) && UNFINISHED.has(status));
  await Promise.all(going.reverse().map(({ id }) => open(id, mine.get(id))));
}
