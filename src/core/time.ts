// Lengths of time, and instants on their way into and out of SQL. In the program an instant is milliseconds since 1970 (`...Ms`) or, in
// answers to clients, ISO 8601 text in UTC. In PostgreSQL it is a `timestamptz`. These are the only conversions.

export const MINUTE_MS = 60_000;
export const HOUR_MS = 60 * MINUTE_MS;
/** A UTC day. It has no leap seconds, as in Unix time and at Stripe. */
export const DAY_MS = 24 * HOUR_MS;

/** SQL for a parameter or column that holds milliseconds: a `timestamptz`. Null stays null. */
export function fromMs(milliseconds: string): string {
  return `to_timestamp(${milliseconds}::double precision / 1000)`;
}

/** SQL for a `timestamptz`: whole milliseconds, which arrive as a number. Null stays null. */
export function toMs(column: string): string {
  return `floor(extract(epoch FROM ${column}) * 1000)::double precision`;
}

/** SQL for a `timestamptz`: ISO 8601 text in UTC with milliseconds. The driver would turn the bare value into a `Date`. */
export function toIso(column: string): string {
  return `to_char(${column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;
}
