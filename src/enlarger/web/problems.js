// An error as people need it: what happened in the API's own words, and what to do about it.

import { el, icon } from "./dom.js";
import { strings } from "./strings.js";

const words = strings.error;

// problem: a Problem, any Error, or a failed prediction ({ error, code }). actions: buttons.
export function problemCard(title, problem, actions = []) {
  return el("div", { class: "problem", role: "alert" }, icon("warning"), el("div", {},
    el("h3", {}, title), el("p", {}, problem.error || problem.message), hintOf(problem) && el("p", { class: "hint" }, hintOf(problem)),
    actions.length > 0 && el("div", { class: "row" }, actions)));
}

export function hintOf(problem) {
  const hint = words.hints[problem.errorCode] ?? words.hints[problem.code] ?? "";
  return problem.retryAfter ? `${hint} ${words.retryIn(problem.retryAfter)}`.trim() : hint;
}
