// The price that a person has seen before the charge. A form carries it, so that no click charges more than the page said.
import * as z from "zod";
import type { RefusedForm } from "../../layout/form-body.ts";
import { dollars } from "../../parts/figures.tsx";

/** A form without the price has seen none. */
export const SeenPrice = z.object({ seenCents: z.coerce.number().int().default(0) });

/** Why the form is shown again: the price is higher now than the one that the person saw. */
export function risenPrice(nowCents: number, seenCents: number): RefusedForm | undefined {
  if (nowCents <= Math.max(seenCents, 0)) return undefined;
  const text = `The price has risen since you opened this page: it is ${dollars(nowCents)} now. Nothing was changed.`;
  return { entered: {}, errors: {}, problem: { code: "conflict", text } };
}
