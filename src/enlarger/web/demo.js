// The first screen's before and after: two small pictures and a divider.

import { el, find, icon } from "./dom.js";
import { strings } from "./strings.js";

const BEFORE = [192, 128];
const AFTER = [768, 512];

export function showDemo() {
  const url = (name) => new URL(name, import.meta.url).href;
  const words = strings.viewer;
  const size = { width: AFTER[0], height: AFTER[1] };
  const slider = el("input", { type: "range", min: "0", max: "100", step: "1", "aria-label": strings.welcome.demoSlider });
  slider.value = "50";
  const line = el("span", { class: "divider", "aria-hidden": "true" }, el("span", { class: "grip" }, icon("split")));
  const before = el("img", { class: "demo-before", src: url("./demo-before.webp"), alt: "", ...size });
  const frame = el("div", { class: "demo-frame" },
    el("img", { src: url("./demo-after.avif"), alt: "", ...size }), before, line, slider,
    el("span", { class: "side-label before" }, words.before), el("span", { class: "side-label after" }, words.after));
  const draw = () => {
    before.style.clipPath = `inset(0 ${100 - Number(slider.value)}% 0 0)`;
    line.style.left = `${slider.value}%`;
    slider.setAttribute("aria-valuetext", words.dividerAt(slider.value));
  };
  slider.addEventListener("input", draw);
  draw();
  const caption = strings.welcome.demo(BEFORE.join(" × "), AFTER.join(" × "));
  find("#demo").append(frame, el("figcaption", {}, caption));
}
