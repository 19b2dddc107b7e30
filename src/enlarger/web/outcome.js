// What is needed once a run has ended, loaded while the first one goes on: the viewer, the report, the faces.

export { facesOf, facesPanel } from "./faces.js";
export { reportPanel } from "./report.js";
export { openResult } from "./result.js";
export { Viewer } from "./viewer.js";
