// What stays in this browser (localStorage) or this tab (sessionStorage), by name.

export const NAMES = {
  items: "enlarger-items", // of the tab: its pictures
  seen: "enlarger-history", // of the browser: predictions it has started
  form: "enlarger-form", // options as they were last
};

// The value kept under `name`, of the same kind as `otherwise`, or that.
export function kept(storage, name, otherwise) {
  try {
    const found = JSON.parse(storage.getItem(name));
    return found && Array.isArray(found) === Array.isArray(otherwise) ? found : otherwise;
  } catch {
    return otherwise;
  }
}
