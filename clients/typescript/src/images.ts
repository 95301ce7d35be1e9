/**
 * What may be given as a picture, and what of it goes over the wire.
 *
 *     Blob, File, ArrayBuffer, typed array    a file's content: JPEG, PNG, WebP, BMP, GIF, TIFF   as they are
 *     Pixels                                  numbers 0..255 of the model's own size              JSON
 */

import { InvalidInputError } from "./errors.js";

/** A picture's file: what an `<input type="file">`, `fetch`, `canvas.toBlob` and Node's `readFile` give. */
export type Image = Blob | ArrayBuffer | ArrayBufferView;

/** A picture's numbers, already of the height, width and channels that the model takes. */
export interface Pixels {
  /** 0..255, row by row, the channels of a pixel side by side. */
  readonly data: Uint8Array | Uint8ClampedArray;
  readonly height: number;
  readonly width: number;
  /** 1: grey, 3: RGB. */
  readonly channels: number;
}

/** What goes over the wire. */
export type Content = Image | FormData | string;

/** The body of a request, with its type; a form brings its own. */
export interface Body {
  readonly content: Content;
  readonly type?: string;
}

const BINARY = "application/octet-stream"; // what it is shows in its bytes

/**
 * One picture as a body, or several as a form.
 *
 * @throws InvalidInputError There is none, or one is no file's content.
 */
export function writeImages(images: readonly Image[]): Body {
  images.forEach(checkImage);
  const [first] = images;
  if (first === undefined) {
    throw new InvalidInputError("expected at least one picture, received none");
  }
  if (images.length === 1) {
    return { content: first, type: BINARY };
  }
  const form = new FormData();
  // A view's buffer may be a SharedArrayBuffer by its type; Blob refuses that one by itself.
  images.forEach((image, position) => form.append("file", new Blob([image as BlobPart]), String(position)));
  return { content: form };
}

/**
 * Pictures' numbers as a body.
 *
 * @throws InvalidInputError There is none, or `data` does not fill the shape.
 */
export function writePixels(pictures: readonly Pixels[]): Body {
  if (pictures.length === 0) {
    throw new InvalidInputError("expected at least one picture, received none");
  }
  const data = pictures.map(nest);
  return { content: JSON.stringify({ data, scale: "0-255" }), type: "application/json" };
}

function checkImage(image: unknown): void {
  if (image instanceof Blob || image instanceof ArrayBuffer || ArrayBuffer.isView(image)) {
    return;
  }
  const received = typeof image === "string" ? `the text ${JSON.stringify(image.slice(0, 80))}` : describe(image);
  throw new InvalidInputError(
    `expected a picture as Blob, ArrayBuffer or typed array, received ${received};` +
      " for a file or an address, read it first: await readFile(path), (await fetch(url)).blob()",
  );
}

function describe(value: unknown): string {
  return typeof value === "object" && value !== null ? (value.constructor?.name ?? "an object") : String(value);
}

/** `[height][width][channels]`: nested, so that the server checks the shape and not only the count. */
function nest({ data, height, width, channels }: Pixels): number[][][] {
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray)) {
    throw new InvalidInputError(`expected pixels as Uint8Array, values 0 to 255, received ${describe(data)}`);
  }
  if (data.length === 0 || data.length !== height * width * channels) {
    throw new InvalidInputError(
      `expected ${height} × ${width} × ${channels} = ${height * width * channels} values, received ${data.length}`,
    );
  }
  const pixel = (start: number) => Array.from(data.subarray(start, start + channels));
  return Array.from({ length: height }, (_, row) =>
    Array.from({ length: width }, (_, column) => pixel((row * width + column) * channels)),
  );
}
