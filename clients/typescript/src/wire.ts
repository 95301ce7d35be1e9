/** HTTP: values to requests of Shoal's plain interface and back, and statuses to errors. No call is made here. */

import {
  ConnectionLostError,
  DeadlineExceededError,
  InvalidInputError,
  ModelNotFoundError,
  OverloadedError,
  PayloadTooLargeError,
  PermissionDeniedError,
  ServerFailedError,
  ShoalError,
  UnauthenticatedError,
  UnavailableError,
  UnsupportedImageError,
  type ErrorDetails,
  type Problem,
} from "./errors.js";
import type { Body, Content } from "./images.js";
import type { Answer, ClassScore, Health, ModelInfo, Prediction, Timing, VersionState } from "./results.js";

/** What a caller may choose besides the pictures. */
export interface Choice {
  readonly model?: string | undefined;
  readonly version?: number | undefined;
  readonly topK?: number | undefined;
  readonly requestId?: string | undefined;
}

/** What is sent: `path` is relative to the server's address. */
export interface Request {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Content;
}

/** What came back, read to its end. */
export interface Reply {
  readonly url: string;
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

const SHORTEST_BUDGET_MS = 0.001; // the server takes none of 0
const LONGEST_BUDGET_MS = 3_600_000;
const REQUEST_ID = /^[A-Za-z0-9._~:/+=@-]{1,128}$/; // what the server keeps; it replaces any other
const MODEL_NOT_FOUND = "urn:shoal:model-not-found";
const PLAIN: Readonly<Record<number, new (message: string, details: ErrorDetails) => ShoalError>> = {
  400: InvalidInputError,
  401: UnauthenticatedError,
  403: PermissionDeniedError,
  404: ModelNotFoundError,
  413: PayloadTooLargeError,
  415: UnsupportedImageError,
  504: DeadlineExceededError,
};
/** Node's names for a connection that was never made; a browser does not tell. */
const NOT_CONNECTED = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "UND_ERR_CONNECT_TIMEOUT"]);

/**
 * A request to classify.
 *
 * @throws InvalidInputError `topK`, `version` or `requestId` is out of its range.
 */
export function writePredict(body: Body, choice: Choice): Request {
  const query = new URLSearchParams({ top_k: String(checkWhole("topK", choice.topK ?? 5)) });
  addVersion(query, choice);
  const path = choice.model ? `predict/${encodeURIComponent(choice.model)}` : "predict";
  const headers = { ...nameRequest(choice), ...(body.type ? { "Content-Type": body.type } : {}) };
  return { method: "POST", path: `${path}?${query}`, headers, body: body.content };
}

/**
 * A request for a model's description.
 *
 * @throws InvalidInputError `version` or `requestId` is out of its range.
 */
export function writeModelInfo(choice: Choice): Request {
  const query = new URLSearchParams(choice.model ? { model: choice.model } : {});
  addVersion(query, choice);
  return { method: "GET", path: query.size ? `model-info?${query}` : "model-info", headers: nameRequest(choice) };
}

/** A request for the server's state. */
export function writeHealth(): Request {
  return { method: "GET", path: "health", headers: {} };
}

/** The header that tells the server how long an answer is worth something. */
export function writeBudget(leftMs: number | null): Record<string, string> {
  if (leftMs === null) {
    return {};
  }
  return { "X-Latency-Budget-Ms": Math.max(SHORTEST_BUDGET_MS, Math.min(leftMs, LONGEST_BUDGET_MS)).toFixed(3) };
}

/**
 * Reads what was classified.
 *
 * @throws ShoalError It is an error, or not what Shoal answers.
 */
export function readAnswer(reply: Reply): Answer {
  return read(reply, (document) => {
    const predictions = list(document["top"]).map(readPrediction);
    return {
      best: present(predictions[0]).best,
      predictions,
      model: text(document["model"]),
      version: number(document["version"]),
      variant: text(document["variant"]),
      timing: readTiming(reply.headers.get("Server-Timing") ?? ""),
      requestId: text(document["request_id"]),
    };
  });
}

/**
 * Reads a model's description.
 *
 * @throws ShoalError It is an error, or not what Shoal answers.
 */
export function readModelInfo(reply: Reply): ModelInfo {
  return read(reply, (document) => ({
    name: text(document["name"]),
    version: number(document["version"]),
    architecture: text(document["architecture"] ?? ""),
    framework: text(document["framework"] ?? ""),
    parameters: number(document["parameters"] ?? 0),
    labels: list(document["labels"]).map(text),
    inputShape: list(document["input_shape"]).map(number),
    outputShape: list(document["output_shape"]).map(number),
    variant: text(document["variant"]),
    providers: list(document["providers"]).map(text),
    metrics: Object.fromEntries(Object.entries(record(document["metrics"] ?? {})).map(([k, v]) => [k, number(v)])),
    versions: list(document["versions"]).map(readVersion),
  }));
}

/**
 * Reads the server's state: 503 is an answer, too, and says that it is not ready.
 *
 * @throws ShoalError It is not what Shoal answers.
 */
export function readHealth(reply: Reply): Health {
  const ready = reply.status === 200;
  return read(reply.status === 503 ? { ...reply, status: 200 } : reply, (document) => ({
    ready,
    status: text(document["status"]),
    model: document["model"] === null ? undefined : text(document["model"]),
    version: document["version"] === null ? undefined : number(document["version"]),
    uptimeS: number(document["uptime_s"]),
    shoalVersion: text(document["shoal_version"]),
  }));
}

/** Tells why `fetch` rejected. */
export function readFailure(error: unknown, url: string): ShoalError {
  const inner = error instanceof Error ? (error.cause as { code?: unknown; message?: unknown } | undefined) : undefined;
  const words = [error instanceof Error ? error.message : String(error), inner?.message, inner?.code]
    .filter((word) => typeof word === "string" && word !== "")
    .join(": ");
  if (typeof inner?.code === "string" && NOT_CONNECTED.has(inner.code)) {
    return new UnavailableError(`could not connect to ${url}: ${words}; does a server listen there?`, { cause: error });
  }
  return new ConnectionLostError(`no whole answer from ${url}: ${words}`, { cause: error });
}

function addVersion(query: URLSearchParams, choice: Choice): void {
  if (choice.version !== undefined) {
    query.set("version", String(checkWhole("version", choice.version)));
  }
}

function checkWhole(name: string, value: number): number {
  if (!Number.isSafeInteger(value) || value < 1) {
    throw new InvalidInputError(`expected ${name} as a whole number of at least 1, received ${value}`);
  }
  return value;
}

function nameRequest({ requestId }: Choice): Record<string, string> {
  if (requestId === undefined) {
    return {};
  }
  if (!REQUEST_ID.test(requestId)) {
    const received = JSON.stringify(requestId.slice(0, 80));
    throw new InvalidInputError(`expected requestId as 1 to 128 letters, digits or ._~:/+=@-, received ${received}`);
  }
  return { "X-Request-Id": requestId };
}

function read<T>(reply: Reply, build: (document: Record<string, unknown>) => T): T {
  const document = parse(reply.text);
  if (reply.status !== 200) {
    throw errorOf(reply, document ?? {});
  }
  try {
    return build(record(document));
  } catch (error) {
    const received = JSON.stringify(reply.text.slice(0, 80));
    throw new ServerFailedError(
      `expected an answer of Shoal's plain interface from ${reply.url}, received ${received}`,
      { requestId: reply.headers.get("X-Request-Id") ?? "", cause: error },
    );
  }
}

function parse(body: string): Record<string, unknown> | undefined {
  try {
    return record(JSON.parse(body));
  } catch {
    return undefined; // the caller tells what came instead
  }
}

function errorOf(reply: Reply, document: Record<string, unknown>): ShoalError {
  const { status, headers } = reply;
  const detail = typeof document["detail"] === "string" ? document["detail"] : `${reply.url} answered ${status}`;
  const requestId = String(document["request_id"] ?? headers.get("X-Request-Id") ?? "");
  const problem = readProblem(document, status, detail);
  const details = { requestId, problem };
  if (status === 429 || status === 503) {
    const refusal = { ...details, retryAfterMs: readSeconds(headers.get("Retry-After") ?? "") * 1000 };
    return status === 429 ? new OverloadedError(detail, refusal) : new UnavailableError(detail, refusal);
  }
  if (status === 404 && problem.type !== MODEL_NOT_FOUND) {
    return new ServerFailedError(`expected Shoal's HTTP interface at ${reply.url}, it answered 404: ${detail}`, details);
  }
  const kind = PLAIN[status];
  return kind ? new kind(detail, details) : new ServerFailedError(`${status}: ${detail}`, details);
}

function readProblem(document: Record<string, unknown>, status: number, detail: string): Problem {
  const { type, title } = document;
  return {
    type: typeof type === "string" ? type : "about:blank",
    title: typeof title === "string" ? title : "",
    status,
    detail,
  };
}

/** Retry-After in its form of whole seconds; a date is not advice to go by here. */
function readSeconds(value: string): number {
  return /^[0-9]{1,9}$/.test(value) ? Number(value) : 0;
}

/** `decode;dur=0.1, queue;dur=0.2, ...`, in milliseconds. */
function readTiming(header: string): Timing {
  const spent = new Map<string, number>();
  for (const part of header.split(",")) {
    const [name = "", duration = "0"] = part.split(";dur=");
    spent.set(name.trim(), Number(duration) || 0);
  }
  const of = (name: string) => spent.get(name) ?? 0;
  return { decodeMs: of("decode"), queueMs: of("queue"), inferMs: of("infer") };
}

function readPrediction(row: unknown): Prediction {
  const classes = list(row).map(readScore);
  return { best: present(classes[0]), classes };
}

function readScore(value: unknown): ClassScore {
  const score = record(value);
  return { index: number(score["class"]), label: text(score["label"]), probability: number(score["probability"]) };
}

function readVersion(value: unknown): VersionState {
  const state = record(value);
  return {
    name: text(state["name"]),
    version: number(state["version"]),
    state: text(state["state"]),
    reason: text(state["reason"]),
  };
}

function record(value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new TypeError("expected an object");
  }
  return value as Record<string, unknown>;
}

function list(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) {
    throw new TypeError("expected a list");
  }
  return value;
}

function text(value: unknown): string {
  if (typeof value !== "string") {
    throw new TypeError("expected text");
  }
  return value;
}

function number(value: unknown): number {
  if (typeof value !== "number") {
    throw new TypeError("expected a number");
  }
  return value;
}

function present<T>(value: T | undefined): T {
  if (value === undefined) {
    throw new TypeError("expected at least one element");
  }
  return value;
}
