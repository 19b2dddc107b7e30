// Gestures: what fingers, mouse, wheel and keys mean for a view. Tells of pans, zooms and commands; knows no picture.

const WHEEL_STEP = 0.0016; // of zoom, a pixel of wheel
const KEY_ZOOM = 1.25;
const KEY_PAN = 0.12; // of the pane
const TAP_MS = 300;

// on: { pan(dx, dy), zoom(factor, { x, y }), doubleTap({ x, y }), command(name), drag(event) → true when it took it }
export function listenToGestures(pane, on) {
  const pointers = new Map();
  const at = (event) => {
    const box = pane.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  listenToPointers(pane, pointers, at, on);
  pane.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
    // A pinch on a touchpad comes as a wheel with ctrl, in small steps.
    const step = event.deltaY * lines * WHEEL_STEP * (event.ctrlKey ? 6 : 1);
    on.zoom(Math.exp(-Math.max(-1, Math.min(1, step))), at(event));
  }, { passive: false });
  pane.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("[role=slider], button")) return;
    if (keyed(pane, event.key, on)) event.preventDefault();
  });
}

function listenToPointers(pane, pointers, at, on) {
  let lastTap = { time: 0, x: 0, y: 0 };
  pane.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.target.closest("button")) return;
    pane.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, at(event));
  });
  pane.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = at(event);
    if (pointers.size === 2) pinch(pointers, event.pointerId, now, on);
    else if (!on.drag(event)) on.pan(now.x - before.x, now.y - before.y);
    pointers.set(event.pointerId, now);
  });
  const end = (event) => {
    if (!pointers.delete(event.pointerId) || event.type !== "pointerup") return;
    const tap = { time: event.timeStamp, ...at(event) };
    const isSecond = tap.time - lastTap.time < TAP_MS && Math.hypot(tap.x - lastTap.x, tap.y - lastTap.y) < 12;
    lastTap = isSecond ? { time: 0, x: 0, y: 0 } : tap;
    if (isSecond) on.doubleTap(tap);
  };
  for (const name of ["pointerup", "pointercancel"]) pane.addEventListener(name, end);
}

function pinch(pointers, id, now, on) {
  const [otherId] = [...pointers.keys()].filter((key) => key !== id);
  const other = pointers.get(otherId);
  const before = pointers.get(id);
  const span = (a, b) => Math.max(1, Math.hypot(a.x - b.x, a.y - b.y));
  on.zoom(span(now, other) / span(before, other), { x: (before.x + other.x) / 2, y: (before.y + other.y) / 2 });
  on.pan((now.x - before.x) / 2, (now.y - before.y) / 2);
}

function keyed(pane, key, on) {
  const { clientWidth: width, clientHeight: height } = pane;
  const middle = { x: width / 2, y: height / 2 };
  const keys = {
    ArrowLeft: () => on.pan(width * KEY_PAN, 0),
    ArrowRight: () => on.pan(-width * KEY_PAN, 0),
    ArrowUp: () => on.pan(0, height * KEY_PAN),
    ArrowDown: () => on.pan(0, -height * KEY_PAN),
    "+": () => on.zoom(KEY_ZOOM, middle),
    "=": () => on.zoom(KEY_ZOOM, middle),
    "-": () => on.zoom(1 / KEY_ZOOM, middle),
    0: () => on.command("fit"),
    1: () => on.command("actual"),
    s: () => on.command("mode"),
    f: () => on.command("faces"),
    "[": () => on.command("left"),
    "]": () => on.command("right"),
  };
  keys[key]?.();
  return key in keys;
}
