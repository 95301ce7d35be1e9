// Which model and version answer: two lists, one line about the choice, and the rest on demand.

import { byId, make, percent } from "./dom.js";
import { askModel } from "./server.js";

const ASK_AGAIN_MS = 2000;
const BY_DEFAULT = ""; // the version that the server's own policy picks

/** The choice of a model. `onChange` is called when another one is to answer. */
export class ModelChoice {
  #onChange;
  #info = null;

  constructor(onChange) {
    this.#onChange = onChange;
    byId("model").addEventListener("change", () => this.#choose(byId("model").value, BY_DEFAULT));
    byId("version").addEventListener("change", () => this.#choose(byId("model").value, byId("version").value));
    document.addEventListener("pass", () => this.refresh().then(() => this.#onChange()));
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
  }

  /** What to send with a request: a name, and a version unless the server is to pick it. */
  get wanted() {
    const query = new URLSearchParams(location.search);
    return { name: query.get("model") ?? "", version: query.get("version") ?? BY_DEFAULT };
  }

  /** What the model's image input takes, or null where that is not known. */
  get image() {
    return this.#info?.preprocessing ?? null;
  }

  /** Whether the model has a class-activation map. */
  get mapped() {
    return Boolean(this.#info?.explanation);
  }

  /** Asks the server what it serves, and asks again while it serves nothing. */
  async refresh() {
    try {
      this.#show(await askModel(this.wanted));
    } catch (error) {
      if (error.status === 404 && (this.wanted.name || this.wanted.version)) return this.#choose("", BY_DEFAULT);
      byId("summary").textContent = `${error.message}${error.detail ? ` (${error.detail})` : ""}`;
      byId("summary").classList.add("amiss");
      if (error.status !== 401) setTimeout(() => this.refresh(), ASK_AGAIN_MS); // a person answers that one
    }
    return undefined;
  }

  /** Another version than the one shown has answered: the server has moved on. */
  noticeVersion(version) {
    if (this.#info && version !== this.#info.version) this.refresh();
  }

  async #choose(name, version) {
    const query = new URLSearchParams(Object.entries({ model: name, version }).filter(([, value]) => value));
    history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
    await this.refresh();
    this.#onChange();
  }

  #show(info) {
    this.#info = info;
    const ready = info.versions.filter((version) => version.state === "ready");
    const names = [...new Set(ready.map((version) => version.name))];
    fill(byId("model"), names.map((name) => [name, name]), info.name);
    const numbers = ready.filter((version) => version.name === info.name).map((version) => version.version);
    const pinned = this.wanted.version;
    const newest = [BY_DEFAULT, pinned ? "as the server picks" : `${info.version}, as the server picks`];
    fill(byId("version"), [newest, ...numbers.reverse().map((number) => [number, String(number)])], pinned);
    byId("summary").classList.remove("amiss");
    byId("summary").textContent = summarise(info);
    byId("about").hidden = false;
    byId("facts").replaceChildren(...listFacts(info));
  }
}

function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => make("option", { value, textContent: text })));
  select.value = chosen;
  select.disabled = false;
}

function summarise(info) {
  const image = info.preprocessing;
  const variant = info.variants?.find((known) => known.name === info.variant);
  const parts = [`${info.labels.length || info.output_shape.at(-1)} classes`];
  parts.push(image ? spellImage(image) : "takes numbers, not pictures");
  if (variant?.accuracy) parts.push(`right on ${percent(variant.accuracy)} of its test pictures`);
  return parts.join(" · ");
}

const spellImage = ({ width_px: width, height_px: height, channels }) =>
  `sees ${width} × ${height} pixels in ${channels === 1 ? "grey" : "colour"}`;

function listFacts(info) {
  const amiss = info.versions.filter((version) => version.name === info.name && version.reason);
  const facts = {
    Classes: info.labels.join(", "),
    Architecture: info.architecture,
    Parameters: info.parameters?.toLocaleString("en"),
    "Runs as": [info.variant, ...info.providers].join(", "),
    Made: info.created_at?.slice(0, 10),
    "Trained on": info.dataset?.source,
    "Of note": amiss.map(({ version, state, reason }) => `version ${version}: ${state}, ${reason}`).join("; "),
  };
  return Object.entries(facts)
    .filter(([, value]) => value)
    .flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })]);
}
