// Keeps predictions current. The one that is looked at comes by its event stream; the others, and all of them where
// streams do not get through, are asked for. One stream only: browsers open six connections to a server and no more.

import * as api from "./api.js";
import { eventsOf } from "./stream.js";

const POLL_MS = 1500;
const LOST_MS = 2000;
const MAX_BROKEN_STREAMS = 3;
const PAGE = 100;

export class Watch {
  #on;
  #ids = new Set();
  #focus = null;
  #stream = null; // { id, controller }
  #broken = 0;
  #timer = 0;

  // on: { prediction(data), progress(id, data), tile(id, tile), gone(id), lost(), back() }
  constructor(on) { this.#on = on; }

  // ids: predictions that have not ended; focus: the one to be told of at once, or null.
  follow(ids, focus) {
    this.#ids = new Set(ids);
    this.#focus = this.#ids.has(focus) ? focus : null;
    if (this.#stream && this.#stream.id !== this.#focus) {
      this.#stream.controller.abort();
      this.#stream = null;
    }
    if (this.#focus && !this.#stream && this.#broken < MAX_BROKEN_STREAMS) this.#open(this.#focus);
    if (this.#asked().length && !this.#timer) this.#schedule(0);
  }

  #asked() { return [...this.#ids].filter((id) => id !== this.#stream?.id); }

  async #open(id) {
    const stream = { id, controller: new AbortController() };
    this.#stream = stream;
    let ended = false;
    try {
      const answer = await api.events(id, stream.controller.signal);
      for await (const { event, data } of eventsOf(answer, stream.controller)) {
        if (this.#stream !== stream) return;
        this.#broken = 0;
        this.#on.back();
        this.#tell(id, event, data);
      }
      ended = true;
    } catch (error) {
      if (error instanceof api.Problem && error.status === 404) this.#on.gone(id);
      if (error instanceof api.Unreachable) this.#on.lost();
    }
    if (this.#stream !== stream) return;
    // Whether it broke or closed before the end: asking takes over, and brings the next stream.
    this.#stream = null;
    if (!ended) this.#broken += 1;
    if (this.#ids.has(id)) this.#schedule(ended ? 0 : POLL_MS / 2);
  }

  #tell(id, event, data) {
    if (event === "status") this.#on.prediction(data);
    else if (event === "progress") this.#on.progress(id, data);
    else if (event === "tile") this.#on.tile(id, data);
  }

  #schedule(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), ms);
  }

  async #ask() {
    let pause = POLL_MS;
    try {
      await this.#refresh(this.#asked());
      this.#on.back();
    } catch (error) {
      if (error instanceof api.Unreachable) this.#on.lost();
      pause = LOST_MS;
    }
    this.#timer = 0;
    if (this.#asked().length) this.#schedule(pause);
    this.follow(this.#ids, this.#focus);
  }

  async #refresh(ids) {
    const missing = new Set(ids);
    if (missing.size > 1) {
      for (const data of (await api.list(1, PAGE)).items) {
        if (missing.delete(data.id)) this.#on.prediction(data);
      }
    }
    for (const id of missing) {
      try {
        this.#on.prediction(await api.poll(id));
      } catch (error) {
        if (!(error instanceof api.Problem)) throw error;
        if (error.status === 404) this.#on.gone(id);
      }
    }
  }
}
