// Everything the page asks the server, and what its errors mean in plain words.

import { askWho, withPass } from "./who.js";

const PATIENCE_MS = 5000; // a person waits longer than a program: the server's own budget is 200 ms
const GIVE_UP_MS = 30_000;
const RETRIES = 5;
const BUSY = "urn:shoal:overloaded";
export const NO_MAP = "urn:shoal:no-activation-map";

const WORDS = {
  400: "The chosen model cannot use this.",
  401: "The server does not know who is asking. Enter an API key or a token above.",
  403: "What you entered does not allow this.",
  404: "That model or version is not served any more. Choose another one above.",
  413: "This is larger than the server takes. Send a smaller picture.",
  415: "This is not a picture that can be read. JPEG, PNG, WebP, BMP, GIF and TIFF can.",
  429: "The server is busy, and says so at once instead of answering late. Try again in a moment.",
  500: "The model failed on this. The server's log says why.",
  503: "The server cannot answer now: its model is still loading, or it is being stopped.",
  504: `There was no answer within ${PATIENCE_MS / 1000} seconds. The server may be busy; try again.`,
};
const UNREACHABLE = "The server cannot be reached. Is it still running, and is the network there?";
const UNREADABLE = "This cannot be read. A folder cannot be sent; choose the pictures in it.";

/** An answer that is none. `message` is for everyone, `detail` is what the server said, `retryAfterS` its advice. */
export class Refusal extends Error {
  constructor(message, { status = 0, kind = "", detail = "", requestId = "", retryAfterS = 1 } = {}) {
    super(message);
    Object.assign(this, { status, kind, detail, requestId, retryAfterS });
  }
}

/** Whether an error is the server's answer of that kind. */
export const isNo = (error, kind) => error instanceof Refusal && error.kind === kind;

/** What `/model-info` says; without a name, of the model that answers by default. */
export async function askModel({ name = "", version = "" } = {}) {
  return (await ask(`model-info${spellQuery({ model: name, version })}`)).json();
}

/** One of the pictures that the model brings with it, as a file. */
export async function askExample({ name, version }, number) {
  const response = await ask(`example${spellQuery({ model: name, version, number })}`);
  return new File([await response.blob()], `example ${number + 1}`);
}

/**
 * Has one file classified.
 * @returns {Promise<{answer: object, timing: object, roundTripMs: number}>} `timing` in milliseconds, by stage.
 */
export async function classify(file, { name, version }, signal) {
  const startedMs = performance.now();
  const path = `predict${spellQuery({ model: name, version, top_k: 5 })}`;
  const options = post(file, "application/octet-stream", signal);
  const response = await ask(path, options).catch((error) => lookAt(file, error));
  const answer = await response.json();
  return { answer, timing: readTiming(response.headers), roundTripMs: performance.now() - startedMs };
}

/** Has several small pictures classified in one request: the probabilities of each, in their order. */
export async function classifyTogether(blobs, { name, version }, signal) {
  const form = new FormData();
  for (const blob of blobs) form.append("file", blob, "patch.bmp");
  const response = await ask(`predict${spellQuery({ model: name, version })}`, post(form, null, signal));
  return (await response.json()).probabilities;
}

/** Has one file's class-activation map computed, of the class with that label. */
export async function explain(file, label, { name, version }, signal) {
  const path = `explain${spellQuery({ model: name, version, class: label })}`;
  const options = post(file, "application/octet-stream", signal);
  return (await ask(path, options).catch((error) => lookAt(file, error))).json();
}

/** Does what may be refused for want of room, and does it again when the server expects to have some. */
export async function patiently(task) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await task();
    } catch (error) {
      if (!isNo(error, BUSY) || attempt === RETRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000 * error.retryAfterS));
    }
  }
}

function post(body, type, signal) {
  const headers = { "X-Latency-Budget-Ms": String(PATIENCE_MS) };
  if (type) headers["Content-Type"] = type;
  return { method: "POST", body, headers, signal };
}

async function ask(path, { signal, ...options } = {}) {
  const signals = [AbortSignal.timeout(GIVE_UP_MS), ...(signal ? [signal] : [])];
  const headers = withPass(options.headers);
  let response;
  try {
    response = await fetch(path, { ...options, headers, signal: AbortSignal.any(signals) });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refusal(UNREACHABLE, { detail: String(error.message) });
  }
  if (response.status === 401) askWho(headers);
  if (!response.ok) throw await readProblem(response);
  return response;
}

async function readProblem(response) {
  const problem = await response.json().catch(() => ({}));
  return new Refusal(WORDS[response.status] ?? `The server answered with status ${response.status}.`, {
    status: response.status,
    kind: problem.type ?? "",
    detail: problem.detail ?? "",
    requestId: problem.request_id ?? "",
    retryAfterS: Number(response.headers.get("Retry-After") ?? 1),
  });
}

// Sending fails alike for a server that is away and for a file that cannot be read.
async function lookAt(file, error) {
  if (error instanceof Refusal && error.status === 0) {
    await file.slice(0, 1).arrayBuffer().catch((reason) => {
      throw new Refusal(UNREADABLE, { detail: String(reason.message) });
    });
  }
  throw error;
}

function spellQuery(values) {
  const given = Object.entries(values).filter(([, value]) => value !== "" && value !== undefined);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

// "decode;dur=0.5, total;dur=2.1" → { decode: 0.5, total: 2.1 }
function readTiming(headers) {
  const entries = (headers.get("Server-Timing") ?? "").matchAll(/(\w+);dur=([\d.]+)/g);
  return Object.fromEntries([...entries].map(([, stage, ms]) => [stage, Number(ms)]));
}
