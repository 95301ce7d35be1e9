// Pixels to a BMP file. `canvas.toBlob` encodes when the browser is idle, which under load is seconds away; this is at
// once, and on the server a BMP decodes faster than a PNG.

const HEADER_BYTES = 54;
const PIXELS_PER_METRE = 2835; // 72 dots per inch

/** A picture's file: 24 bits a pixel, rows from the bottom up and padded to 4 bytes. */
export function encodeBmp({ data, width, height }) {
  const rowBytes = Math.ceil((width * 3) / 4) * 4;
  const file = new Uint8Array(HEADER_BYTES + rowBytes * height);
  writeHeader(new DataView(file.buffer), width, height);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const from = (y * width + x) * 4;
      file.set([data[from + 2], data[from + 1], data[from]], HEADER_BYTES + (height - 1 - y) * rowBytes + x * 3);
    }
  }
  return new Blob([file], { type: "image/bmp" });
}

function writeHeader(view, width, height) {
  view.setUint16(0, 0x424d); // "BM"
  view.setUint32(2, view.byteLength, true);
  view.setUint32(10, HEADER_BYTES, true);
  view.setUint32(14, 40, true); // the second header's size
  view.setInt32(18, width, true);
  view.setInt32(22, height, true);
  view.setUint16(26, 1, true); // planes
  view.setUint16(28, 24, true); // bits a pixel
  view.setUint32(34, view.byteLength - HEADER_BYTES, true);
  view.setInt32(38, PIXELS_PER_METRE, true);
  view.setInt32(42, PIXELS_PER_METRE, true);
}
