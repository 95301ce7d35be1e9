/**
 * When a refused call is made again: after a random wait, within its deadline, and out of a budget that answers fill.
 *
 *     refused → attempts left? → would the wait end in time? → budget left? → wait → again
 *                      └──────────────────┴──────────────────────┴─ no → the refusal is thrown
 *
 * The wait is "full jitter": uniform from 0 to a bound that doubles (M. Brooker, "Exponential Backoff and Jitter",
 * 2015), on top of what the server advises. The budget keeps clients from multiplying an overload: with a ratio of 0.1,
 * a server that refuses everything sees at most a tenth more calls than were made (B. Beyer et al., "Site Reliability
 * Engineering", 2016, chapter 21).
 */

import { DeadlineExceededError, RefusedError } from "./errors.js";

/** How refusals are met. */
export interface RetryPolicy {
  /** Times that one call is made at most; 1 never repeats it. [4] */
  readonly attempts: number;
  /** The first wait is at most so long; each later one at most twice the one before. [50] */
  readonly baseMs: number;
  /** No wait's random part is longer. [2000] */
  readonly capMs: number;
  /** How many repeats each call adds to the budget that all calls of a client share. [0.1] */
  readonly budgetRatio: number;
  /** Repeats that are allowed at once. [10] */
  readonly budgetBurst: number;
  /**
   * How long `stream` and `classifyMany` go on without one answer. They have no budget: a refusal halves their window
   * instead. [10000]
   */
  readonly patienceMs: number;
}

/** Time and chance, so that tests need neither. */
export interface Clock {
  /** A monotonic clock, in milliseconds. */
  now(): number;
  /** Waits so many milliseconds, or rejects with the signal's reason as soon as it is aborted. */
  sleep(ms: number, signal: AbortSignal | undefined): Promise<void>;
  /** Uniform in 0..1. */
  draw(): number;
}

export const DEFAULT_POLICY: RetryPolicy = {
  attempts: 4,
  baseMs: 50,
  capMs: 2000,
  budgetRatio: 0.1,
  budgetBurst: 10,
  patienceMs: 10_000,
};

/** setTimeout's own bound, 24 days: a longer timer would ring at once. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;

export const SYSTEM_CLOCK: Clock = {
  now: () => performance.now(),
  draw: () => Math.random(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const abort = () => {
        clearTimeout(timer);
        reject(signal?.reason as Error);
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", abort);
        resolve();
      }, Math.min(ms, LONGEST_TIMER_MS));
      signal?.addEventListener("abort", abort, { once: true });
    }),
};

/**
 * A policy with what the caller did not name filled in.
 *
 * @throws RangeError A value is out of its range.
 */
export function makePolicy(given: Partial<RetryPolicy> = {}): RetryPolicy {
  const policy = { ...DEFAULT_POLICY, ...given };
  if (!(policy.attempts >= 1)) {
    throw new RangeError(`expected attempts of at least 1, received ${policy.attempts}; 1 never repeats a call`);
  }
  for (const [name, value] of Object.entries(policy)) {
    if (!(value >= 0)) {
      throw new RangeError(`expected ${name} of at least 0, received ${value}`);
    }
  }
  return policy;
}

/**
 * How long to wait before the next attempt, in milliseconds.
 *
 * @param repeats Attempts that were refused before this refusal.
 * @param adviceMs The server's Retry-After.
 * @param draw Random, uniform in 0..1.
 */
export function delayMs(policy: RetryPolicy, repeats: number, adviceMs: number, draw: number): number {
  return adviceMs + draw * Math.min(policy.capMs, policy.baseMs * 2 ** Math.min(repeats, 30));
}

/** A client's policy with the budget that its calls share. */
export class Retries {
  readonly #policy: RetryPolicy;
  readonly #clock: Clock;
  #budget: number;

  constructor(policy: RetryPolicy, clock: Clock) {
    this.#policy = policy;
    this.#clock = clock;
    this.#budget = policy.budgetBurst;
  }

  /**
   * Makes a call, again and again where that is allowed.
   *
   * @param attempt Makes it once, given the milliseconds that are left, or null.
   * @param timeoutMs For all attempts together; null sets no limit.
   * @throws ShoalError What the last attempt threw, or the time is over.
   */
  async run<T>(
    attempt: (leftMs: number | null) => Promise<T>,
    timeoutMs: number | null,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    const endMs = timeoutMs === null ? Infinity : this.#clock.now() + timeoutMs;
    this.#budget = Math.min(this.#policy.budgetBurst, this.#budget + this.#policy.budgetRatio);
    for (let repeats = 0; ; repeats++) {
      try {
        return await attempt(this.#left(endMs, timeoutMs));
      } catch (error) {
        await this.#clock.sleep(this.#waitFor(error, repeats, endMs), signal);
      }
    }
  }

  #left(endMs: number, timeoutMs: number | null): number | null {
    const leftMs = endMs - this.#clock.now();
    if (leftMs <= 0) {
      throw new DeadlineExceededError(`no answer within ${timeoutMs} ms; allow more by timeoutMs`);
    }
    return timeoutMs === null ? null : leftMs;
  }

  /** Takes one repeat out of the budget and tells how long to wait before it; throws the error where there is none. */
  #waitFor(error: unknown, repeats: number, endMs: number): number {
    if (!(error instanceof RefusedError) || repeats + 1 >= this.#policy.attempts || this.#budget < 1) {
      throw error;
    }
    const waitMs = delayMs(this.#policy, repeats, error.retryAfterMs, this.#clock.draw());
    if (this.#clock.now() + waitMs >= endMs) {
      throw error;
    }
    this.#budget -= 1;
    return waitMs;
  }
}
