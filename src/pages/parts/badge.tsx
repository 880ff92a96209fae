// A state in one or two words. The colour repeats what the word says.
import type { Child, FC } from "hono/jsx";

export type Tone = "good" | "warn" | "bad" | "accent" | "neutral";

export const Badge: FC<{ tone?: Tone; children?: Child }> = ({ tone = "neutral", children }) => (
  <span class={tone === "neutral" ? "badge" : `badge ${tone}`}>{children}</span>
);
