// The level of each indicator, since when it has that level, and the level that the operator was last notified of.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import { fromMs, toMs } from "../core/time.ts";
import { type AlarmLevel, type Reading, alarmLevels } from "./indicators.ts";

const AlarmRow = z.object({
  name: z.string(),
  level: z.enum(alarmLevels),
  sinceMs: z.number(),
  notifiedLevel: z.enum(alarmLevels).nullable(),
  notifiedAtMs: z.number().nullable(),
});

export interface AlarmRecord {
  name: string;
  level: AlarmLevel;
  sinceMs: number;
  notified: { level: AlarmLevel; atMs: number } | undefined;
}

export function alarmsStore(control: ControlDatabase) {
  return {
    /** Stores the readings and returns the record of each. `sinceMs` moves when a level changes. */
    async store(readings: readonly Pick<Reading, "name" | "level" | "value">[], nowMs: number): Promise<AlarmRecord[]> {
      const rows = await control.query(
        `INSERT INTO alarms AS a (name, level, value, since)
         SELECT r.name, r.level, r.value, ${fromMs("$2")}
         FROM jsonb_to_recordset($1::jsonb) AS r(name text, level text, value double precision) ORDER BY r.name
         ON CONFLICT (name) DO UPDATE SET level = excluded.level, value = excluded.value,
           since = CASE WHEN a.level = excluded.level THEN a.since ELSE excluded.since END
         RETURNING name, level, ${toMs("since")} AS "sinceMs", notified_level AS "notifiedLevel", ${toMs("notified_at")} AS "notifiedAtMs"`,
        [JSON.stringify(readings.map(({ name, level, value }) => ({ name, level, value }))), nowMs],
      );
      return rows.map((row) => {
        const { name, level, sinceMs, notifiedLevel, notifiedAtMs } = AlarmRow.parse(row);
        const notified =
          notifiedLevel === null || notifiedAtMs === null ? undefined : { level: notifiedLevel, atMs: notifiedAtMs };
        return { name, level, sinceMs, notified };
      });
    },

    /** The operator was notified of these levels. */
    async recordNotified(levels: readonly { name: string; level: AlarmLevel }[], nowMs: number): Promise<void> {
      await control.query(
        `UPDATE alarms a SET notified_level = t.level, notified_at = ${fromMs("$2")}
         FROM jsonb_to_recordset($1::jsonb) AS t(name text, level text) WHERE a.name = t.name`,
        [JSON.stringify(levels), nowMs],
      );
    },
  };
}
