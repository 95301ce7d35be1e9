// Small helpers that every part of the page uses.

export const byId = (id) => document.getElementById(id);

/** An element with properties, and children that are elements or text. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** 0.8731 → "87.3 %"; what is not quite certain never reads as certain, nor what is possible as impossible. */
export function percent(share) {
  const text = (100 * share).toFixed(1);
  if (text === "100.0" && share < 1) return "> 99.9 %";
  if (text === "0.0" && share > 0) return "< 0.1 %";
  return `${text} %`;
}

/** Milliseconds with three digits that matter; seconds from 1000 on. */
export function spellMs(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms.toFixed(ms < 10 ? 2 : ms < 100 ? 1 : 0)} ms`;
}

/** Runs at most `width` tasks at the same time, in the order in which they came. */
export class Lanes {
  #free;
  #waiting = [];

  constructor(width) {
    this.#free = width;
  }

  async run(task) {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise((go) => this.#waiting.push(go));
    try {
      return await task();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free += 1;
    }
  }
}
