// A message above the content of a page, and what a list shows while it has no items.
import type { Child, FC } from "hono/jsx";
import type { Tone } from "./badge.tsx";

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
