/** Refusals, broken connections and strangers: a real HTTP server that answers what a test says, and no waiting. */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import {
  ConnectionLostError,
  DeadlineExceededError,
  OverloadedError,
  ServerFailedError,
  ShoalClient,
  UnavailableError,
  UnauthenticatedError,
} from "shoal-client";

const PICTURE = new Uint8Array([1, 2, 3]);
const FULL = { status: 429, headers: { "Retry-After": "2", "X-Request-Id": "r-1" }, body: { detail: "full" } };
const DRAINING = { status: 503, body: { type: "urn:shoal:draining", detail: "stopping" } };
const ANSWER = {
  status: 200,
  headers: { "Server-Timing": "decode;dur=0.5, queue;dur=1.5, infer;dur=2, total;dur=4" },
  body: {
    top: [[{ class: 7, label: "seven", probability: 0.9 }]],
    model: "digits",
    version: 1,
    variant: "int8",
    request_id: "r-2",
  },
};

let replies = []; // in turn; the last one stays
let seen = [];
let url = "";
let nobody = ""; // an address at which nobody listens
const server = createServer((request, response) => {
  request.resume().on("end", () => {
    seen.push(request);
    const reply = replies.length > 1 ? replies.shift() : replies[0];
    if (reply === "hang") return;
    if (reply === "break") {
      request.socket.destroy();
      return;
    }
    response.writeHead(reply.status, reply.headers);
    response.end(typeof reply.body === "string" ? reply.body : JSON.stringify(reply.body));
  });
});

before(async () => {
  const short = createServer();
  await new Promise((resolve) => short.listen(0, "127.0.0.1", resolve));
  nobody = `http://127.0.0.1:${short.address().port}`;
  await new Promise((resolve) => short.close(resolve));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${server.address().port}`;
});
beforeEach(() => {
  seen = [];
});
after(() => {
  server.closeAllConnections();
  server.close();
});

/** Time that passes only by waiting. */
function makeClock() {
  const clock = {
    nowMs: 0,
    waits: [],
    now: () => clock.nowMs,
    draw: () => 0.5,
    sleep: async (ms, signal) => {
      signal?.throwIfAborted();
      clock.waits.push(ms);
      clock.nowMs += ms;
    },
  };
  return clock;
}

async function all(iterable) {
  const values = [];
  for await (const value of iterable) values.push(value);
  return values;
}

test("a refusal is repeated after the server's advice and a random wait", async () => {
  replies = [FULL, FULL, ANSWER];
  const clock = makeClock();
  const answer = await new ShoalClient(url, { clock, token: "secret" }).classify(PICTURE);
  assert.equal(answer.best.label, "seven");
  assert.deepEqual(answer.timing, { decodeMs: 0.5, queueMs: 1.5, inferMs: 2 });
  assert.deepEqual(clock.waits, [2000 + 25, 2000 + 50]);
  assert.deepEqual(seen.map(({ headers }) => headers.authorization), Array(3).fill("Bearer secret"));
  const budgets = seen.map(({ headers }) => Number(headers["x-latency-budget-ms"]));
  assert.deepEqual(budgets, [10_000, 7975, 5925], "the server is told what is left");
});

test("no limit of time is no header", async () => {
  replies = [ANSWER];
  await new ShoalClient(url, { timeoutMs: null }).classify(PICTURE);
  assert.equal(seen[0].headers["x-latency-budget-ms"], undefined);
});

test("attempts, the deadline and the budget end it", async () => {
  replies = [FULL];
  await assert.rejects(new ShoalClient(url, { clock: makeClock() }).classify(PICTURE), (error) => {
    assert.ok(error instanceof OverloadedError);
    assert.deepEqual([error.message, error.retryAfterMs, error.requestId], ["full", 2000, "r-1"]);
    return true;
  });
  assert.equal(seen.length, 4);
  seen = [];
  await assert.rejects(new ShoalClient(url, { clock: makeClock() }).classify(PICTURE, { timeoutMs: 1500 }), OverloadedError);
  assert.equal(seen.length, 1, "the wait would end after the deadline");
  seen = [];
  const frugal = new ShoalClient(url, { clock: makeClock(), retry: { budgetRatio: 0.1, budgetBurst: 5 } });
  for (let call = 0; call < 40; call++) await assert.rejects(frugal.classify(PICTURE), OverloadedError);
  assert.ok(seen.length <= 40 + 5 + 4, `${seen.length} requests for 40 calls`);
});

test("not ready is repeated as well, and told by health", async () => {
  replies = [DRAINING, ANSWER];
  assert.equal((await new ShoalClient(url, { clock: makeClock() }).classify(PICTURE)).best.label, "seven");
  const state = { status: "draining", model: null, version: null, uptime_s: 3, shoal_version: "1" };
  replies = [{ status: 503, body: state }];
  const health = await new ShoalClient(url).health();
  assert.deepEqual([health.ready, health.status, health.model], [false, "draining", undefined]);
});

test("what is no refusal is not repeated", async () => {
  for (const [reply, kind] of [
    ["break", ConnectionLostError],
    [{ status: 401, body: { detail: "no token" } }, UnauthenticatedError],
    [{ status: 500, body: "<h1>oh</h1>" }, ServerFailedError],
    [{ status: 200, body: "<h1>Welcome to nginx</h1>" }, ServerFailedError],
    [{ status: 200, body: { ...ANSWER.body, top: [] } }, ServerFailedError],
  ]) {
    replies = [reply];
    seen = [];
    await assert.rejects(new ShoalClient(url, { clock: makeClock() }).classify(PICTURE), kind);
    assert.equal(seen.length, 1, kind.name);
  }
});

test("nobody listens", async () => {
  const clock = makeClock();
  await assert.rejects(new ShoalClient(nobody, { clock }).classify(PICTURE), UnavailableError);
  assert.equal(clock.waits.length, 3);
  const impatient = new ShoalClient(nobody, { clock, retry: { patienceMs: 0 } });
  await assert.rejects(all(impatient.classifyMany([PICTURE], { returnErrors: true })), UnavailableError);
});

test("an answer that does not come is not waited for", async () => {
  replies = ["hang"];
  await assert.rejects(new ShoalClient(url).classify(PICTURE, { timeoutMs: 20 }), DeadlineExceededError);
});

test("to leave the loop ends what is in flight", { timeout: 5000 }, async () => {
  replies = ["hang", "hang", "hang", ANSWER]; // so that the other three are under way when the answer comes
  for await (const _ of new ShoalClient(url, { timeoutMs: null }).stream(Array(4).fill(PICTURE))) break;
  const gone = ({ socket }) => socket.destroyed || new Promise((resolve) => socket.once("close", resolve));
  await Promise.all(seen.slice(0, 3).map(gone));
});

test("a signal that was given before a stream begins ends it before anything is sent", async () => {
  replies = [ANSWER];
  const reason = new Error("left");
  const stream = new ShoalClient(url).stream([PICTURE], { signal: AbortSignal.abort(reason) });
  await assert.rejects(all(stream), reason);
  assert.equal(seen.length, 0);
});

test("a stream meets refusals with half its window, and loses nothing", async () => {
  replies = [ANSWER, ANSWER, FULL, FULL, FULL, DRAINING, ANSWER];
  const clock = makeClock();
  const answers = await all(new ShoalClient(url, { clock }).classifyMany(Array(50).fill(PICTURE), { window: 8 }));
  assert.equal(answers.length, 50);
  assert.equal(seen.length, 54, "each refused picture was sent once more");
  assert.ok(clock.waits.length >= 1 && clock.waits.length <= 4, String(clock.waits));
});

test("a stream without any answer gives up", async () => {
  replies = [FULL];
  const clock = makeClock();
  const client = new ShoalClient(url, { clock, retry: { patienceMs: 10_000 } });
  const results = await all(client.classifyMany([PICTURE, PICTURE], { returnErrors: true }));
  assert.ok(results.every((result) => result instanceof OverloadedError));
  assert.ok(clock.nowMs >= 10_000 && clock.nowMs < 30_000, String(clock.nowMs));
});

test("a stream of what the server will not have ends at once", async () => {
  replies = [{ status: 401, body: { detail: "no token" } }];
  await assert.rejects(all(new ShoalClient(url).classifyMany(Array(9).fill(PICTURE), { returnErrors: true })), UnauthenticatedError);
  assert.ok(seen.length <= 9);
});

test("settings are checked", () => {
  assert.throws(() => new ShoalClient("nowhere"), TypeError);
  assert.throws(() => new ShoalClient(url, { timeoutMs: -1 }), /expected timeoutMs above 0/);
  assert.throws(() => new ShoalClient(url, { retry: { attempts: 0 } }), /expected attempts of at least 1/);
  assert.throws(() => new ShoalClient(url, { retry: { capMs: -1 } }), /expected capMs of at least 0/);
});

test("an address below a path", async () => {
  replies = [ANSWER];
  await new ShoalClient(`${url}/models/shoal`).classify(PICTURE, { model: "a/b", version: 2, topK: 1 });
  assert.equal(seen[0].url, "/models/shoal/predict/a%2Fb?top_k=1&version=2");
});
