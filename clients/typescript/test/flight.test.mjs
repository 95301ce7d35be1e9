/** The logic of a stream, without a server: who may fly when. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { InvalidInputError, OverloadedError } from "shoal-client";
import { Flight } from "../dist/flight.js";
import { DEFAULT_POLICY } from "../dist/retries.js";

const PICTURE = new Uint8Array(1);
const ANSWER = { best: { label: "7" } };

function makeBench(window) {
  const clock = { nowMs: 0, now: () => clock.nowMs, draw: () => 0.5 };
  return { clock, flight: new Flight(window, DEFAULT_POLICY, clock) };
}

function fill(flight) {
  const flying = [];
  while (flight.wantsMore) {
    flight.accept(PICTURE);
    flying.push(flight.launch());
  }
  return flying;
}

test("no more than the window flies", () => {
  const { flight } = makeBench(3);
  const flying = fill(flight);
  assert.equal(flying.length, 3);
  assert.equal(flight.launch(), undefined);
  flight.settle(flying[1], ANSWER);
  assert.equal(fill(flight).length, 1);
});

test("refusals of one moment halve the window once, and answers let it grow again", () => {
  const { flight, clock } = makeBench(8);
  const flying = fill(flight);
  for (const item of flying.slice(0, 6)) assert.equal(flight.settle(item, new OverloadedError("full")), undefined);
  assert.equal(flight.launch(), undefined, "it pauses");
  assert.equal(flight.waitMs, 25);
  for (const item of flying.slice(6)) flight.settle(item, ANSWER);
  clock.nowMs += 25;
  const again = [];
  for (let item = flight.launch(); item; item = flight.launch()) again.push(item);
  assert.equal(again.length, 4, "half of eight, and not half of that again");
  while (again.length > 0) {
    flight.settle(again.shift(), ANSWER);
    for (let item = flight.launch(); item; item = flight.launch()) again.push(item);
  }
  for (let round = 0; round < 12; round++) for (const item of fill(flight)) flight.settle(item, ANSWER);
  assert.equal(fill(flight).length, 8);
});

test("one that takes long is not left behind by more than eight windows", () => {
  const { flight } = makeBench(2);
  const [slow, first] = fill(flight);
  flight.settle(first, ANSWER);
  let passed = 1;
  for (let item = fill(flight)[0]; item; item = fill(flight)[0], passed++) flight.settle(item, ANSWER);
  assert.equal(passed, 8 * 2 - 1);
  flight.settle(slow, ANSWER);
  assert.equal(fill(flight).length, 2);
});

test("whatever happens, every picture is settled once", () => {
  let seed = 1;
  const draw = () => (seed = (seed * 48_271) % 2_147_483_647) / 2_147_483_647;
  const { flight, clock } = makeBench(6);
  const told = [];
  let flying = [];
  while (!flight.done) {
    if (flight.wantsMore) told.length > 150 ? (flight.ended = true) : flight.accept(PICTURE);
    for (let item = flight.launch(); item; item = flight.launch()) flying.push(item);
    if (flying.length === 0) {
      clock.nowMs += flight.waitMs;
      continue;
    }
    const [item] = flying.splice(Math.floor(draw() * flying.length), 1);
    const results = [ANSWER, ANSWER, new OverloadedError("full"), new InvalidInputError("bad")];
    const outcome = flight.settle(item, results[Math.floor(draw() * 4)]);
    if (outcome) told.push(outcome.position);
  }
  assert.deepEqual(told.sort((a, b) => a - b), told.map((_, position) => position));
});
