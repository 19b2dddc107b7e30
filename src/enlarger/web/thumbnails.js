// Previews: what the browser can show of a file before the server has it, and small pictures that survive a reload.

const THUMB_PX = 320;
const MAX_PREVIEW_BYTES = 60e6; // larger files wait for the viewer: decoding them here would stall a phone

// { preview: address of the file in memory, size: [w, h], thumb } or {} where the browser cannot read it.
export async function previewOf(file) {
  if (file.size > MAX_PREVIEW_BYTES) return {};
  try {
    const bitmap = await createImageBitmap(file);
    const size = [bitmap.width, bitmap.height];
    const thumb = thumbOf(bitmap);
    bitmap.close();
    return { preview: URL.createObjectURL(file), size, thumb };
  } catch {
    return {};
  }
}

// A small picture as a data URL, to be kept.
export function thumbOf(bitmap) {
  const factor = Math.min(1, THUMB_PX / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * factor));
  canvas.height = Math.max(1, Math.round(bitmap.height * factor));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/webp", 0.75);
}

const shown = new Map(); // data URL → address of the same bytes in memory

// The policy of the page allows pictures from memory, not from data URLs.
export function thumbUrl(thumb) {
  if (!thumb) return "";
  if (!shown.has(thumb)) {
    const [head, body] = thumb.split(",");
    const bytes = Uint8Array.from(atob(body), (character) => character.charCodeAt(0));
    shown.set(thumb, URL.createObjectURL(new Blob([bytes], { type: head.match(/:(.*?);/)[1] })));
  }
  return shown.get(thumb);
}
