/** Compiled against the built package and never run: what must fit, and (`@ts-expect-error`) what must not. */

import { OverloadedError, ShoalClient, ShoalError, type Answer, type Outcome } from "shoal-client";

const client = new ShoalClient("http://127.0.0.1:8000", { retry: { attempts: 2 }, timeoutMs: null });
const file = new Uint8Array(8);

export async function fits(): Promise<void> {
  const answer: Answer = await client.classify(file, { topK: 3, model: "digits", version: 1, timeoutMs: 100 });
  const label: string = answer.best.label;
  await client.classify(new Blob([file]), { signal: AbortSignal.timeout(5) });
  await client.classifyBatch(new Set([file, file.buffer]));
  await client.classifyPixels({ data: new Uint8ClampedArray(3), height: 1, width: 1, channels: 3 });
  for await (const one of client.classifyMany([file])) {
    const best: number = one.best.probability;
  }
  for await (const one of client.classifyMany([file], { returnErrors: true })) {
    const words: string = one instanceof ShoalError ? one.message : one.best.label;
  }
  for await (const outcome of client.stream([file])) {
    const words: string = outcome.error ? outcome.error.message : outcome.answer.best.label;
  }
  const shape: readonly number[] = (await client.modelInfo()).inputShape;
  const waitMs: number = new OverloadedError("full", { retryAfterMs: 5 }).retryAfterMs;
}

export async function doesNotFit(outcome: Outcome): Promise<void> {
  // @ts-expect-error a path is no picture
  await client.classify("seven.png");
  // @ts-expect-error no such option
  await client.classify(file, { topk: 3 });
  // @ts-expect-error a picture that failed has no classes
  for await (const one of client.classifyMany([file], { returnErrors: true })) one.best;
  // @ts-expect-error whether there is an answer has to be looked at first
  outcome.answer.best;
  // @ts-expect-error what came back is not to be written to
  (await client.classify(file)).model = "other";
  // @ts-expect-error height and width are needed
  await client.classifyPixels({ data: file, channels: 1 });
  // @ts-expect-error one name cannot stand for many requests
  client.classifyMany([file], { requestId: "a" });
}
