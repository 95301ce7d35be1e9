/**
 * One `stream` call: pictures out of the caller's iterator, at most a window of them in flight, outcomes as they come.
 *
 *     source → Flight → call → mailbox → Flight → outcomes
 *        └────────────────────────▲
 *
 * Everything that happens goes through one mailbox: a picture was read, a call has ended, a pause is over.
 */

import {
  DeadlineExceededError,
  PermissionDeniedError,
  ShoalError,
  UnauthenticatedError,
  UnavailableError,
} from "./errors.js";
import { Flight, type Flying } from "./flight.js";
import type { Image } from "./images.js";
import type { Answer, Outcome } from "./results.js";
import type { Clock, RetryPolicy } from "./retries.js";

/** Pictures, as they are there or as they come. */
export type Images = Iterable<Image> | AsyncIterable<Image>;

/** What a stream needs besides its pictures. */
export interface Plan {
  /** Makes one call. */
  readonly call: (image: Image, signal: AbortSignal) => Promise<Answer>;
  readonly window: number;
  readonly policy: RetryPolicy;
  readonly clock: Clock;
  /** For the whole; null sets no limit. */
  readonly timeoutMs: number | null;
  readonly signal: AbortSignal | undefined;
}

type Event =
  | { readonly kind: "read"; readonly next: IteratorResult<Image, unknown> }
  | { readonly kind: "landed"; readonly item: Flying; readonly result: Answer | ShoalError }
  | { readonly kind: "resumed" }
  | { readonly kind: "failed"; readonly error: unknown };

/**
 * Classifies pictures and tells what becomes of each, in any order.
 *
 * @throws ShoalError The call as a whole cannot go on: nobody answers, the time is over, the token is refused.
 */
export async function* stream(images: Images, plan: Plan): AsyncGenerator<Outcome, void, undefined> {
  const stop = new AbortController();
  const mail = new Mailbox<Event>();
  const fail = (error: unknown) => mail.put({ kind: "failed", error });
  const endings = watch(plan, stop.signal, fail);
  const source = new Source(images, mail, fail);
  const flight = new Flight(plan.window, plan.policy, plan.clock);
  const calls = new Set<AbortController>(); // one each: Node warns of more than ten listeners on one signal
  let pausing = false;
  try {
    plan.signal?.throwIfAborted();
    while (true) {
      for (let item = flight.launch(); item !== undefined; item = flight.launch()) {
        depart(item, plan, calls, mail);
      }
      if (flight.wantsMore) {
        source.read();
      }
      if (!pausing && flight.waitMs > 0) {
        pausing = true;
        plan.clock.sleep(flight.waitMs, stop.signal).then(() => mail.put({ kind: "resumed" }), fail);
      }
      if (flight.done) {
        return;
      }
      const event = await mail.take();
      pausing &&= event.kind !== "resumed";
      const outcome = apply(event, flight);
      if (outcome !== undefined) {
        yield outcome;
      }
    }
  } finally {
    stop.abort();
    endings.forEach((end) => end());
    calls.forEach((call) => call.abort());
    source.close();
  }
}

/** Puts a stream's answers into the order of its pictures; errors are thrown, or given in their place. */
export async function* inOrder(
  outcomes: AsyncGenerator<Outcome, void, undefined>,
  returnErrors: boolean,
): AsyncGenerator<Answer | ShoalError, void, undefined> {
  const early = new Map<number, Outcome>();
  let next = 0;
  for await (const outcome of outcomes) {
    early.set(outcome.position, outcome);
    for (let due = early.get(next); due !== undefined; due = early.get(++next)) {
      early.delete(next);
      if (due.error !== undefined && !returnErrors) {
        throw due.error;
      }
      yield due.error ?? due.answer;
    }
  }
}

/** What happened and was not yet looked at. */
class Mailbox<T> {
  readonly #waiting: T[] = [];
  #wake: (() => void) | undefined;

  put(value: T): void {
    this.#waiting.push(value);
    this.#wake?.();
  }

  async take(): Promise<T> {
    for (;;) {
      if (this.#waiting.length > 0) {
        return this.#waiting.shift() as T;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

/** The caller's iterator: one picture is asked for at a time, and only when there is room for it. */
class Source {
  readonly #iterator: Iterator<Image> | AsyncIterator<Image>;
  readonly #mail: Mailbox<Event>;
  readonly #fail: (error: unknown) => void;
  #reading = false;
  #ended = false;

  constructor(images: Images, mail: Mailbox<Event>, fail: (error: unknown) => void) {
    this.#iterator = Symbol.asyncIterator in images ? images[Symbol.asyncIterator]() : images[Symbol.iterator]();
    this.#mail = mail;
    this.#fail = fail;
  }

  read(): void {
    if (this.#reading) {
      return;
    }
    this.#reading = true;
    this.#next().then((next) => {
      this.#reading = false;
      this.#ended = next.done === true;
      this.#mail.put({ kind: "read", next });
    }, this.#fail);
  }

  /** Tells the iterator that no more will be asked of it. It is not waited for: it may be waiting itself. */
  close(): void {
    if (!this.#ended) {
      Promise.resolve(this.#iterator.return?.()).catch(() => undefined);
    }
  }

  async #next(): Promise<IteratorResult<Image, unknown>> {
    return this.#iterator.next();
  }
}

/** Lets the caller's signal and the time of the whole end a stream. */
function watch(plan: Plan, stop: AbortSignal, fail: (error: unknown) => void): (() => void)[] {
  const { timeoutMs, signal, clock } = plan;
  const abort = () => fail(signal?.reason);
  signal?.addEventListener("abort", abort, { once: true });
  if (timeoutMs !== null) {
    const late = () =>
      fail(new DeadlineExceededError(`not everything was answered within ${timeoutMs} ms; allow more by totalTimeoutMs`));
    clock.sleep(timeoutMs, stop).then(late, () => undefined);
  }
  return [() => signal?.removeEventListener("abort", abort)];
}

function depart(item: Flying, plan: Plan, calls: Set<AbortController>, mail: Mailbox<Event>): void {
  const call = new AbortController();
  calls.add(call);
  plan
    .call(item.image, call.signal)
    .finally(() => calls.delete(call))
    .then(
      (result) => mail.put({ kind: "landed", item, result }),
      (error: unknown) =>
        mail.put(error instanceof ShoalError ? { kind: "landed", item, result: error } : { kind: "failed", error }),
    );
}

function apply(event: Event, flight: Flight): Outcome | undefined {
  switch (event.kind) {
    case "failed":
      throw event.error;
    case "resumed":
      return undefined;
    case "read":
      if (event.next.done === true) {
        flight.ended = true;
      } else {
        flight.accept(event.next.value);
      }
      return undefined;
    case "landed": {
      const outcome = flight.settle(event.item, event.result);
      if (outcome?.error !== undefined && isFatal(outcome.error)) {
        throw outcome.error;
      }
      return outcome;
    }
  }
}

/** Whether every other picture would meet the same. */
function isFatal(error: ShoalError): boolean {
  return (
    error instanceof UnauthenticatedError ||
    error instanceof PermissionDeniedError ||
    error instanceof UnavailableError
  );
}
