// How a figure differs from the one of the time before, in words and with a direction for an arrow. Pure.

interface Words {
  /** How the figure is written. */
  format: (value: number) => string;
  more: string;
  less: string;
}

export interface Difference {
  direction: "up" | "down" | undefined;
  /** Says all by itself: `20 more than the 100 before`. */
  text: string;
}

/** `null`: nothing was measured in one of the times. Then there is no difference, or the text says that there was nothing before. */
export function difference(
  now: number | null,
  before: number | null,
  { format, more, less }: Words,
): Difference | undefined {
  if (now === null) return undefined;
  if (before === null) return { direction: undefined, text: "None before to compare with" };
  if (now === before) return { direction: undefined, text: "The same as before" };
  const isMore = now > before;
  const text = `${format(Math.abs(now - before))} ${isMore ? more : less} than the ${format(before)} before`;
  return { direction: isMore ? "up" : "down", text };
}
