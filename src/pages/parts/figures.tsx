// Numbers, amounts and instants as people read them, and meters. Instants are in UTC, and the `title` of each says so. A meter is
// a picture with the same figures as text, because a style attribute could not carry its width.
import type { Child, FC } from "hono/jsx";
import { type Cents, inDollars } from "../../core/plans/money.ts";
import { MINUTE_MS } from "../../core/time.ts";

const grouped = new Intl.NumberFormat("en-US");

/** `12,500`. */
export function count(value: number): string {
  return grouped.format(value);
}

/** `12,500 calls`, `1 call`. */
export function counted(value: number, word: string): string {
  return `${count(value)} ${word}${value === 1 ? "" : "s"}`;
}

/** `12,500 units`, `1 unit`. */
export function units(value: number): string {
  return counted(value, "unit");
}

/** `$1,234.50`; an amount with fractions of a cent keeps them. */
export function dollars(amount: Cents | number): string {
  const text = inDollars(typeof amount === "number" ? { digits: BigInt(Math.round(amount)), scale: 0 } : amount);
  const [, sign = "", whole = "0", fraction = "00"] = /^(-?)(\d+)\.(\d+)$/.exec(text) ?? [];
  return `${sign}$${grouped.format(BigInt(whole))}.${fraction}`;
}

/** `12 ms`, `1.25 s`, `13.5 min`. `null`: nothing was measured. */
export function duration(ms: number | null): string {
  if (ms === null) return "–";
  if (ms < 1_000) return `${count(Math.round(ms))} ms`;
  return ms < MINUTE_MS ? `${decimal.format(ms / 1_000)} s` : `${decimal.format(ms / MINUTE_MS)} min`;
}

const decimal = new Intl.NumberFormat("en-US", { maximumFractionDigits: 2 });

/** `512 B`, `1.5 MB`, in powers of 1,000. */
export function bytes(value: number): string {
  const power = value < 1 ? 0 : Math.min(Math.floor(Math.log10(value) / 3), byteUnits.length - 1);
  return `${decimal.format(value / 1_000 ** power)} ${byteUnits[power]}`;
}

const byteUnits = ["B", "kB", "MB", "GB", "TB"];

/** `12.5 %`; without a whole `0 %`. A part that is not all is never shown as 100 %, and one that is not nothing never as 0 %. */
export function percent(part: number, whole: number): string {
  if (whole === 0 || part === 0) return "0 %";
  if (part === whole) return "100 %";
  return `${Math.min(99.9, Math.max(0.1, Math.round((part / whole) * 1_000) / 10))} %`;
}

/** `12.5 % more than in the 30 days before`. `before`: the words for the time before. */
export function change(now: number, then: number, before: string): string {
  if (now === then) return then === 0 ? `None in ${before}, too` : `As many as in ${before}`;
  if (then === 0) return `None in ${before}`;
  if (now >= 2 * then) return `${decimal.format(now / then)} times as many as in ${before}`;
  return `${percent(Math.abs(now - then), then)} ${now > then ? "more" : "less"} than in ${before}`;
}

/** Milliseconds since 1970, or ISO 8601 text: `2026-11-28 21:04`. */
export const Instant: FC<{ at: number | string; isDay?: boolean; hasSeconds?: boolean }> = (props) => {
  const { at, isDay = false, hasSeconds = false } = props;
  const iso = new Date(at).toISOString();
  const shown = isDay ? iso.slice(0, 10) : `${iso.slice(0, 10)} ${iso.slice(11, hasSeconds ? 19 : 16)}`;
  return (
    <time datetime={iso} title={`${iso.slice(0, 19).replace("T", " ")} UTC`} class="nowrap">
      {shown}
    </time>
  );
};

/** From these shares on the colour warns. A customer's alerts have their own thresholds. */
const WARN_SHARE = 0.8;

export interface MeterProps {
  /** What is measured: `Units this hour`. */
  label: string;
  used: number;
  /** Null: there is no limit, and the meter is empty. */
  limit: number | null;
}

export const Meter: FC<MeterProps> = ({ label, used, limit }) => {
  const share = limit === null ? 0 : limit === 0 ? 1 : Math.min(used / limit, 1);
  const percents = Math.round(share * 1_000) / 10;
  const tone = share >= 1 ? "meter bad" : share >= WARN_SHARE ? "meter warn" : "meter";
  const text = limit === null ? `${label}: ${used}, no limit` : `${label}: ${used} of ${limit}, ${percents} %`;
  return (
    <svg class={tone} role="img" aria-label={text} preserveAspectRatio="none">
      <rect class="track" width="100%" height="100%" rx="4" />
      {percents > 0 && <rect class="fill" width={`${percents}%`} height="100%" rx="4" />}
    </svg>
  );
};

interface FigureProps {
  name: string;
  value: string;
  /** Smaller, after the value: `of 1,000`. */
  of?: string | undefined;
  /** A sentence below the value. */
  note?: Child | undefined;
  /** A meter below the value. `limit` null: there is none. */
  meter?: { used: number; limit: number | null; label: string } | undefined;
}

/** One number in a card, or without a border in a `strip` of several. */
export const Figure: FC<FigureProps> = ({ name, value, of, note, meter }) => (
  <div class="card figure">
    <div class="name">{name}</div>
    <div class="value">
      {value}
      {of !== undefined && <small> {of}</small>}
    </div>
    {meter !== undefined && <Meter {...meter} />}
    {note !== undefined && <div class="note">{note}</div>}
  </div>
);
