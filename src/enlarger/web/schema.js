// The request schema of the API, sorted for a form. Pure. What the API learns appears under Advanced by itself.

import { strings } from "./strings.js";

export const TARGETS = ["width", "height", "long_side", "short_side", "megapixels"];
const SIZE = ["scale", "fit", ...TARGETS];
const OUTPUT = ["output_format", "quality", "lossless"];
// Of the call, not of the picture; `image` comes from the page.
const CALL = ["image", "guidance_scale", "enable_sync_mode", "enable_base64_output", "webhook_url"];

// Options that mean nothing without others: not shown then, and not sent.
const SHOWN_WHEN = {
  fit: (values) => values.width && values.height,
  quality: (values) => ["jpeg", "webp", "avif"].includes(values.output_format),
  lossless: (values) => ["webp", "avif"].includes(values.output_format),
  denoise: (values) => values.model === "realesr-general-x4v3",
};
const isFace = (name) => name.startsWith("face") || name === "aligned";

export function isShown(name, values) {
  if (isFace(name) && name !== "face_enhance") return Boolean(values.face_enhance);
  return SHOWN_WHEN[name]?.(values) ?? true;
}

// Fields by where they stand: { size, model, faces, output, advanced }, each a list of { name, label, spec }.
export function groupsOf(schema) {
  const names = (schema["x-order-properties"] ?? Object.keys(schema.properties)).filter((name) => !CALL.includes(name));
  const groups = { size: [], model: [], faces: [], output: [], advanced: [] };
  for (const name of names) {
    const field = { name, label: strings.form.fields[name] ?? named(name), spec: schema.properties[name] };
    groups[groupOf(name)].push(field);
  }
  return groups;
}

function groupOf(name) {
  if (SIZE.includes(name)) return "size";
  if (name === "model") return "model";
  if (isFace(name)) return "faces";
  return OUTPUT.includes(name) ? "output" : "advanced";
}

function named(name) {
  const words = name.replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}

// [value, label, sentence] of every choice, or none where any word will do.
export function choicesOf(spec) {
  const told = spec["x-choices"] ?? (spec.enum ?? []).map((value) => ({ value }));
  return told.map(({ value, description = "" }) => [value, strings.form.choices[value] ?? String(value), description]);
}

// What a request has to say: only what differs from what the server assumes.
export function fieldsToSend(values, schema) {
  const sent = {};
  for (const [name, value] of Object.entries(values)) {
    const spec = schema.properties[name];
    const isDefault = value === spec?.default && name !== "scale";
    if (value !== null && value !== undefined && value !== "" && !isDefault && isShown(name, values)) sent[name] = value;
  }
  return sent;
}
