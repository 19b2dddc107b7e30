// The first screen: what the page does, shown on the sample, and every way in. The rest comes with the first picture.
// Started by index.html.

import * as api from "./api.js";
import { Call } from "./call.js";
import * as connection from "./connection.js";
import { showDemo } from "./demo.js";
import { el, fill, find, iconButton } from "./dom.js";
import { bytes, megapixels } from "./format.js";
import { Intake } from "./intake.js";
import { kept, NAMES } from "./kept.js";
import { key, takeKey } from "./key.js";
import { problemCard } from "./problems.js";
import { strings } from "./strings.js";
import { themeButton } from "./theme.js";

const WORK_STYLES = ["./form.css", "./work.css", "./viewer.css"];
const page = { schema: null, work: null, call: null, intake: null, notice: 0 };

function start() {
  const hasKey = Boolean(takeKey());
  fill();
  themeButton();
  showDemo();
  page.call = new Call();
  page.call.show({ scale: 4, ...kept(localStorage, NAMES.form, {}), image: page.call.example });
  page.intake = new Intake({
    onFiles: async (files) => (await work())?.addFiles(files),
    onUrl: async (url, name) => (await work())?.addUrl(url, name),
    onRefused: refuse,
  });
  page.intake.listen();
  find("#open-history").addEventListener("click", openHistory);
  find("#open-key").addEventListener("click", openKeyDialog);
  find("#add").addEventListener("click", openIntake);
  connection.startConnection(resume);
  if (hasKey) begin();
  else askForKey();
}

async function begin() {
  await loadSchema();
  const hasPast = kept(sessionStorage, NAMES.items, []).length || kept(localStorage, NAMES.seen, []).length;
  if (page.schema && (hasPast || location.hash.includes("p="))) work();
  addEventListener("hashchange", async () => (await work())?.openLinked());
}

async function loadSchema() {
  if (page.schema || !key()) return;
  try {
    page.schema = await api.requestSchema();
  } catch (problem) {
    if (problem instanceof api.Unreachable) connection.lost();
    else if (problem.status === 401) askForKey(problem.message);
    else refuse(problem.message);
    return;
  }
  showLimits(page.schema["x-limits"]);
  document.documentElement.classList.add("ready");
}

function showLimits(limits) {
  if (!limits) return;
  page.intake.maxBytes = limits.max_upload_bytes;
  find("#limits").textContent = strings.intake.limits({
    bytes: bytes(limits.max_upload_bytes),
    input: megapixels(limits.max_input_megapixels),
    output: megapixels(limits.max_output_megapixels),
  });
}

// What shows pictures, loaded once; null while there is no server to work with.
async function work() {
  await loadSchema();
  if (!page.schema) return null;
  page.work ??= Promise.all([import("./work.js"), ...WORK_STYLES.map(styled)])
    .then(([{ Work }]) => new Work({ schema: page.schema, call: page.call, intake: find("#intake") }));
  return page.work;
}

// Resolves when the style sheet is in force: nothing shall be seen without its looks.
function styled(name) {
  return new Promise((resolve) => {
    const link = el("link", { rel: "stylesheet", href: new URL(name, import.meta.url).href, onload: resolve, onerror: resolve });
    document.head.append(link);
  });
}

// After a time without the server: what could not be asked then.
async function resume() {
  if (!page.schema) await begin();
  else (await page.work)?.resume();
}

async function openHistory() {
  const { openHistory: open } = (await work()) ?? {};
  await open?.();
}

// While there are pictures the intake of the first screen waits behind the plus of the rail.
function openIntake() {
  const dialog = find("#add-dialog");
  const close = iconButton("close", strings.key.close, () => dialog.close());
  dialog.replaceChildren(el("header", {}, el("h2", {}, strings.intake.add), close), find("#intake"));
  dialog.showModal();
}

async function openKeyDialog() {
  const { openKeyDialog: open } = await import("./keyform.js");
  open(() => location.reload());
}

async function askForKey(note = "") {
  const { keyForm } = await import("./keyform.js");
  find("#key-card").replaceChildren(el("h2", {}, strings.key.title), el("p", {}, strings.key.text),
    keyForm(() => location.reload(), note));
  document.documentElement.classList.add("locked");
}

function refuse(sentence) {
  find("#notice").replaceChildren(problemCard(strings.error.refused, new Error(sentence)));
  clearTimeout(page.notice);
  page.notice = setTimeout(() => find("#notice").replaceChildren(), 8000);
}

start();
