// A message above the content of a page, what a list shows while it has no items, and a state in one or two words. A colour only
// repeats what the words say.
import type { Child, FC } from "hono/jsx";

export type Tone = "good" | "warn" | "bad" | "accent" | "neutral";

export const Badge: FC<{ tone?: Tone; children?: Child }> = ({ tone = "neutral", children }) => (
  <span class={tone === "neutral" ? "badge" : `badge ${tone}`}>{children}</span>
);

/** `bad` interrupts a screen reader; others wait for its turn. */
export const Notice: FC<{ tone?: Tone; children?: Child }> = ({ tone = "accent", children }) => (
  <div class={`notice ${tone}`} role={tone === "bad" ? "alert" : "status"}>
    {children}
  </div>
);

/** `title`: what there is none of. The children say how the first one comes about. */
export const Empty: FC<{ title: string; children?: Child }> = ({ title, children }) => (
  <div class="empty">
    <strong>{title}</strong>
    {children}
  </div>
);
