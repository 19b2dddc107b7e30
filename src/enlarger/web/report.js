// The report of a result: facts, where the time went, what was chosen or converted. Drawn from whatever the server tells.

import { el, icon } from "./dom.js";
import { bytes, pixels, seconds } from "./format.js";
import { strings } from "./strings.js";

const words = strings.report;
const SHADES = 6; // of the bar, in the style sheet

// told: the answer of the report route
export function reportPanel(told) {
  const { report = {} } = told;
  return el("div", { class: "report" }, facts(told, report), timing(told, report), fidelity(report), everything(told));
}

function facts({ outputs = [] }, report) {
  const [output] = outputs;
  const rows = [
    [words.rows.size, output && pixels([output.width, output.height])],
    [words.rows.file, output && `${output.media_type.replace("image/", "").toUpperCase()}, ${bytes(output.bytes)}`],
    [words.rows.model, report.model],
    [words.rows.runtime, report.runtime && [report.runtime, report.device].filter(Boolean).join(", ")],
    [words.rows.precision, report.precision],
    [words.rows.tiles, report.tiles && words.overlap(report.tiles, report.overlap)],
    [words.rows.depth, report.depth && String(report.depth)],
    [words.rows.sha256, output && el("code", {}, output.sha256)],
  ];
  return el("section", { class: "card" }, el("h3", {}, words.facts), el("dl", { class: "facts" },
    rows.filter(([, value]) => value).map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
}

// Milliseconds by stage, the longest first; a bar of their shares, which the list repeats in words.
function timing(told, report) {
  const stages = Object.entries(report.timings_ms ?? {}).filter(([, ms]) => typeof ms === "number" && ms > 0);
  stages.sort((a, b) => b[1] - a[1]);
  if (!stages.length) return null;
  const sum = stages.reduce((total, [, ms]) => total + ms, 0);
  const bar = el("div", { class: "time-bar", "aria-hidden": "true" });
  const rows = stages.map(([name, ms], place) => {
    const part = el("span", { class: `shade-${Math.min(place, SHADES - 1)}` });
    part.style.flexGrow = String(Math.max(ms / sum, 0.004));
    bar.append(part);
    return [
      el("dt", {}, el("span", { class: `swatch shade-${Math.min(place, SHADES - 1)}`, "aria-hidden": "true" }), named(name)),
      el("dd", {}, seconds(ms / 1000)),
    ];
  });
  // Of the whole time what no stage accounts for: files on their way, and the device busy with an earlier picture.
  const other = told.total_ms - (told.queued_ms ?? 0) - sum;
  const rest = [[words.queued, told.queued_ms], [words.other, other], [words.total, told.total_ms]].filter(([, ms]) => ms > 0);
  return el("section", { class: "card" }, el("h3", {}, words.timing), bar, el("dl", { class: "facts times" }, rows,
    rest.map(([name, ms]) => [el("dt", { class: "rest" }, name), el("dd", { class: "rest" }, seconds(ms / 1000))])));
}

const named = (name) => words.stages[name] ?? name.replaceAll("_", " ");

function fidelity(report) {
  const parts = Object.entries(words.notes).filter(([name]) => report[name]?.length);
  return el("section", { class: "card" }, el("h3", {}, words.fidelity),
    parts.length === 0 && el("p", { class: "note" }, words.untouched),
    parts.map(([name, title]) => [el("h4", {}, title), el("ul", {}, report[name].map((note) => el("li", {}, note)))]));
}

function everything(told) {
  return el("details", { class: "card all" }, el("summary", {}, icon("chevron"), words.more),
    el("pre", { tabIndex: 0, "aria-label": words.more, role: "region" }, JSON.stringify(told, null, 2)));
}
