// What a run would be, before it runs: the exact size, memory and time of the picture, or the refusal in words.

import * as api from "./api.js";
import { store } from "./store.js";

const PAUSE_MS = 300; // after the last keystroke
const MAX_KNOWN = 300;

const known = new Map(); // what was asked → { plan } or { problem }
let timer = 0;
let running = null;

// Plans the selected picture with `fields`, then the others that wait to be started.
export function planSoon(fields) {
  clearTimeout(timer);
  running?.abort();
  for (const item of waiting()) {
    const answer = known.get(question(item, fields));
    item.plan = answer?.plan;
    item.refusal = answer?.problem;
    item.planning = !answer;
  }
  timer = setTimeout(() => planAll(fields), PAUSE_MS);
}

export function canStart(item) {
  return Boolean(item.image) && ["ready", "completed", "failed", "cancelled"].includes(item.state);
}

function waiting() {
  const others = store.items.filter((item) => item !== store.selected && item.state === "ready");
  return [store.selected, ...others].filter((item) => item && canStart(item));
}

function question(item, fields) {
  return JSON.stringify([item.image, fields]);
}

async function planAll(fields) {
  running = new AbortController();
  const { signal } = running;
  for (const item of waiting()) {
    const answer = known.get(question(item, fields)) ?? (await planOne(item, fields, signal));
    if (signal.aborted) return;
    store.update(item, {
      plan: answer.plan,
      refusal: answer.problem,
      planning: false,
      size: answer.plan?.input ?? item.size,
    });
  }
}

async function planOne(item, fields, signal) {
  try {
    const plan = await api.preflight({ image: item.image, ...fields }, signal);
    return keep(item, fields, { plan });
  } catch (problem) {
    if (problem.name === "AbortError") return {};
    // A refusal stays one; what is only so for the moment is asked again.
    const lasting = problem instanceof api.Problem && problem.status === 400;
    return lasting ? keep(item, fields, { problem }) : { problem };
  }
}

function keep(item, fields, answer) {
  if (known.size >= MAX_KNOWN) known.delete(known.keys().next().value);
  known.set(question(item, fields), answer);
  return answer;
}
