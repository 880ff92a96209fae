// Reads a tenant's usage from the control tables for its archive: page by page, as finished lines.
import type { ArchiveKind, Counts, Month, Totals } from "./usage-archive.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { toIso } from "../core/time.ts";
import type { ControlDatabase } from "../adapters/neon.ts";

/** About 3 MB of lines: a second's work, and far below the limit of an answer. */
const PAGE_ROWS = 20_000;

/** The key of a page's last row, as text. The next page begins after it. */
export type ArchiveCursor = readonly string[];

export interface ArchivePage extends Counts {
  /** The rows as lines, each with its line feed. */
  body: string;
  /** `null`: this is the last page. */
  next: ArchiveCursor | null;
}

/** The fields of a line, and the key that orders the lines. An index has the key. */
const source: Readonly<Record<ArchiveKind, { from: string; line: string; key: string; types: string }>> = {
  calls: {
    from: "ledger",
    line: `'call', l.call_id, 'tool', l.tool, 'units', l.units, 'at', ${toIso("l.at")}, 'report', coalesce(l.report_id, l.carry_forward_id)`,
    key: "l.object, l.epoch, l.n",
    types: "($2::text[])[1], ($2::text[])[2], (($2::text[])[3])::bigint",
  },
  reports: {
    from: "reports",
    line: `'report', l.id, 'slot', ${toIso("l.slot")}, 'units', l.units, 'calls', l.calls, 'confirmedAt', ${toIso("l.confirmed_at")}, 'answer', l.answer`,
    key: "l.slot",
    types: "(($2::text[])[1])::timestamptz",
  },
};

export function usageArchiveStore(control: ControlDatabase) {
  return {
    /** The next rows of a kind, in a stable order. */
    async page(tenantId: TenantId, kind: ArchiveKind, after: ArchiveCursor | null): Promise<ArchivePage> {
      const { from, line, key, types } = source[kind];
      const [row] = await control.query(
        `WITH page AS (SELECT json_build_object(${line})::text AS line, l.units,
                         ARRAY[${key
                           .split(", ")
                           .map((column) => `${column}::text`)
                           .join(", ")}] AS at,
                         row_number() OVER (ORDER BY ${key}) AS place
                       FROM ${from} l WHERE l.tenant_id = $1 AND ($2::text[] IS NULL OR (${key}) > (${types}))
                       ORDER BY ${key} LIMIT ${PAGE_ROWS})
         SELECT coalesce(string_agg(line || E'\\n', '' ORDER BY place), '') AS body, count(*)::int AS rows,
                coalesce(sum(units), 0)::text AS units, (array_agg(array_to_json(at) ORDER BY place DESC))[1] AS last FROM page`,
        [tenantId, after === null ? null : [...after]],
      );
      const rows = Number(row?.["rows"]);
      const last = row?.["last"] as ArchiveCursor | null;
      return {
        body: String(row?.["body"]),
        rows,
        units: Number(row?.["units"]),
        next: rows < PAGE_ROWS ? null : last,
      };
    },

    /** All rows and units, and those of each month. */
    async totals(tenantId: TenantId): Promise<{ totals: Totals; months: Month[] }> {
      const [reports = [], months = []] = await control.batch([
        {
          text: `SELECT count(*)::text AS rows, coalesce(sum(units), 0)::text AS units FROM reports WHERE tenant_id = $1`,
          params: [tenantId],
        },
        {
          text: `SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM') AS month, count(*)::text AS calls, sum(units)::text AS units
                 FROM ledger WHERE tenant_id = $1 GROUP BY 1 ORDER BY 1`,
          params: [tenantId],
        },
      ]);
      const byMonth = months.map((row) => ({
        month: String(row["month"]),
        calls: Number(row["calls"]),
        units: Number(row["units"]),
      }));
      const calls = byMonth.reduce((sum, each) => ({ rows: sum.rows + each.calls, units: sum.units + each.units }), {
        rows: 0,
        units: 0,
      });
      const [row] = reports;
      return {
        totals: { calls, reports: { rows: Number(row?.["rows"]), units: Number(row?.["units"]) } },
        months: byMonth,
      };
    },
  };
}
