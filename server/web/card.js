// One picture: what it looks like, what the model sees of it, what it answers, how long that took, and why.

import { make, percent, spellMs } from "./dom.js";
import { offerHeat } from "./heat.js";
import { resizeForModel } from "./resize.js";
import { Refusal, classify } from "./server.js";

const STAGES = ["decode", "queue", "infer"];
const SMALL_PX = 200; // pictures below it are shown enlarged, pixel by pixel

let cards = 0;

export class Card {
  #model = null;
  #turn = new AbortController();
  #seen = null; // ImageData: what the model sees

  /**
   * @param {File} file
   * @param {{onRemove: (card: Card) => void, onRetry: (card: Card) => void}} events
   */
  constructor(file, { onRemove, onRetry }) {
    this.file = file;
    this.name = file.name || "pasted picture";
    this.onRetry = () => onRetry(this);
    cards += 1;
    const id = `card-${cards}`;
    this.url = URL.createObjectURL(file);
    this.image = make("img", { src: this.url, alt: "", decoding: "async" });
    this.heat = make("canvas", { className: "heat", hidden: true });
    this.frame = make("div", { className: "frame" }, make("div", { className: "stage" }, this.image, this.heat));
    this.body = make("div", { className: "body" });
    const removal = make("button", { className: "plain remove", type: "button", textContent: "Remove" });
    removal.ariaLabel = `Remove ${this.name}`;
    removal.addEventListener("click", () => onRemove(this));
    const title = make("h3", { id, textContent: this.name, title: this.name });
    const hidden = () => this.frame.replaceChildren(quiet("Your browser cannot show this file."));
    const head = make("div", { className: "row" }, title, removal);
    this.element = make("li", { className: "card" }, this.frame, make("div", { className: "side" }, head, this.body));
    this.element.setAttribute("aria-labelledby", id);
    this.image.addEventListener("load", () => this.#fitImage());
    this.image.addEventListener("error", hidden);
  }

  /** Drops what was shown, and says that an answer is under way. */
  wait() {
    this.#turn.abort();
    this.#turn = new AbortController();
    this.#seen = null;
    this.heat.hidden = true;
    this.element.setAttribute("aria-busy", "true");
    this.body.replaceChildren(quiet("Waiting for the answer …"));
  }

  /**
   * Asks for an answer and shows it, or says why there is none.
   * @param {ModelChoice} choice
   * @returns {Promise<{said: string, version?: number} | null>} What to tell; null where it was overtaken.
   */
  async answer(choice) {
    const turn = this.#turn;
    try {
      const result = await classify(this.file, choice.wanted, turn.signal);
      if (turn.signal.aborted) return null;
      this.#model = { name: result.answer.model, version: result.answer.version };
      this.#showAnswer(result);
      if (choice.image) await this.#showSeen(choice, turn.signal);
      const [best] = result.answer.top[0];
      return { said: `${this.name}: ${best.label}, ${percent(best.probability)}`, version: result.answer.version };
    } catch (error) {
      if (turn.signal.aborted) return null;
      this.#showProblem(error, this.body, this.onRetry);
      return { said: `${this.name}: ${error.message}`, failed: true };
    } finally {
      if (!turn.signal.aborted) this.element.setAttribute("aria-busy", "false");
    }
  }

  /** Stops what is under way and frees the picture. */
  dispose() {
    this.#turn.abort();
    URL.revokeObjectURL(this.url);
    this.element.remove();
  }

  #fitImage() {
    const { naturalWidth: width, naturalHeight: height } = this.image;
    const small = Math.max(width, height) < SMALL_PX;
    this.frame.classList.toggle("enlarged", small);
    if (!small) return;
    const scale = SMALL_PX / Math.max(width, height);
    this.image.style.width = `${Math.round(width * scale)}px`;
  }

  #showAnswer({ answer, timing, roundTripMs }) {
    const top = answer.top[0];
    this.target = top[0];
    const verdict = make("p", { className: "verdict" }, make("strong", { textContent: top[0].label }));
    verdict.append(` ${percent(top[0].probability)}`);
    this.more = make("div", { className: "more" });
    const by = `${answer.model}, version ${answer.version} (${answer.variant})`;
    this.body.replaceChildren(verdict, listScores(top), listTiming(timing, roundTripMs, by), this.more);
  }

  async #showSeen({ image, mapped }, signal) {
    const seen = await resizeForModel(this.file, image).catch(() => null); // TIFF, which few browsers decode
    if (seen === null || signal.aborted) return;
    this.#seen = seen;
    const canvas = make("canvas", { className: "seen", width: seen.width, height: seen.height, role: "img" });
    canvas.ariaLabel = `What the model sees of ${this.name}: ${seen.width} × ${seen.height} pixels`;
    canvas.getContext("2d").putImageData(seen, 0, 0);
    const caption = make("p", { textContent: `What the model sees: ${seen.width} × ${seen.height} pixels` });
    const caution = quiet("Resized by your browser as the server does it; a pixel may differ by a shade.");
    this.more.replaceChildren(canvas, make("div", {}, caption, caution, this.#offerHeat(mapped)));
  }

  #offerHeat(mapped) {
    const { name, file } = this;
    const subject = { name, file, seen: this.#seen, target: this.target, model: this.#model, mapped };
    Object.assign(subject, { canvas: this.heat, signal: this.#turn.signal });
    return offerHeat(subject, (error, place) => this.#showProblem(error, place, null));
  }

  #showProblem(error, place, retry) {
    const problem = make("div", { className: "problem" }, make("p", { textContent: error.message }));
    if (!(error instanceof Refusal)) console.error(error); // a fault of the page's own
    if (error.detail) {
      const said = `${error.detail}${error.requestId ? ` (request ${error.requestId})` : ""}`;
      const summary = make("summary", { textContent: "What exactly was said" });
      problem.append(make("details", {}, summary, make("p", { textContent: said })));
    }
    if (retry && error.status !== 415 && error.status !== 413) {
      const again = make("button", { type: "button", textContent: "Try again", ariaLabel: `Try ${this.name} again` });
      again.addEventListener("click", retry);
      problem.append(again);
    }
    place.replaceChildren(problem);
  }
}

const quiet = (text) => make("p", { className: "quiet", textContent: text });

function listScores(top) {
  const rows = top.map(({ label, probability }) => {
    const fill = make("span", { className: "fill" });
    fill.style.width = `${100 * probability}%`;
    const name = make("span", { className: "label", textContent: label, title: label });
    const share = make("span", { className: "share", textContent: percent(probability) });
    return make("li", {}, name, make("span", { className: "bar", ariaHidden: "true" }, fill), share);
  });
  return make("ol", { className: "scores", ariaLabel: "Most likely classes" }, ...rows);
}

function listTiming(timing, roundTripMs, by) {
  const total = timing.total ?? 0;
  const known = STAGES.map((stage) => [stage, timing[stage] ?? 0]);
  const rest = Math.max(0, total - known.reduce((sum, [, ms]) => sum + ms, 0)); // reading, routing and writing
  const stages = [...known, ["rest", rest]];
  const strip = make("div", { className: "strip", ariaHidden: "true" });
  for (const [stage, ms] of stages) {
    const part = make("span", { className: stage });
    part.style.flexGrow = String(ms);
    strip.append(part);
  }
  const items = stages.map(([stage, ms]) => make("li", { className: stage }, `${stage} ${spellMs(ms)}`));
  const legend = make("ul", { className: "stages", ariaLabel: "Time at the server" }, ...items);
  const sum = quiet(`${spellMs(total)} in all at the server, ${spellMs(roundTripMs)} until it was here · ${by}`);
  return make("div", { className: "timing" }, strip, legend, sum);
}
