// Faces that were found: outlined in the viewer, listed beside it, to be switched off or run again in another strength.

import { el, icon } from "./dom.js";
import { strings } from "./strings.js";
import { placed } from "./view.js";

const words = strings.faces;

export function facesOf(report) {
  return report?.faces?.faces ?? [];
}

const stateOf = (face) => (face.used ? words.restored : words.left);

// Outlines over the viewer; boxes are in pixels of the input. onFace(index): one was pressed.
export function faceMarks(faces, placement, onFace) {
  const node = el("div", { class: "face-marks" });
  const marks = faces.map((face, number) => el("button", {
    type: "button", class: face.used ? "face-mark" : "face-mark unused", title: strings.viewer.face(number + 1, stateOf(face)),
    "aria-label": strings.viewer.face(number + 1, stateOf(face)), onclick: () => onFace(face.index),
  }, el("span", {}, String(number + 1))));
  node.append(...marks);
  return {
    node,
    toggle() {
      node.hidden = !node.hidden;
      return !node.hidden;
    },
    place(view, pane) {
      const { left = 0, top = 0, scaleX = 1, scaleY = 1 } = placement ?? {};
      faces.forEach((face, number) => {
        const [x0, y0, x1, y1] = face.box;
        const from = placed(view, { x: left + x0 * scaleX, y: top + y0 * scaleY }, pane);
        const to = placed(view, { x: left + x1 * scaleX, y: top + y1 * scaleY }, pane);
        Object.assign(marks[number].style, {
          transform: `translate(${from.x + pane.x}px, ${from.y + pane.y}px)`,
          width: `${to.x - from.x}px`,
          height: `${to.y - from.y}px`,
        });
      });
    },
  };
}

// The list with its switches. onAgain(fields): run again with these options; null where the picture cannot be sent again.
export function facesPanel(report, fields, schema, onAgain) {
  const faces = facesOf(report);
  const note = report?.faces?.note;
  if (!report?.faces) return null;
  const boxes = faces.map((face, number) => el("label", { class: "check", "data-face": String(face.index) },
    el("input", { type: "checkbox", checked: Boolean(face.used), disabled: !onAgain, value: String(face.index) }),
    el("span", {}, words.face(number + 1), el("small", {}, described(face)))));
  const canRun = Boolean(onAgain) && faces.length > 0;
  const strength = schema.properties.face_strength && strengthOf(fields, schema.properties.face_strength);
  const again = () => {
    const chosen = boxes.filter((box) => box.querySelector("input").checked).map((box) => box.dataset.face);
    const value = Number(strength?.querySelector("input").value ?? NaN);
    onAgain({
      ...fields,
      face_enhance: chosen.length > 0,
      faces: schema.properties.faces && chosen.length && chosen.length < faces.length ? chosen.join(" ") : undefined,
      face_strength: chosen.length && !Number.isNaN(value) ? value : undefined,
    });
  };
  return el("section", { class: "card faces" }, el("h3", {}, words.title(faces.length)), note && el("p", { class: "note" }, note),
    boxes, canRun && strength,
    canRun && el("button", { type: "button", class: "wide", onclick: again }, icon("redo"), words.again));
}

function described(face) {
  const parts = [face.used ? words.restored : face.reason || words.left];
  const number = (value) => Number(value).toFixed(2);
  if (typeof face.similarity_before === "number" && typeof face.similarity_after === "number") {
    parts.push(words.similarity(number(face.similarity_before), number(face.similarity_after)));
  }
  return parts.join(", ");
}

function strengthOf(fields, spec) {
  const value = fields.face_strength ?? spec.default ?? 1;
  const output = el("output", {}, String(value));
  const input = el("input", {
    type: "range", min: String(spec.minimum ?? 0), max: String(spec.maximum ?? 1), step: "0.05", "aria-label": words.strength,
    oninput: (event) => { output.textContent = event.target.value; },
  });
  input.value = String(value);
  return el("label", { class: "field" }, el("span", { class: "name" }, words.strength, output), input);
}
