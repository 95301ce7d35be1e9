/**
 * The pictures of one `stream` call that are on their way. No input or output: `streaming` steers by it.
 *
 *     accept → ready → launch → flying → settle → Outcome
 *                ▲                 │
 *                └──── refused: half the window, and a wait
 *
 * An answer makes the window grow again, by one for each window's worth of them. A picture that takes long lets the
 * others go AHEAD windows before it, so that what waits for its turn in `classifyMany` is bounded.
 */

import { RefusedError, type ShoalError } from "./errors.js";
import type { Image } from "./images.js";
import type { Answer, Outcome } from "./results.js";
import { delayMs, type Clock, type RetryPolicy } from "./retries.js";

const AHEAD = 8;

/** One picture. */
export interface Item {
  /** Its place in what was given, from 0. */
  readonly position: number;
  readonly image: Image;
}

/** An item with the flight's round at its launch. */
export interface Flying extends Item {
  readonly round: number;
}

/** Decides what is sent when. */
export class Flight {
  readonly #largest: number;
  readonly #policy: RetryPolicy;
  readonly #clock: Clock;
  readonly #ready: Item[] = [];
  readonly #settled = new Set<number>(); // of those after the oldest that is open
  #window: number;
  #flying = 0;
  #accepted = 0;
  #oldest = 0;
  #round = 0;
  #pauses = 0; // since the last answer
  #stalledMs = 0;
  #resumeMs = 0;
  /** Whether the caller has no more pictures. */
  ended = false;

  constructor(window: number, policy: RetryPolicy, clock: Clock) {
    this.#largest = this.#window = window;
    this.#policy = policy;
    this.#clock = clock;
  }

  /** Whether every picture is settled and no more will come. */
  get done(): boolean {
    return this.ended && this.#ready.length === 0 && this.#flying === 0;
  }

  /** Whether a new picture could be sent at once. */
  get wantsMore(): boolean {
    const near = this.#accepted - this.#oldest < AHEAD * this.#largest;
    return !this.ended && this.#ready.length === 0 && near && this.#mayLaunch();
  }

  /** Takes the next picture. */
  accept(image: Image): void {
    this.#ready.push({ position: this.#accepted++, image });
  }

  /** What to send now, if anything. */
  launch(): Flying | undefined {
    const item = this.#mayLaunch() ? this.#ready.shift() : undefined;
    if (item === undefined) {
      return undefined;
    }
    this.#flying += 1;
    return { ...item, round: this.#round };
  }

  /** Takes the verdict on one picture, and gives what became of it, or nothing: it will be sent again. */
  settle(item: Flying, result: Answer | ShoalError): Outcome | undefined {
    this.#flying -= 1;
    const { position } = item;
    if (!(result instanceof Error)) {
      this.#pauses = 0;
      this.#window = Math.min(this.#largest, this.#window + 1 / this.#window);
      return this.#tell({ position, answer: result });
    }
    if (result instanceof RefusedError && !this.#outOfPatience()) {
      this.#slowDown(item.round, result.retryAfterMs);
      this.#ready.unshift({ position, image: item.image });
      return undefined;
    }
    return this.#tell({ position, error: result });
  }

  /** Milliseconds until something may be sent again, where that is what is waited for. */
  get waitMs(): number {
    return Math.max(0, this.#resumeMs - this.#clock.now());
  }

  #tell(outcome: Outcome): Outcome {
    this.#settled.add(outcome.position);
    while (this.#settled.delete(this.#oldest)) {
      this.#oldest += 1;
    }
    return outcome;
  }

  #mayLaunch(): boolean {
    return this.#flying < Math.floor(this.#window) && this.waitMs === 0;
  }

  #outOfPatience(): boolean {
    return this.#pauses > 0 && this.#clock.now() - this.#stalledMs > this.#policy.patienceMs;
  }

  /** Once for all that was sent before the refusal was heard of: they met the same queue. */
  #slowDown(launchedRound: number, adviceMs: number): void {
    if (launchedRound < this.#round) {
      return;
    }
    const now = this.#clock.now();
    if (this.#pauses === 0) {
      this.#stalledMs = now;
    }
    this.#round += 1;
    this.#window = Math.max(1, this.#window / 2);
    this.#resumeMs = now + delayMs(this.#policy, this.#pauses, adviceMs, this.#clock.draw());
    this.#pauses += 1;
  }
}
