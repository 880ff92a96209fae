// A range of whole days (UTC) in the address of a page: links to the usual ranges, and a form for any other one.
import type { FC } from "hono/jsx";
import { DAY_MS } from "../../core/time.ts";
import { dayOf } from "../../metering/invoice.ts";
import { Field } from "../parts/form.tsx";

export interface Days {
  /** Days such as `2026-11-28`, both included. */
  from: string;
  to: string;
}

interface Preset extends Days {
  text: string;
}

/** The usual ranges that end today, and the month before. */
function presets(nowMs: number): Preset[] {
  const today = dayOf(nowMs);
  const back = (days: number): string => dayOf(nowMs - days * DAY_MS);
  const month = today.slice(0, 7);
  const lastDayMs = Date.parse(`${month}-01`) - DAY_MS;
  return [
    { text: "Today", from: today, to: today },
    { text: "7 days", from: back(6), to: today },
    { text: "30 days", from: back(29), to: today },
    { text: "This month", from: `${month}-01`, to: today },
    { text: "Last month", from: `${dayOf(lastDayMs).slice(0, 7)}-01`, to: dayOf(lastDayMs) },
  ];
}

/** The range of the query in order of time. A day that is missing is chosen so that there are 30 days. */
export function shownDays({ from, to }: { from?: string | undefined; to?: string | undefined }, nowMs: number): Days {
  const last = to ?? (from === undefined ? dayOf(nowMs) : dayOf(Date.parse(from) + REST_MS));
  const first = from ?? dayOf(Date.parse(last) - REST_MS);
  return first <= last ? { from: first, to: last } : { from: last, to: first };
}

/** The days after the first one of the usual range. */
const REST_MS = 29 * DAY_MS;

/** `?from=…&to=…` with the other parameters. One without a value is left out. */
export function query(parameters: Readonly<Record<string, string | undefined>>): string {
  const given = Object.entries(parameters).filter((each): each is [string, string] => each[1] !== undefined);
  return given.length === 0 ? "" : `?${new URLSearchParams(given).toString()}`;
}

interface RangeProps {
  path: string;
  days: Days;
  /** The page's other parameters, which stay. */
  others: Readonly<Record<string, string | undefined>>;
  nowMs: number;
}

export const Range: FC<RangeProps> = ({ path, days, others, nowMs }) => (
  <div class="range">
    <nav class="tabs" aria-label="Range">
      {presets(nowMs).map(({ text, from, to }) => (
        <a
          href={path + query({ ...others, from, to })}
          aria-current={from === days.from && to === days.to ? "true" : undefined}
        >
          {text}
        </a>
      ))}
    </nav>
    <form method="get" action={path} class="inline">
      {Object.entries(others).map(
        ([name, value]) => value !== undefined && <input type="hidden" {...{ name, value }} />,
      )}
      <Field label="From" name="from" type="date" value={days.from} isRequired />
      <Field label="To" name="to" type="date" value={days.to} isRequired />
      <button>Show</button>
    </form>
  </div>
);
