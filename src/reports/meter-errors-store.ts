// Stores the meter events that Stripe accepted and refused afterwards. Stripe lists only some of them. The daily
// comparison finds the others.
import * as z from "zod";
import { readableRows } from "../control/failures-store.ts";
import type { ControlDatabase } from "../adapters/neon.ts";
import { toIso } from "../core/time.ts";

export const MeterErrorDay = z.object({
  day: z.string(),
  code: z.string(),
  errors: z.int(),
  notices: z.int(),
  reportIds: z.array(z.string()),
  lastAt: z.string(),
});
type MeterErrorDay = z.infer<typeof MeterErrorDay>;

export function meterErrorsStore(control: ControlDatabase) {
  return {
    /**
     * Stores the content of one notification. From now on a summary decides about each report that it names. A repetition
     * changes nothing.
     */
    async keep(
      eventId: string,
      fromAt: string,
      untilAt: string,
      byCode: readonly { code: string; errors: number; reportIds: readonly string[] }[],
    ): Promise<void> {
      await control.query(
        `WITH kept AS (
           INSERT INTO meter_errors (event_id, code, errors, report_ids, from_at, until_at)
           SELECT $1, e.code, e.errors, ARRAY(SELECT jsonb_array_elements_text(e."reportIds")), $2::timestamptz, $3::timestamptz
           FROM jsonb_to_recordset($4::jsonb) AS e(code text, errors bigint, "reportIds" jsonb) ON CONFLICT DO NOTHING
           RETURNING report_ids)
         UPDATE reports r SET doubted_at = now(), next_at = NULL FROM kept, unnest(kept.report_ids) AS named(id)
         WHERE r.id = named.id AND r.doubted_at IS NULL`,
        [eventId, fromAt, untilAt, JSON.stringify(byCode)],
      );
    },

    /** The errors of the last `days` days, by UTC day and error code, newest first. */
    async byDay(days: number): Promise<MeterErrorDay[]> {
      const rows = await control.query(
        `SELECT to_char(until_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day, code, sum(errors)::int AS errors, count(*)::int AS notices,
                ARRAY(SELECT DISTINCT id FROM meter_errors n, unnest(n.report_ids) AS id WHERE n.code = m.code
                        AND date_trunc('day', n.until_at, 'UTC') = date_trunc('day', min(m.until_at), 'UTC') ORDER BY id LIMIT 100) AS "reportIds",
                ${toIso("max(until_at)")} AS "lastAt"
         FROM meter_errors m WHERE until_at > now() - make_interval(days => $1)
         GROUP BY day, code ORDER BY day DESC, code`,
        [days],
      );
      return readableRows(control, rows, MeterErrorDay, {
        part: "meter_errors",
        idOf: ({ day, code }) => `${String(day)} ${String(code)}`,
      });
    },
  };
}
