// Writes a batch of parts of which some cannot be written: the bad ones are found by halving and the rest goes on. Without
// a bad part it is one write; each bad one costs about two writes for every halving.

export interface Bisection<Part, Written> {
  /** Writes these parts, all or none. */
  write: (parts: readonly Part[]) => Promise<Written>;
  /** Whether what `write` threw is the fault of a part. Everything else ends the whole with that error. */
  isRefusal: (error: unknown) => boolean;
  /** A part as two smaller ones; `undefined` when it cannot be smaller. */
  split: (part: Part) => readonly [Part, Part] | undefined;
  /** Parts that are left when this is used up are in `left`, so that a batch of bad parts ends, too. */
  maxWrites: number;
}

export interface Bisected<Part, Written> {
  written: Written[];
  refused: { part: Part; error: unknown }[];
  left: Part[];
}

/** Writes all that can be written. What was written before an error that is no refusal stays written. */
export async function writeWithBisection<Part, Written>(
  parts: readonly Part[],
  { write, isRefusal, split, maxWrites }: Bisection<Part, Written>,
): Promise<Bisected<Part, Written>> {
  const outcome: Bisected<Part, Written> = { written: [], refused: [], left: [] };
  const waiting: (readonly Part[])[] = [parts];
  for (let writes = 0; waiting.length > 0; writes += 1) {
    const some = waiting.pop() ?? [];
    const [first, ...others] = some;
    if (first === undefined) continue;
    if (writes >= maxWrites) {
      outcome.left.push(...some);
      continue;
    }
    try {
      outcome.written.push(await write(some));
    } catch (error) {
      if (!isRefusal(error)) throw error;
      if (others.length > 0) {
        const middle = Math.ceil(some.length / 2);
        waiting.push(some.slice(middle), some.slice(0, middle));
        continue;
      }
      const halves = split(first);
      if (halves === undefined) outcome.refused.push({ part: first, error });
      else waiting.push([halves[1]], [halves[0]]);
    }
  }
  return outcome;
}
