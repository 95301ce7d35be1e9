// Which parts of a picture an answer rests on, by hiding them: Zeiler and Fergus, 2014, section 4.2.
//
// picture at the model's size ──grey patch at every place──▶ probability of the class ──how far it fell──▶ heat map

import { encodeBmp } from "./bmp.js";
import { classifyTogether, patiently } from "./server.js";

const PATCH_SHARE = 1 / 4; // of a side
const STEP_SHARE = 1 / 16; // 13 places a side, 169 in all
const GREY = 128;
const BATCH_ROWS = 32;
const BATCH_BYTES = 4 << 20;
export const WARM = [255, 84, 0];
const COLD = [30, 110, 255];
export const OPAQUE = 215; // of 255, so that the picture shines through
const FAINT = 0.05; // where nothing changes the probability by more, the whole map stays faint
export const FADE = 1.5; // weak effects step back behind strong ones

/**
 * Slides a grey patch over a picture.
 * @param {ImageData} image At the model's own size.
 * @param {number} target The class whose probability is watched.
 * @param {{name: string, version: number}} model
 * @param {{signal: AbortSignal, onProgress: (done: number, all: number) => void}} options
 * @returns {Promise<{falls: Float32Array, places: number}>} For each pixel how far hiding it lowers the probability, on
 *   average over the patches that cover it; below 0 where it raises it.
 */
export async function slidePatch(image, target, model, { signal, onProgress }) {
  const patches = listPatches(image.width, image.height);
  const [whole] = await classifyPatiently([encodeBmp(image)], model, signal);
  const falls = [];
  onProgress(0, patches.length);
  while (falls.length < patches.length) {
    const blobs = encodeSome(image, patches.slice(falls.length));
    const rows = await classifyPatiently(blobs, model, signal);
    falls.push(...rows.map((row) => whole[target] - row[target]));
    onProgress(falls.length, patches.length);
  }
  return { falls: spreadOverPixels(image, patches, falls), places: patches.length };
}

/** Draws falls: warm where hiding lowers the probability, blue where it raises it, nothing where it does neither. */
export function drawFalls(canvas, { width, height }, falls) {
  const largest = Math.max(largestFall(falls), FAINT);
  const heat = new ImageData(width, height);
  falls.forEach((fall, pixel) => {
    const strength = (Math.abs(fall) / largest) ** FADE;
    heat.data.set([...(fall > 0 ? WARM : COLD), Math.round(OPAQUE * strength)], pixel * 4);
  });
  Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(heat, 0, 0);
}

export const largestFall = (falls) => falls.reduce((largest, fall) => Math.max(largest, Math.abs(fall)), 0);

function listPatches(width, height) {
  const size = { x: patchOf(width), y: patchOf(height) };
  const patches = [];
  for (const y of placesAlong(height, size.y)) {
    for (const x of placesAlong(width, size.x)) patches.push({ x, y, width: size.x, height: size.y });
  }
  return patches;
}

const patchOf = (side) => Math.max(1, Math.round(side * PATCH_SHARE));

function placesAlong(side, patch) {
  const step = Math.max(1, Math.round(side * STEP_SHARE));
  const places = [];
  for (let at = 0; at < side - patch; at += step) places.push(at);
  return [...places, side - patch];
}

function encodeSome(image, patches) {
  const rows = Math.floor(BATCH_BYTES / (image.width * image.height * 3));
  return patches.slice(0, Math.max(1, Math.min(BATCH_ROWS, rows))).map((patch) => encodeBmp(hide(image, patch)));
}

function hide(image, patch) {
  const hidden = new ImageData(image.data.slice(), image.width);
  for (let y = patch.y; y < patch.y + patch.height; y += 1) {
    const row = (y * image.width + patch.x) * 4;
    hidden.data.fill(GREY, row, row + patch.width * 4); // its opacity too, which BMP has none of
  }
  return hidden;
}

// A heat map can wait while others are served.
const classifyPatiently = (blobs, model, signal) => patiently(() => classifyTogether(blobs, model, signal));

function spreadOverPixels({ width, height }, patches, falls) {
  const sums = new Float32Array(width * height);
  const counts = new Float32Array(width * height);
  patches.forEach((patch, index) => {
    for (let y = patch.y; y < patch.y + patch.height; y += 1) {
      for (let x = patch.x; x < patch.x + patch.width; x += 1) {
        sums[y * width + x] += falls[index];
        counts[y * width + x] += 1;
      }
    }
  });
  return sums.map((sum, pixel) => sum / counts[pixel]);
}
