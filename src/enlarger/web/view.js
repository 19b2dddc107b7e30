// Where the eye is over a picture: the point in the middle and the zoom. Pure arithmetic, no drawing.
//
// Picture pixels are those of the result; pane pixels are CSS pixels, from the pane's upper left corner.
// A view is { x, y, zoom }: the picture point in the middle of the pane, and pane pixels a picture pixel.

const MAX_ZOOM = 16;
const MAX_FIT = 4;

export function fitZoom(picture, pane) {
  return Math.min(pane.width / picture.width, pane.height / picture.height, MAX_FIT);
}

export function fitted(picture, pane) {
  return { x: picture.width / 2, y: picture.height / 2, zoom: fitZoom(picture, pane) };
}

export function isFitted(view, picture, pane) {
  return Math.abs(view.zoom / fitZoom(picture, pane) - 1) < 1e-6;
}

// The view kept where there is something to see: a picture larger than the pane fills it, a smaller one stays in the middle.
export function clamped(view, picture, pane) {
  const fit = fitZoom(picture, pane);
  const zoom = Math.min(Math.max(view.zoom, Math.min(fit, 1) / 2), Math.max(MAX_ZOOM, fit));
  const inside = (at, length, room) => {
    const half = room / zoom / 2;
    return length <= 2 * half ? length / 2 : Math.min(Math.max(at, half), length - half);
  };
  return { zoom, x: inside(view.x, picture.width, pane.width), y: inside(view.y, picture.height, pane.height) };
}

// Zoomed by `factor` about a point of the pane, which stays over the same point of the picture.
export function zoomedAt(view, factor, at, pane) {
  const zoom = view.zoom * factor;
  const dx = at.x - pane.width / 2;
  const dy = at.y - pane.height / 2;
  return { zoom, x: view.x + dx / view.zoom - dx / zoom, y: view.y + dy / view.zoom - dy / zoom };
}

export function panned(view, dx, dy) {
  return { ...view, x: view.x - dx / view.zoom, y: view.y - dy / view.zoom };
}

// Pane position of a picture point.
export function placed(view, point, pane) {
  return { x: (point.x - view.x) * view.zoom + pane.width / 2, y: (point.y - view.y) * view.zoom + pane.height / 2 };
}

// The rectangle of the picture that the pane shows: { left, top, right, bottom }.
export function shownPart(view, pane) {
  const halfWidth = pane.width / view.zoom / 2;
  const halfHeight = pane.height / view.zoom / 2;
  return { left: view.x - halfWidth, top: view.y - halfHeight, right: view.x + halfWidth, bottom: view.y + halfHeight };
}

// How the input lies under the result: where its corner is and how large one of its pixels, in picture pixels.
// It was cropped only when it was asked to fill a box.
export function inputPlacement(input, result, fields = {}) {
  const scaleX = result.width / input.width;
  const scaleY = result.height / input.height;
  if (fields.fit !== "cover" || !fields.width || !fields.height) return { left: 0, top: 0, scaleX, scaleY };
  const scale = Math.max(scaleX, scaleY);
  return {
    left: (result.width - input.width * scale) / 2,
    top: (result.height - input.height * scale) / 2,
    scaleX: scale,
    scaleY: scale,
  };
}
