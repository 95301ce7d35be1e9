/**
 * Every error that a call can reject with.
 *
 *     ShoalError                   all of them; `requestId` finds the request in the server's log
 *     ├── InvalidInputError        the pictures, the model's name or an option are not what the server takes
 *     │   └── UnsupportedImageError   not a picture that can be read
 *     ├── PayloadTooLargeError     larger than the server's limit
 *     ├── ModelNotFoundError
 *     ├── UnauthenticatedError
 *     ├── PermissionDeniedError
 *     ├── RefusedError             nothing was processed: calls are repeated by the RetryPolicy before this is thrown
 *     │   ├── OverloadedError      the answer would have come too late; `retryAfterMs` is the server's advice
 *     │   └── UnavailableError     nobody listens, the server is stopping, or the model is not loaded
 *     ├── DeadlineExceededError    `timeoutMs` is over
 *     ├── ConnectionLostError      the connection broke before the answer came: it may have been processed
 *     └── ServerFailedError        the server met a fault, or answered what this client does not understand
 *
 * A caller's own `signal` is no error of Shoal's: its reason is thrown as it is, as `fetch` does.
 */

/** The server's own account of an error: RFC 9457, `application/problem+json`. */
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
}

/** What an error may know besides its message. */
export interface ErrorDetails {
  /** The server's name for the request. */
  readonly requestId?: string;
  /** What the server answered; missing where it did not answer. */
  readonly problem?: Problem;
  /** What was caught. */
  readonly cause?: unknown;
}

/** Base of every error of this package. */
export class ShoalError extends Error {
  override readonly name: string = "ShoalError";
  /** The server's name for the request, or "". */
  readonly requestId: string;
  /** What the server answered, where it did. */
  readonly problem: Problem | undefined;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.requestId = details.requestId ?? "";
    this.problem = details.problem;
  }
}

/** The pictures, the model's name or an option are not what the server takes. */
export class InvalidInputError extends ShoalError {
  override readonly name: string = "InvalidInputError";
}

/** The bytes are no picture that the server can read. */
export class UnsupportedImageError extends InvalidInputError {
  override readonly name: string = "UnsupportedImageError";
}

/** The request is larger than the server's limit. */
export class PayloadTooLargeError extends ShoalError {
  override readonly name: string = "PayloadTooLargeError";
}

/** No model, or no version of it, has that name there. */
export class ModelNotFoundError extends ShoalError {
  override readonly name: string = "ModelNotFoundError";
}

/** The token is missing, wrong or expired. */
export class UnauthenticatedError extends ShoalError {
  override readonly name: string = "UnauthenticatedError";
}

/** The token does not allow this. */
export class PermissionDeniedError extends ShoalError {
  override readonly name: string = "PermissionDeniedError";
}

/** The server took nothing; trying again later is safe. */
export class RefusedError extends ShoalError {
  override readonly name: string = "RefusedError";
  /** The server's advice on when to try again, in milliseconds. */
  readonly retryAfterMs: number;

  constructor(message: string, details: ErrorDetails & { readonly retryAfterMs?: number } = {}) {
    super(message, details);
    this.retryAfterMs = details.retryAfterMs ?? 0;
  }
}

/** The server could not have answered in time. */
export class OverloadedError extends RefusedError {
  override readonly name: string = "OverloadedError";
}

/** Nobody listens there, the server is stopping, or the model is not loaded. */
export class UnavailableError extends RefusedError {
  override readonly name: string = "UnavailableError";
}

/** The call's time is over. */
export class DeadlineExceededError extends ShoalError {
  override readonly name: string = "DeadlineExceededError";
}

/** The connection broke before the answer came; the request may have been processed. */
export class ConnectionLostError extends ShoalError {
  override readonly name: string = "ConnectionLostError";
}

/** The server met a fault, or answered what this client does not understand. */
export class ServerFailedError extends ShoalError {
  override readonly name: string = "ServerFailedError";
}
