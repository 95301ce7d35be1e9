/** Every way of calling, against a real server: SHOAL_URL, with SHOAL_PICTURES a folder of <number>-<label>.png. */

import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import {
  DeadlineExceededError,
  InvalidInputError,
  ModelNotFoundError,
  PayloadTooLargeError,
  ServerFailedError,
  ShoalClient,
  ShoalError,
  UnsupportedImageError,
} from "shoal-client";

const { SHOAL_URL: url, SHOAL_PICTURES: folder } = process.env;
const skip = url && folder ? false : "set SHOAL_URL and SHOAL_PICTURES";
const client = new ShoalClient(url ?? "http://127.0.0.1:9");
const names = skip ? [] : (await readdir(folder)).sort();
const digits = await Promise.all(
  names.map(async (name) => ({ file: await readFile(join(folder, name)), label: name.split(/[-.]/)[1] })),
);
const files = digits.map(({ file }) => file);
const labels = digits.map(({ label }) => label);

const warnings = [];
process.on("warning", (warning) => warnings.push(warning));
after(() => assert.deepEqual(warnings, [])); // above all: no listener is left behind on a signal

async function all(iterable) {
  const values = [];
  for await (const value of iterable) values.push(value);
  return values;
}

test("one picture", { skip }, async () => {
  const answer = await client.classify(files[0], { topK: 3, requestId: "from-node:1" });
  assert.equal(answer.best.label, labels[0]);
  assert.equal(answer.best.index, Number(labels[0]));
  const shares = answer.predictions[0].classes.map(({ probability }) => probability);
  assert.equal(shares.length, 3);
  assert.deepEqual(shares, [...shares].sort((a, b) => b - a));
  assert.deepEqual([answer.model, answer.version, answer.requestId], ["digits", 1, "from-node:1"]);
  assert.ok(answer.variant);
  assert.ok(answer.timing.inferMs > 0 && answer.timing.decodeMs > 0, JSON.stringify(answer.timing));
});

test("every kind of picture", { skip }, async () => {
  const bytes = new Uint8Array(files[0]);
  const part = new Uint8Array([0, ...bytes, 0]).subarray(1, -1); // a view of a part of its buffer
  for (const image of [files[0], bytes, bytes.buffer, part, new DataView(bytes.buffer), new Blob([bytes])]) {
    assert.equal((await client.classify(image)).best.label, labels[0], image.constructor.name);
  }
});

test("a batch keeps its order", { skip }, async () => {
  const answer = await client.classifyBatch(new Set(files), { topK: 1 });
  assert.deepEqual(answer.predictions.map(({ best }) => best.label), labels);
});

test("pixels: one picture, several, and shapes that do not fit", { skip }, async () => {
  const { inputShape } = await client.modelInfo();
  assert.deepEqual(inputShape, [-1, 8, 8, 1]);
  const dark = { data: new Uint8Array(64), height: 8, width: 8, channels: 1 };
  const one = await client.classifyPixels(dark);
  const two = await client.classifyPixels([dark, { ...dark, data: new Uint8ClampedArray(64).fill(255) }]);
  assert.deepEqual(two.predictions[0].best.label, one.best.label);
  assert.equal(two.predictions.length, 2);
  await assert.rejects(client.classifyPixels({ ...dark, height: 9 }), /expected 9 × 8 × 1 = 72 values, received 64/);
  await assert.rejects(client.classifyPixels({ ...dark, height: 4, width: 16 }), InvalidInputError);
  await assert.rejects(client.classifyPixels({ ...dark, data: [...dark.data] }), /expected pixels as Uint8Array/);
  await assert.rejects(client.classifyPixels([]), /at least one picture/);
});

test("many come back in order", { skip }, async () => {
  const numbers = Array.from({ length: 200 }, (_, number) => number % files.length);
  async function* given() {
    for (const number of numbers) yield files[number];
  }
  const answers = await all(client.classifyMany(given(), { topK: 1 }));
  assert.deepEqual(answers.map(({ best }) => best.label), numbers.map((number) => labels[number]));
  assert.deepEqual(await all(client.classifyMany([])), []);
});

test("a stream tells each position once", { skip }, async () => {
  const outcomes = await all(client.stream(files, { window: 5 }));
  assert.deepEqual(outcomes.map(({ position }) => position).sort((a, b) => a - b), files.map((_, number) => number));
  for (const { position, answer } of outcomes) assert.equal(answer.best.label, labels[position]);
});

test("one bad picture among many", { skip }, async () => {
  const text = new TextEncoder().encode("Dear diary");
  const given = [files[0], text, new Uint8Array(2_000_000), "seven.png", files[1]];
  const results = await all(client.classifyMany(given, { returnErrors: true, window: 2 }));
  assert.deepEqual([results[0].best.label, results[4].best.label], [labels[0], labels[1]]);
  assert.ok(results[1] instanceof UnsupportedImageError, String(results[1]));
  assert.ok(results[2] instanceof PayloadTooLargeError, String(results[2]));
  assert.match(results[3].message, /received the text "seven.png"; .* readFile/);
  await assert.rejects(all(client.classifyMany(given)), UnsupportedImageError);
});

test("the iterator is read only so far as answers come, and is closed", { skip }, async () => {
  let taken = 0;
  let closed = false;
  function* endless() {
    try {
      for (;;) {
        taken += 1;
        yield files[0];
      }
    } finally {
      closed = true;
    }
  }
  let answered = 0;
  for await (const answer of client.classifyMany(endless(), { window: 6 })) {
    assert.equal(answer.best.label, labels[0]);
    if (++answered === 10) break;
  }
  assert.ok(taken <= 10 + 8 * 6, `${taken} taken`);
  assert.ok(closed);
});

test("an iterator's own error ends the stream", { skip }, async () => {
  async function* broken() {
    yield files[0];
    throw new Error("no more film");
  }
  await assert.rejects(all(client.classifyMany(broken())), /no more film/);
});

test("errors have types, the server's words and the request's name", { skip }, async () => {
  await assert.rejects(client.classify(new TextEncoder().encode("Dear diary")), (error) => {
    assert.ok(error instanceof UnsupportedImageError && error instanceof InvalidInputError && error instanceof ShoalError);
    assert.equal(error.name, "UnsupportedImageError");
    assert.match(error.message, /Dear diary/);
    assert.deepEqual([error.problem.status, error.problem.type], [415, "urn:shoal:unsupported-image"]);
    assert.ok(error.requestId);
    return true;
  });
  await assert.rejects(client.classify(files[0], { model: "no/such model" }), ModelNotFoundError);
  await assert.rejects(client.modelInfo({ version: 9 }), ModelNotFoundError);
  await assert.rejects(client.classify(new Uint8Array(2_000_000)), PayloadTooLargeError);
  await assert.rejects(client.classify(files[0], { topK: 0 }), /expected topK as a whole number of at least 1/);
  await assert.rejects(client.classify(files[0], { version: 1.5 }), InvalidInputError);
  await assert.rejects(client.classify(files[0], { requestId: "two words" }), InvalidInputError);
  await assert.rejects(client.classify(files[0], { timeoutMs: 0 }), /expected timeoutMs above 0/);
  assert.throws(() => client.stream(files, { window: 0 }), /expected a window of at least 1/);
  await assert.rejects(new ShoalClient(`${url}/elsewhere`).classify(files[0]), ServerFailedError);
});

test("a model is described", { skip }, async () => {
  const model = await client.modelInfo({ model: "digits", version: 1 });
  assert.deepEqual([model.name, model.version, model.architecture], ["digits", 1, "cnn"]);
  assert.deepEqual(model.labels, [..."0123456789"]);
  assert.ok(model.metrics.accuracy > 0.9);
  assert.deepEqual(model.versions.map(({ name, version }) => [name, version]), [["digits", 1]]);
});

test("health", { skip }, async () => {
  const health = await client.health();
  assert.deepEqual([health.ready, health.model, health.version], [true, "digits", 1]);
  assert.ok(health.uptimeS > 0 && health.shoalVersion);
});

test("deadlines and signals", { skip }, async () => {
  await assert.rejects(client.classify(files[0], { timeoutMs: 0.001 }), DeadlineExceededError);
  const endless = (function* () {
    for (;;) yield files[0];
  })();
  await assert.rejects(all(client.classifyMany(endless, { totalTimeoutMs: 50 })), /not everything was answered/);
  const reason = new Error("the person left");
  await assert.rejects(client.classify(files[0], { signal: AbortSignal.abort(reason) }), reason);
  const controller = new AbortController();
  const calling = client.classify(files[0], { signal: controller.signal });
  controller.abort(reason);
  await assert.rejects(calling, reason);
  const leaving = new AbortController();
  await assert.rejects(async () => {
    for await (const _ of client.stream(files, { signal: leaving.signal })) leaving.abort(reason);
  }, reason);
});
