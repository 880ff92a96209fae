// How far a move or a job is, and the part of a page that renews itself while one runs.
import type { FC } from "hono/jsx";
import type { Job } from "../../../backups/jobs-store.ts";
import type { MoveSummary } from "../../../moves/moves-store.ts";
import { count } from "../../parts/figures.tsx";
import { Badge, type Tone } from "../../parts/notice.tsx";

/** A move or job that runs records its progress every second or so. */
const POLL = "every 2s";
/** Without script the whole page loads again. */
export const RELOAD_SECONDS = 5;

const moveTones: Readonly<Record<MoveSummary["state"], Tone>> = {
  ...{
    preparing: "accent",
    copying: "accent",
    returning: "accent",
    moved: "warn",
    confirmed: "good",
    undone: "neutral",
  },
};
const jobTones: Readonly<Record<Job["state"], Tone>> = {
  ...{ running: "accent", done: "good", failed: "bad", cancelled: "neutral" },
};
export const MoveBadge: FC<{ state: MoveSummary["state"] }> = ({ state }) => (
  <Badge tone={moveTones[state]}>{state === "moved" ? "moved, not confirmed" : state}</Badge>
);
export const JobBadge: FC<{ state: Job["state"] }> = ({ state }) => <Badge tone={jobTones[state]}>{state}</Badge>;

export const isMoving = ({ state }: Pick<MoveSummary, "state">): boolean =>
  ["preparing", "copying", "returning"].includes(state);

/** The attributes of a part that renews itself. */
export function renewing(url: string, isRunning: boolean): Record<string, string> {
  return isRunning ? { "hx-get": url, "hx-trigger": POLL, "hx-swap": "outerHTML", "hx-target": "this" } : {};
}

/** How far a job is, in words. */
export function progressOf({ kind, progress, result }: Job): string {
  const rows = result?.["rows"] ?? progress["rows"] ?? progress["lines"] ?? progress["line"];
  if (typeof rows !== "number") return "";
  return `${count(rows)} ${kind === "import" ? "lines" : "rows"}`;
}
