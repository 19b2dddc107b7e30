// Opening a result: what the viewer needs of the server, gathered side by side.

import * as api from "./api.js";
import { Pyramid } from "./pyramid.js";
import { Whole, browserShows, fitsWhole } from "./whole.js";

// { after, before, told }: pictures to draw, before null where it cannot be shown; told: the report, {} without one.
// Rejects when the result cannot be shown at all.
export async function openResult(item, signal) {
  const told = await api.report(item.id, signal).catch((error) => { if (error.name === "AbortError") throw error; return {}; });
  const [after, before] = await Promise.all([
    afterOf(item, told, signal),
    beforeOf(item, told, signal).catch(() => null),
  ]);
  return { after, before, told };
}

async function afterOf(item, { outputs = [], report = {} }, signal) {
  const [url] = item.prediction.outputs;
  const [output] = outputs;
  const isMoving = (report.frames ?? 1) > 1;
  if (output && !isMoving && fitsWhole(output.width, output.height) && browserShows(url)) {
    const whole = await wholeOf(api.own(url), signal);
    if (whole) return whole;
  }
  return new Pyramid(await api.zoomable(item.id, "outputs/0", signal));
}

// The file itself when this browser has it or the server keeps it as an upload, else tiles.
async function beforeOf(item, { report = {} }, signal) {
  const [width, height] = report.input ?? item.size ?? [Infinity, Infinity];
  if (fitsWhole(width, height)) {
    const isUpload = item.image.includes("/files/") && browserShows(item.image);
    const whole = (item.preview && (await decoded(item.file))) || (isUpload && (await wholeOf(api.own(item.image), signal)));
    if (whole) return whole;
  }
  return new Pyramid(await api.zoomable(item.id, "input", signal));
}

async function wholeOf(url, signal) {
  try {
    const answer = await fetch(url, { signal });
    return answer.ok ? await decoded(await answer.blob()) : null;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return null;
  }
}

const decoded = (blob) => Whole.of(blob).catch(() => null);
