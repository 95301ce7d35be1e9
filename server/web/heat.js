// "Show what matters": a button that lays a heat map over a picture, and tells how it was made.
//
// pressed ──has the model an activation map?──▶ one request, server.js ──▶ drawn over the picture
//                     └──no──▶ occlusion.js, many requests ──────────────▶

import { askMap, drawMap } from "./activation.js";
import { make } from "./dom.js";
import { drawFalls, largestFall, slidePatch } from "./occlusion.js";
import { NO_MAP, isNo } from "./server.js";

const NOTHING = 0.005; // a change of half a point
const SHOW = "Show what matters";
const HIDE = "Hide what matters";

/**
 * What a heat map is made for and drawn on.
 * @typedef {object} Subject
 * @property {string} name Of the picture.
 * @property {Blob} file
 * @property {ImageData} seen What the model sees of it.
 * @property {{class: number, label: string}} target
 * @property {{name: string, version: number}} model
 * @property {boolean} mapped Whether the model says that it has an activation map.
 * @property {HTMLCanvasElement} canvas Over the picture.
 * @property {AbortSignal} signal
 */

/**
 * The button and the place for words below it.
 * @param {Subject} subject
 * @param {(error: Error, place: HTMLElement) => void} showProblem
 */
export function offerHeat(subject, showProblem) {
  const { canvas, signal } = subject;
  const button = make("button", { type: "button", textContent: SHOW, ariaExpanded: "false" });
  const report = make("div", { className: "report" });
  report.setAttribute("aria-live", "polite");
  let drawn = false;
  const draw = async () => {
    button.disabled = true;
    try {
      const words = await drawHeat(subject, report);
      if (signal.aborted) return;
      report.replaceChildren(make("p", { className: "quiet", textContent: words }));
      drawn = true;
    } catch (error) {
      if (!signal.aborted) showProblem(error, report);
    } finally {
      button.disabled = false;
    }
  };
  button.addEventListener("click", async () => {
    if (!drawn) {
      await draw();
      if (!drawn) return;
      canvas.hidden = true;
      button.focus({ preventScroll: true }); // a disabled button has lost it
    }
    canvas.hidden = !canvas.hidden;
    report.hidden = canvas.hidden;
    button.ariaExpanded = String(!canvas.hidden);
    button.textContent = canvas.hidden ? SHOW : HIDE;
  });
  return make("div", { className: "why" }, button, report);
}

async function drawHeat(subject, report) {
  if (subject.mapped) {
    try {
      return await drawActivation(subject, report);
    } catch (error) {
      if (!isNo(error, NO_MAP)) throw error; // another version than the one asked about has answered
    }
  }
  return drawOcclusion(subject, report);
}

async function drawActivation({ canvas, file, model, target, signal }, report) {
  report.replaceChildren(make("p", { className: "quiet", textContent: "Asking for the activation map …" }));
  const map = await askMap(file, target.label, model, signal);
  if (signal.aborted) return "";
  drawMap(canvas, map);
  const how = `By class activation map, at ${map.width} × ${map.height} places.`;
  if (!map.map.flat().some((share) => share > 0)) {
    return `${how} No place says more for “${map.label}” than the others.`;
  }
  return `${how} The stronger the orange, the more the place says for “${map.label}”.`;
}

async function drawOcclusion({ canvas, name, seen, model, target, signal }, report) {
  const bar = make("progress", { value: 0, max: 1, ariaLabel: `Occlusion of ${name}` });
  const count = make("span", { className: "quiet", ariaHidden: "true" });
  report.replaceChildren(make("div", { className: "row" }, bar, count));
  const onProgress = (done, all) => {
    Object.assign(bar, { value: done, max: all });
    count.textContent = `${done} of ${all} patches`;
  };
  const { falls, places } = await slidePatch(seen, target.class, model, { signal, onProgress });
  if (signal.aborted) return "";
  drawFalls(canvas, seen, falls);
  return spellFalls(falls, places, target.label);
}

function spellFalls(falls, places, label) {
  const how = `By occlusion: a grey patch hid the picture at ${places} places in turn.`;
  const largest = largestFall(falls);
  if (largest < NOTHING) return `${how} No place alone changes “${label}” by half a point.`;
  const points = (100 * largest).toFixed(largest < 0.1 ? 1 : 0);
  return `${how} Orange: hiding it lowers “${label}”; blue: it raises it. At most by ${points} points.`;
}
