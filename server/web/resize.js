// What the model sees: the picture at the model's own size, by the filter that the server uses.
//
// file ──decode, upright──▶ at most 1024 px a side, on white ──antialiased bilinear──▶ grey or RGB at the model's size

const READ_PX = 1024; // a side at most before the exact filter, which is plain JavaScript

/**
 * Resizes a picture as the server does. The browser decodes by other code than the server, so a pixel may differ by a
 * shade.
 * @param {Blob} file
 * @param {{width_px: number, height_px: number, channels: number}} target
 * @returns {Promise<ImageData>}
 */
export async function resizeForModel(file, target) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const pixels = readPixels(bitmap);
  bitmap.close();
  const narrow = filterRows(pixels.data, pixels.width, pixels.height, target.width_px);
  const small = filterColumns(narrow, target.width_px, pixels.height, target.height_px);
  return toImageData(small, target);
}

function readPixels(bitmap) {
  const shrink = Math.min(1, READ_PX / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * shrink));
  const height = Math.max(1, Math.round(bitmap.height * shrink));
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // what transparency lies on
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

// For each target position the source positions it averages over, and their shares: a triangle as wide as the scale.
function spread(from, to) {
  const scale = from / to;
  const reach = Math.max(scale, 1);
  return Array.from({ length: to }, (__, index) => {
    const centre = (index + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - reach + 0.5));
    const last = Math.min(from, Math.floor(centre + reach + 0.5));
    const weigh = (_, i) => Math.max(0, 1 - Math.abs((first + i + 0.5 - centre) / reach));
    const shares = Array.from({ length: last - first }, weigh);
    const sum = shares.reduce((a, b) => a + b, 0);
    return { first, shares: shares.map((share) => share / sum) };
  });
}

// RGBA in, RGB out: `height` rows of `to` pixels.
function filterRows(data, width, height, to) {
  const out = new Float32Array(to * height * 3);
  spread(width, to).forEach(({ first, shares }, x) => {
    for (let y = 0; y < height; y += 1) {
      const target = (y * to + x) * 3;
      shares.forEach((share, i) => {
        const source = (y * width + first + i) * 4;
        for (let c = 0; c < 3; c += 1) out[target + c] += share * data[source + c];
      });
    }
  });
  return out;
}

function filterColumns(data, width, height, to) {
  const out = new Float32Array(width * to * 3);
  const row = width * 3;
  spread(height, to).forEach(({ first, shares }, y) => {
    shares.forEach((share, i) => {
      for (let x = 0; x < row; x += 1) out[y * row + x] += share * data[(first + i) * row + x];
    });
  });
  return out;
}

function toImageData(rgb, { width_px: width, height_px: height, channels }) {
  const image = new ImageData(width, height);
  for (let pixel = 0; pixel < width * height; pixel += 1) {
    let [red, green, blue] = rgb.subarray(pixel * 3, pixel * 3 + 3);
    // ITU-R BT.601, as Pillow
    if (channels === 1) red = green = blue = 0.299 * red + 0.587 * green + 0.114 * blue;
    image.data.set([Math.round(red), Math.round(green), Math.round(blue), 255], pixel * 4);
  }
  return image;
}
