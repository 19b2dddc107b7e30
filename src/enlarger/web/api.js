// The HTTP API, as any program would call it. Refusals are Problems in the server's own words.

import { key } from "./key.js";
import { strings } from "./strings.js";

export const MODEL_PATH = "/api/v3/wavespeed-ai/real-esrgan";

// What the server refused, and why. `name` is the stable name of the error, `code` its number.
export class Problem extends Error {
  constructor({ message, status = 0, code = 0, name = "", retryAfter = 0 }) {
    super(message);
    Object.assign(this, { status, code, errorCode: name, retryAfter });
  }
}

// No answer at all: the server is down or the network is.
export class Unreachable extends Error {
  constructor() { super(strings.error.unreachable); }
}

// Links of the server may name another address it is known by; here everything is asked of where the page came from.
export function own(url) {
  const { pathname, search } = new URL(url, location.origin);
  return location.origin + pathname + search;
}

// The link of a result as one that is saved under `name`.
export const saved = (url, name) => `${own(url)}?name=${encodeURIComponent(name)}`;

export async function send(method, path, { body, headers = {}, signal } = {}) {
  const init = { method, signal, cache: "no-store", headers: { Authorization: `Bearer ${key()}`, ...headers } };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers["Content-Type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(path, init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable();
  }
  if (!answer.ok) throw await problemOf(answer);
  return answer;
}

async function ask(method, path, options) {
  const answer = await send(method, path, options);
  try {
    return (await answer.json()).data;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable(); // broken off in the middle
  }
}

async function problemOf(answer) {
  const told = await answer.json().catch(() => ({}));
  return new Problem({
    message: told.message ?? strings.error.unexpected(answer.status),
    status: answer.status,
    code: told.code ?? answer.status,
    name: told.error_code ?? "",
    retryAfter: Number(answer.headers.get("Retry-After")) || 0,
  });
}

const prediction = (id) => `/api/v3/predictions/${encodeURIComponent(id)}`;

// The JSON Schema of a submit.
export async function requestSchema() {
  const [model] = await ask("GET", "/api/v3/models");
  return model.api_schema.api_schemas[0].request_schema;
}

export const preflight = (body, signal) => ask("POST", `${MODEL_PATH}/preflight`, { body, signal });

// The same `once` with the same body never makes two predictions, however often it is sent.
export const submit = (body, once) => ask("POST", MODEL_PATH, { body, headers: { "Idempotency-Key": once } });
export const poll = (id, signal) => ask("GET", `${prediction(id)}/result`, { signal });
export const cancel = (id) => ask("POST", `${prediction(id)}/cancel`);
export const remove = (id) => ask("DELETE", prediction(id));
export const list = (page, pageSize, signal) =>
  ask("POST", "/api/v3/predictions", { body: { page, page_size: pageSize }, signal });
export const report = (id, signal) => ask("GET", `${prediction(id)}/report`, { signal });
export const events = (id, signal) => send("GET", `${prediction(id)}/events`, { signal });

// Sizes and tile addresses of a picture that can be zoomed: "outputs/0" or "input".
export const zoomable = (id, which, signal) => ask("GET", `${prediction(id)}/${which}/viewer`, { signal });

// Whether the server is ready, and which parts are not.
export async function readiness() {
  try {
    const answer = await fetch("/readyz", { cache: "no-store" });
    const { checks = {} } = await answer.json();
    return { answers: true, missing: Object.keys(checks).filter((name) => !checks[name]) };
  } catch {
    return { answers: false, missing: [] };
  }
}

// Sends a file ahead of its submit; its address, to be used as `image`. onProgress: share sent, 0 to 1.
export async function upload(file, name, onProgress, signal) {
  const ticket = await ask("POST", "/api/v3/media/uploads", {
    body: { filename: name, size: file.size, content_type: file.type || "" },
    signal,
  });
  await put(own(ticket.upload.url), ticket.upload.headers, file, onProgress, signal);
  return ticket.download_url;
}

// fetch tells nothing of what has been sent so far; XMLHttpRequest does.
function put(url, headers, file, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded / event.total));
    request.addEventListener("error", () => reject(new Unreachable()));
    request.addEventListener("abort", () => reject(new DOMException("", "AbortError")));
    request.addEventListener("load", () => {
      if (request.status === 200) return resolve();
      const { message = strings.error.unexpected(request.status), error_code: name = "" } = request.response ?? {};
      return reject(new Problem({ message, name, status: request.status }));
    });
    signal?.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}
