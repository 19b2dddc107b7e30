// Numbers as people read them. Pure.

import { strings } from "./strings.js";

export function bytes(count) {
  if (count < 1000) return `${count} B`;
  const steps = ["kB", "MB", "GB", "TB"];
  let value = count / 1000;
  let step = 0;
  while (value >= 999.5 && step < steps.length - 1) { value /= 1000; step += 1; }
  return `${value < 9.95 ? value.toFixed(1).replace(/\.0$/, "") : Math.round(value)} ${steps[step]}`;
}

export function pixels([width, height]) {
  return `${width.toLocaleString("en").replaceAll(",", " ")} × ${height.toLocaleString("en").replaceAll(",", " ")}`;
}

export function megapixels(millions) {
  return `${Number(millions.toPrecision(3)).toLocaleString("en")} megapixels`;
}

export function seconds(value) {
  if (value < 0.95) return `${Math.max(1, Math.round(value * 1000))} ms`;
  if (value < 9.95) return `${value.toFixed(1).replace(/\.0$/, "")} s`;
  if (value < 99.5) return `${Math.round(value)} s`;
  if (value < 600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  return `${(value / 3600).toFixed(1).replace(/\.0$/, "")} h`;
}

// An estimate is rounded up and never told in milliseconds.
export function estimate(value) {
  if (value < 99.5) return `${Math.max(1, Math.ceil(value))} s`;
  return value < 5400 ? `${Math.ceil(value / 60)} min` : seconds(value);
}

export function ago(iso, now = Date.now()) {
  const minutes = Math.floor((now - Date.parse(iso)) / 60_000);
  if (minutes < 1) return strings.time.now;
  if (minutes < 60) return strings.time.minutes(minutes);
  if (minutes < 24 * 60) return strings.time.hours(Math.floor(minutes / 60));
  return new Date(iso).toLocaleDateString("en", { day: "numeric", month: "short" });
}

export function percent(share) {
  return Math.round(share * 100);
}

// "photo.jpg" enlarged to a PNG is saved as "photo-768x512.png".
export function resultName(name, size, url) {
  const stem = name.replace(/\.[A-Za-z0-9]{1,5}$/, "").replace(/[^\p{L}\p{N} ._-]+/gu, "-").slice(0, 80) || "picture";
  const extension = new URL(url, location.origin).pathname.match(/\.([a-z0-9]+)$/)?.[1] ?? "png";
  return size ? `${stem}-${size[0]}x${size[1]}.${extension}` : `${stem}-large.${extension}`;
}
