// Where the network itself saw a class: the class-activation map of Zhou et al., 2016, which the server computes.

import { FADE, OPAQUE, WARM } from "./occlusion.js";
import { explain, patiently } from "./server.js";

/**
 * Asks for the map of one class, and again while the server has no room for it.
 * @param {Blob} file
 * @param {string} label
 * @param {{name: string, version: number}} model
 * @param {AbortSignal} signal
 * @returns {Promise<{map: number[][], height: number, width: number, label: string}>} Shares of the strongest place.
 */
export const askMap = (file, label, model, signal) => patiently(() => explain(file, label, model, signal));

/** Draws a map: the warmer the more a place speaks for the class, nothing where it does not. */
export function drawMap(canvas, { map, height, width }) {
  const cells = new ImageData(width, height);
  map.flat().forEach((share, cell) => {
    cells.data.set([...WARM, Math.round(OPAQUE * share ** FADE)], cell * 4);
  });
  Object.assign(canvas, { width, height }); // the style sheet lays it over the whole picture, smoothly
  canvas.getContext("2d").putImageData(cells, 0, 0);
}
