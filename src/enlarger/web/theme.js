// Light, dark, or as the system has it; the choice stays in this browser.

import { el, find, icon } from "./dom.js";
import { strings } from "./strings.js";

const NAME = "enlarger-theme";
const NEXT = { auto: "light", light: "dark", dark: "auto" };
const ICONS = { auto: "contrast", light: "sun", dark: "moon" };

// As early as the first module runs: the page shall not flash in the other colours.
export function applyTheme() {
  const theme = localStorage.getItem(NAME) ?? "auto";
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  return theme in NEXT ? theme : "auto";
}

export function themeButton() {
  const button = el("button", { type: "button", class: "icon-button", id: "theme" });
  const draw = () => {
    const theme = applyTheme();
    const label = strings.header.themeNow(strings.header.themes[theme]);
    button.replaceChildren(icon(ICONS[theme]));
    button.setAttribute("aria-label", label);
    button.title = label;
  };
  button.addEventListener("click", () => {
    localStorage.setItem(NAME, NEXT[applyTheme()]);
    draw();
  });
  draw();
  find("#tools").append(button);
}
