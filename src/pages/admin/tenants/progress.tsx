// Moves and jobs in tables, how far each is, and the part of a page that renews itself while one runs.
import type { Child, FC } from "hono/jsx";
import type { Job } from "../../../backups/jobs-store.ts";
import type { MoveSummary } from "../../../moves/moves-store.ts";
import { Instant, count } from "../../parts/figures.tsx";
import { Badge, type Tone } from "../../parts/notice.tsx";
import { type Column, Table } from "../../parts/table.tsx";

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
const MoveBadge: FC<{ state: MoveSummary["state"] }> = ({ state }) => (
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
function progressOf({ kind, progress, result }: Job): string {
  const rows = result?.["rows"] ?? progress["rows"] ?? progress["lines"] ?? progress["line"];
  if (typeof rows !== "number") return "";
  return `${count(rows)} ${kind === "import" ? "lines" : "rows"}`;
}

interface WorkTableProps<Row> {
  caption: string;
  rows: readonly Row[];
  empty: Child;
  /** The columns that come first. One of them names the row. */
  first: readonly Column<Row>[];
  /** What a person can do with a row. */
  acts?: (row: Row) => Child;
}

const actsColumn = <Row,>(acts: ((row: Row) => Child) | undefined): Column<Row>[] =>
  acts === undefined ? [] : [{ head: "", cell: acts }];

export const MovesTable: FC<WorkTableProps<MoveSummary>> = ({ caption, rows, empty, first, acts }) => (
  <Table
    {...{ caption, rows, empty }}
    hidesCaption
    columns={[
      ...first,
      { head: "From", cell: ({ from }) => from },
      { head: "To", cell: ({ strategy, to }) => `${strategy}${to === null ? "" : ` on ${to}`}` },
      { head: "State", cell: ({ state }) => <MoveBadge state={state} /> },
      { head: "Rows copied", isNumber: true, cell: ({ rowsCopied }) => count(rowsCopied) },
      { head: "Pause", isNumber: true, cell: ({ pauseMs }) => (pauseMs === null ? "" : `${count(pauseMs)} ms`) },
      { head: "Why it waits", cell: ({ error }) => error ?? "" },
      ...actsColumn(acts),
    ]}
  />
);

export const JobsTable: FC<WorkTableProps<Job>> = ({ caption, rows, empty, first, acts }) => (
  <Table
    {...{ caption, rows, empty }}
    hidesCaption
    columns={[
      ...first,
      { head: "State", cell: ({ state }) => <JobBadge state={state} /> },
      { head: "Progress", isNumber: true, cell: progressOf },
      { head: "Begun", cell: ({ startedAt }) => <Instant at={startedAt} /> },
      { head: "Ended", cell: ({ finishedAt }) => (finishedAt === null ? "" : <Instant at={finishedAt} />) },
      { head: "Error", cell: ({ error }) => error ?? "" },
      ...actsColumn(acts),
    ]}
  />
);
