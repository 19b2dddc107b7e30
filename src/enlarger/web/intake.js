// How pictures come in: dropped, pasted, chosen, taken with the camera, by address, or the sample.

import { announce, find } from "./dom.js";
import { bytes } from "./format.js";
import { strings } from "./strings.js";

const NAMES = /\.(png|apng|jpe?g|webp|avif|tiff?|gif|bmp)$/i;

export class Intake {
  maxBytes = Infinity; // of one file

  // on: { onFiles([{ file, name }]), onUrl(url, name), onRefused(sentence) }
  constructor(on) { Object.assign(this, on); }

  files(list) {
    const all = [...list];
    const pictures = all.filter((file) => file.type.startsWith("image/") || NAMES.test(file.name));
    const others = all.filter((file) => !pictures.includes(file)).map((file) => file.name);
    if (others.length) this.onRefused(strings.intake.notPictures(others.join(", ")));
    const fitting = pictures.filter((file) => {
      if (file.size <= this.maxBytes) return true;
      this.onRefused(strings.intake.tooLarge(file.name, bytes(file.size), bytes(this.maxBytes)));
      return false;
    });
    if (!fitting.length) return;
    this.onFiles(fitting.map((file) => ({ file, name: nameOf(file) })));
    this.#added(fitting.length);
  }

  url(text) {
    let url;
    try {
      url = new URL(text.trim());
    } catch {
      url = null;
    }
    if (!url || !/^https?:$/.test(url.protocol)) {
      this.onRefused(strings.intake.badUrl);
      return false;
    }
    this.onUrl(url.href, lastPart(url));
    this.#added(1);
    return true;
  }

  async sample() {
    const answer = await fetch(new URL("./sample.png", import.meta.url));
    this.files([new File([await answer.blob()], "sample.png", { type: "image/png" })]);
  }

  #added(count) {
    find("#add-dialog").close();
    announce(strings.intake.added(count));
  }

  // Drop and paste work everywhere on the page; `zone` is what lights up.
  listen() {
    const page = document.documentElement;
    let depth = 0;
    const carries = (event) => event.dataTransfer?.types.includes("Files");
    const light = (on) => page.classList.toggle("dropping", on);
    addEventListener("dragenter", (event) => { if (carries(event)) { depth += 1; light(true); } });
    addEventListener("dragleave", (event) => { if (carries(event)) { depth -= 1; light(depth > 0); } });
    addEventListener("dragover", (event) => { if (carries(event)) event.preventDefault(); });
    addEventListener("drop", (event) => {
      if (!carries(event)) return;
      event.preventDefault();
      depth = 0;
      light(false);
      this.files(event.dataTransfer.files);
    });
    addEventListener("paste", (event) => {
      if (event.clipboardData.files.length) {
        event.preventDefault();
        this.files(event.clipboardData.files);
      } else if (!event.target.closest("input, textarea") && /^https?:\/\/\S+$/.test(event.clipboardData.getData("text").trim())) {
        this.url(event.clipboardData.getData("text"));
      }
    });
    for (const input of document.querySelectorAll("input[type=file]")) {
      input.addEventListener("change", () => {
        this.files(input.files);
        input.value = "";
      });
    }
    find("#url-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const input = find("#url");
      if (this.url(input.value)) input.value = "";
      else input.focus();
    });
    find("#try-sample").addEventListener("click", () => this.sample());
  }
}

// What a browser calls a pasted picture tells nothing.
function nameOf(file) {
  return /^image\.\w+$/.test(file.name) ? file.name.replace("image", strings.intake.pasted) : file.name;
}

function lastPart(url) {
  const last = url.pathname.split("/").at(-1) || url.hostname;
  try {
    return decodeURIComponent(last);
  } catch {
    return last;
  }
}
