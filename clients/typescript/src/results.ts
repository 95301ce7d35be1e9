/** What calls return: plain frozen values. */

import type { ShoalError } from "./errors.js";

/** One class of a prediction. */
export interface ClassScore {
  /** The class's number in the model. */
  readonly index: number;
  /** Its name. */
  readonly label: string;
  /** 0..1. */
  readonly probability: number;
}

/** What one picture shows. */
export interface Prediction {
  /** The most probable class. */
  readonly best: ClassScore;
  /** As many as `topK` asked for, best first. */
  readonly classes: readonly ClassScore[];
}

/** Where the server spent its time, in milliseconds. */
export interface Timing {
  /** From files to pixels. */
  readonly decodeMs: number;
  /** Waiting for the model. */
  readonly queueMs: number;
  /** In the model, with the batch's other pictures. */
  readonly inferMs: number;
}

/** What one call brought. */
export interface Answer {
  /** The first picture's most probable class. */
  readonly best: ClassScore;
  /** One for each picture, in the order in which they were given. */
  readonly predictions: readonly Prediction[];
  /** Who answered. */
  readonly model: string;
  /** Which version of it. */
  readonly version: number;
  /** The graph that answered: float32, int8, ... */
  readonly variant: string;
  readonly timing: Timing;
  /** The request's name in the server's log. */
  readonly requestId: string;
}

/** What became of one picture of a `stream`: its answer, or why there is none. */
export type Outcome =
  | { readonly position: number; readonly answer: Answer; readonly error?: undefined }
  | { readonly position: number; readonly answer?: undefined; readonly error: ShoalError };

/** A version that the server knows of. */
export interface VersionState {
  readonly name: string;
  readonly version: number;
  readonly state: string;
  /** Why it is not served, or "". */
  readonly reason: string;
}

/** A model: what it takes, what it answers, how well it was measured to do. */
export interface ModelInfo {
  readonly name: string;
  readonly version: number;
  /** What it is; "" where the bundle does not say. */
  readonly architecture: string;
  /** What trained it; "" where the bundle does not say. */
  readonly framework: string;
  /** How many it has; 0: unknown. */
  readonly parameters: number;
  /** The classes' names by number. */
  readonly labels: readonly string[];
  /** `[n, height, width, channels]`; -1: any number. */
  readonly inputShape: readonly number[];
  /** `[n, classes]`. */
  readonly outputShape: readonly number[];
  /** The graph being served: float32, int8, ... */
  readonly variant: string;
  /** ONNX Runtime's execution providers in use. */
  readonly providers: readonly string[];
  /** Measured at training. */
  readonly metrics: Readonly<Record<string, number>>;
  /** Every version of every model there. */
  readonly versions: readonly VersionState[];
}

/** Whether the server should be sent requests. */
export interface Health {
  readonly ready: boolean;
  /** The server's word for its state. */
  readonly status: string;
  /** The default model, where one is loaded. */
  readonly model: string | undefined;
  readonly version: number | undefined;
  /** Seconds since it started. */
  readonly uptimeS: number;
  readonly shoalVersion: string;
}
