/** The client: calls, their time, and what is sent with each. */

import { DeadlineExceededError, type ShoalError } from "./errors.js";
import { writeImages, writePixels, type Body, type Image, type Pixels } from "./images.js";
import type { Answer, Health, ModelInfo, Outcome } from "./results.js";
import { LONGEST_TIMER_MS, makePolicy, Retries, SYSTEM_CLOCK, type Clock, type RetryPolicy } from "./retries.js";
import { inOrder, stream, type Images } from "./streaming.js";
import {
  readAnswer,
  readFailure,
  readHealth,
  readModelInfo,
  writeBudget,
  writeHealth,
  writeModelInfo,
  writePredict,
  type Choice,
  type Reply,
  type Request,
} from "./wire.js";

/** What a client is made with besides its address. */
export interface ClientOptions {
  /**
   * Milliseconds for one call with its repeats, where the call names no other; null sets no limit. The server gets it
   * too, and refuses at once what it could not answer by then. [10000]
   */
  readonly timeoutMs?: number | null;
  /** How refusals are met; what is not named has its default. */
  readonly retry?: Partial<RetryPolicy>;
  /** Sent as `Authorization: Bearer ...`. */
  readonly token?: string;
  /** What makes the requests. [the platform's own] */
  readonly fetch?: typeof globalThis.fetch;
  /** Time and chance. [the platform's own] */
  readonly clock?: Clock;
}

/** What every call takes. */
export interface CallOptions {
  /** Milliseconds for the call with its repeats; null sets no limit. [the client's setting] */
  readonly timeoutMs?: number | null | undefined;
  /** Ends the call; it rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** The request's name in the server's log: 1 to 128 letters, digits or ._~:/+=@-. [one that the server makes] */
  readonly requestId?: string | undefined;
}

/** Which model. */
export interface ModelOptions extends CallOptions {
  /** [the server's default] */
  readonly model?: string | undefined;
  /** [the one that the server chooses] */
  readonly version?: number | undefined;
}

/** What `classify` takes. */
export interface ClassifyOptions extends ModelOptions {
  /** How many classes to answer for each picture. [5] */
  readonly topK?: number | undefined;
}

/** What `stream` and `classifyMany` take; `timeoutMs` is for each picture's call. */
export interface ManyOptions extends Omit<ClassifyOptions, "requestId"> {
  /** Pictures in flight at most. A browser has about six connections to one server, whatever is asked for. [16] */
  readonly window?: number | undefined;
  /** Milliseconds for the whole; null sets no limit. [null] */
  readonly totalTimeoutMs?: number | null | undefined;
}

const DEFAULT_TIMEOUT_MS = 10_000;
const DEFAULT_WINDOW = 16;

/** Classifies with a running Shoal server, over HTTP. */
export class ShoalClient {
  readonly #base: URL;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #timeoutMs: number | null;
  readonly #policy: RetryPolicy;
  readonly #clock: Clock;
  readonly #retries: Retries;
  readonly #fetch: typeof globalThis.fetch;

  /**
   * @param url The server, such as `http://127.0.0.1:8000`; in a page also a path of its own origin, such as `/shoal`.
   * @throws TypeError `url` is none.
   * @throws RangeError A number is out of its range.
   */
  constructor(url: string | URL, options: ClientOptions = {}) {
    this.#base = new URL(url, globalThis.location?.href);
    this.#base.pathname = this.#base.pathname.replace(/\/?$/, "/");
    this.#headers = options.token ? { Authorization: `Bearer ${options.token}` } : {};
    this.#timeoutMs = checkTimeout("timeoutMs", options.timeoutMs, DEFAULT_TIMEOUT_MS);
    this.#policy = makePolicy(options.retry);
    this.#clock = options.clock ?? SYSTEM_CLOCK;
    this.#retries = new Retries(this.#policy, this.#clock);
    this.#fetch = options.fetch ?? globalThis.fetch.bind(globalThis);
  }

  /**
   * Classifies one picture: a file's content, of any size.
   *
   * @throws ShoalError There is no answer; `errors` lists why.
   */
  async classify(image: Image, options: ClassifyOptions = {}): Promise<Answer> {
    return this.#predict(writeImages([image]), options);
  }

  /**
   * Classifies several pictures in one call: one of them that is bad fails all.
   *
   * @throws ShoalError There is no answer.
   */
  async classifyBatch(images: Iterable<Image>, options: ClassifyOptions = {}): Promise<Answer> {
    return this.#predict(writeImages([...images]), options);
  }

  /**
   * Classifies numbers that already have the model's height, width and channels: of one picture, or of several.
   *
   * @throws ShoalError There is no answer.
   */
  async classifyPixels(pixels: Pixels | readonly Pixels[], options: ClassifyOptions = {}): Promise<Answer> {
    return this.#predict(writePixels("data" in pixels ? [pixels] : pixels), options);
  }

  /**
   * Classifies any number of pictures, one call for each, and tells what becomes of each as soon as it is known. It
   * reads `images` only as far as the window has room. To leave the loop ends it and what is in flight.
   *
   * @throws ShoalError The call as a whole cannot go on: nobody answers, the time is over, the token is refused.
   */
  stream(images: Images, options: ManyOptions = {}): AsyncGenerator<Outcome, void, undefined> {
    const { window = DEFAULT_WINDOW, totalTimeoutMs, signal, ...each } = options;
    if (!Number.isSafeInteger(window) || window < 1) {
      throw new RangeError(`expected a window of at least 1 picture in flight, received ${window}`);
    }
    return stream(images, {
      call: async (image, stop) =>
        this.#once(writePredict(writeImages([image]), each), readAnswer, { ...each, signal: stop }),
      window,
      policy: this.#policy,
      clock: this.#clock,
      timeoutMs: checkTimeout("totalTimeoutMs", totalTimeoutMs, null),
      signal,
    });
  }

  /**
   * The same in the order of the pictures. A picture that fails throws its error, or with `returnErrors` yields it.
   *
   * @throws ShoalError A picture failed and `returnErrors` is off, or the call as a whole cannot go on.
   */
  classifyMany(
    images: Images,
    options?: ManyOptions & { returnErrors?: false },
  ): AsyncGenerator<Answer, void, undefined>;
  classifyMany(
    images: Images,
    options: ManyOptions & { returnErrors: boolean },
  ): AsyncGenerator<Answer | ShoalError, void, undefined>;
  classifyMany(
    images: Images,
    options: ManyOptions & { returnErrors?: boolean } = {},
  ): AsyncGenerator<Answer | ShoalError, void, undefined> {
    const { returnErrors = false, ...rest } = options;
    return inOrder(this.stream(images, rest), returnErrors);
  }

  /**
   * Describes a model.
   *
   * @throws ShoalError There is no answer.
   */
  async modelInfo(options: ModelOptions = {}): Promise<ModelInfo> {
    return this.#repeat(writeModelInfo(options), readModelInfo, options);
  }

  /**
   * Tells whether the server should be sent requests. One that is not ready is an answer, too, and is not asked again.
   *
   * @throws ShoalError There is no answer.
   */
  async health(options: Omit<CallOptions, "requestId"> = {}): Promise<Health> {
    return this.#once(writeHealth(), readHealth, options);
  }

  async #predict(body: Body, options: ClassifyOptions): Promise<Answer> {
    return this.#repeat(writePredict(body, options satisfies Choice), readAnswer, options);
  }

  async #repeat<T>(request: Request, read: (reply: Reply) => T, options: CallOptions): Promise<T> {
    const attempt = async (leftMs: number | null) => read(await this.#exchange(request, leftMs, options.signal));
    return this.#retries.run(attempt, this.#timeout(options), options.signal);
  }

  async #once<T>(request: Request, read: (reply: Reply) => T, options: CallOptions): Promise<T> {
    return read(await this.#exchange(request, this.#timeout(options), options.signal));
  }

  #timeout(options: CallOptions): number | null {
    return checkTimeout("timeoutMs", options.timeoutMs, this.#timeoutMs);
  }

  /** One request and its answer, read to its end within its time. */
  async #exchange(request: Request, leftMs: number | null, signal: AbortSignal | undefined): Promise<Reply> {
    signal?.throwIfAborted();
    const url = new URL(request.path, this.#base).href;
    const controller = new AbortController();
    const abort = () => controller.abort(signal?.reason);
    signal?.addEventListener("abort", abort, { once: true });
    const late = new DeadlineExceededError(`no answer from ${url} within the call's time; allow more by timeoutMs`);
    const timer =
      leftMs === null ? undefined : setTimeout(() => controller.abort(late), Math.min(leftMs, LONGEST_TIMER_MS));
    try {
      const response = await this.#fetch(url, {
        method: request.method,
        headers: { ...this.#headers, ...request.headers, ...writeBudget(leftMs) },
        body: (request.body ?? null) as BodyInit | null,
        cache: "no-store",
        signal: controller.signal,
      });
      return { url, status: response.status, headers: response.headers, text: await response.text() };
    } catch (error) {
      controller.signal.throwIfAborted(); // with the caller's reason, or ours
      throw readFailure(error, url);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
  }
}

function checkTimeout(name: string, given: number | null | undefined, otherwise: number | null): number | null {
  const value = given === undefined ? otherwise : given;
  if (value !== null && !(value > 0)) {
    throw new RangeError(`expected ${name} above 0, or null for no limit, received ${value}`);
  }
  return value === Infinity ? null : value;
}
