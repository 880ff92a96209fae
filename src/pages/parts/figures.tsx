// Numbers, amounts and instants as people read them, and meters. Instants are in UTC, and the `title` of each says so. A meter is
// a picture with the same figures as text, because a style attribute could not carry its width.
import type { FC } from "hono/jsx";
import { type Cents, inDollars } from "../../core/money.ts";

const grouped = new Intl.NumberFormat("en-US");

/** `12,500`. */
export function count(value: number): string {
  return grouped.format(value);
}

/** `12,500 units`, `1 unit`. */
export function units(value: number): string {
  return `${count(value)} ${value === 1 ? "unit" : "units"}`;
}

/** `$1,234.50`; an amount with fractions of a cent keeps them. */
export function dollars(amount: Cents | number): string {
  const text = inDollars(typeof amount === "number" ? { digits: BigInt(Math.round(amount)), scale: 0 } : amount);
  const [, sign = "", whole = "0", fraction = "00"] = /^(-?)(\d+)\.(\d+)$/.exec(text) ?? [];
  return `${sign}$${grouped.format(BigInt(whole))}.${fraction}`;
}

/** Milliseconds since 1970, or ISO 8601 text: `2026-11-28 21:04 UTC`. */
export const Instant: FC<{ at: number | string; isDay?: boolean }> = ({ at, isDay = false }) => {
  const iso = new Date(at).toISOString();
  const shown = isDay ? iso.slice(0, 10) : `${iso.slice(0, 10)} ${iso.slice(11, 16)}`;
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
  const percent = Math.round(share * 1_000) / 10;
  const tone = share >= 1 ? "meter bad" : share >= WARN_SHARE ? "meter warn" : "meter";
  const text = limit === null ? `${label}: ${used}, no limit` : `${label}: ${used} of ${limit}, ${percent} %`;
  return (
    <svg class={tone} role="img" aria-label={text} preserveAspectRatio="none">
      <rect class="track" width="100%" height="100%" rx="4" />
      {percent > 0 && <rect class="fill" width={`${percent}%`} height="100%" rx="4" />}
    </svg>
  );
};

interface FigureProps {
  name: string;
  value: string;
  /** A sentence below the value. */
  note?: string | undefined;
  /** A meter below the value. `limit` null: there is none. */
  meter?: { used: number; limit: number | null; label: string } | undefined;
}

/** One number in a card. */
export const Figure: FC<FigureProps> = ({ name, value, note, meter }) => (
  <div class="card figure">
    <div class="name">{name}</div>
    <div class="value">{value}</div>
    {meter !== undefined && <Meter {...meter} />}
    {note !== undefined && <div class="note">{note}</div>}
  </div>
);
