/** Shoal's client for browsers and Node: pictures to a running server, classes back, over HTTP. */

export {
  ShoalClient,
  type CallOptions,
  type ClassifyOptions,
  type ClientOptions,
  type ManyOptions,
  type ModelOptions,
} from "./client.js";
export {
  ConnectionLostError,
  DeadlineExceededError,
  InvalidInputError,
  ModelNotFoundError,
  OverloadedError,
  PayloadTooLargeError,
  PermissionDeniedError,
  RefusedError,
  ServerFailedError,
  ShoalError,
  UnauthenticatedError,
  UnavailableError,
  UnsupportedImageError,
  type ErrorDetails,
  type Problem,
} from "./errors.js";
export type { Image, Pixels } from "./images.js";
export type {
  Answer,
  ClassScore,
  Health,
  ModelInfo,
  Outcome,
  Prediction,
  Timing,
  VersionState,
} from "./results.js";
export type { Clock, RetryPolicy } from "./retries.js";
export type { Images } from "./streaming.js";
