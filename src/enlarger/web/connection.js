// Whether the server is there: the dot in the header, and the bar that says what a lost connection means.

import { readiness } from "./api.js";
import { announce, find, setText } from "./dom.js";
import { strings } from "./strings.js";

const IDLE_MS = 15_000;
const LOST_MS = 2_000;

let isLost = false;
let timer = 0;
let onBack = () => {};

export function startConnection(whenBack) {
  onBack = whenBack;
  addEventListener("online", look);
  addEventListener("offline", lost);
  look();
}

export function lost() {
  if (isLost) return;
  isLost = true;
  show("bad", strings.status.away);
  find("#offline").hidden = false;
  announce(strings.status.lost);
  schedule(LOST_MS);
}

export function back() {
  if (!isLost) return;
  isLost = false;
  find("#offline").hidden = true;
  announce(strings.status.back);
  onBack();
  look();
}

async function look() {
  const { answers, missing } = await readiness();
  if (!answers) lost();
  else {
    back();
    show(missing.length ? "bad" : "good", missing.length ? strings.status.notReady(missing.join(", ")) : strings.status.ready);
  }
  schedule(isLost ? LOST_MS : IDLE_MS);
}

function schedule(ms) {
  clearTimeout(timer);
  timer = setTimeout(look, ms);
}

function show(kind, text) {
  const status = find("#status");
  status.className = `status ${kind}`;
  setText(status, text);
}
