// Writes a batch that may contain bad parts. A refused batch is halved until the bad parts stand alone; all other parts are
// written. A batch without a bad part is one write. Each bad part costs about two writes per halving.
import { sqlStateOf } from "../adapters/neon.ts";

/** SQLSTATE classes that blame a row: 22 (data) and 23 (constraint). Any other is an outage or Tollgate's mistake. */
const rowRefused = /^2[23]/;

/** Whether a statement failed because of one of its rows. */
export function blamesRow(error: unknown): boolean {
  return rowRefused.test(sqlStateOf(error) ?? "");
}

export interface Bisection<Part, Written> {
  /** Writes all of these parts or none of them. */
  write: (parts: readonly Part[]) => Promise<Written>;
  /** Whether an error of `write` blames a part. Any other error ends the bisection and is thrown. */
  isRefusal: (error: unknown) => boolean;
  /** Splits a part in two. Returns `undefined` for a part that cannot be split. */
  split: (part: Part) => readonly [Part, Part] | undefined;
  /** Upper bound on writes, so that a batch of bad parts ends. Parts that are not written by then are in `left`. */
  maxWrites: number;
}

export interface Bisected<Part, Written> {
  written: Written[];
  refused: { part: Part; error: unknown }[];
  left: Part[];
}

/** Writes every part that can be written. When it throws, earlier writes stay. */
export async function writeWithBisection<Part, Written>(
  parts: readonly Part[],
  { write, isRefusal, split, maxWrites }: Bisection<Part, Written>,
): Promise<Bisected<Part, Written>> {
  const outcome: Bisected<Part, Written> = { written: [], refused: [], left: [] };
  const waiting: (readonly Part[])[] = [parts];
  for (let writes = 0; waiting.length > 0; writes += 1) {
    const batch = waiting.pop() ?? [];
    const [first, ...others] = batch;
    if (first === undefined) continue;
    if (writes >= maxWrites) {
      outcome.left.push(...batch);
      continue;
    }
    try {
      outcome.written.push(await write(batch));
    } catch (error) {
      if (!isRefusal(error)) throw error;
      if (others.length > 0) {
        const middle = Math.ceil(batch.length / 2);
        waiting.push(batch.slice(middle), batch.slice(0, middle));
        continue;
      }
      const halves = split(first);
      if (halves === undefined) outcome.refused.push({ part: first, error });
      else waiting.push([halves[1]], [halves[0]]);
    }
  }
  return outcome;
}
