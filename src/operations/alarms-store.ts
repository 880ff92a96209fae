// How each figure of metering and billing stands, since when, and what the operator was told of it.
import type { AlarmLevel, Reading } from "./indicators.ts";
import type { NeonConnection } from "../adapters/neon.ts";

export interface AlarmRecord {
  name: string;
  level: AlarmLevel;
  sinceMs: number;
  told: { level: AlarmLevel; atMs: number } | undefined;
}

export function alarmsStore(db: NeonConnection) {
  return {
    /** Takes the readings over and returns the record of each. `since` moves when a level changes. */
    async take(readings: readonly Pick<Reading, "name" | "level" | "value">[], nowMs: number): Promise<AlarmRecord[]> {
      const rows = await db.query(
        `INSERT INTO alarms AS a (name, level, value, since)
         SELECT r.name, r.level, r.value, to_timestamp($2::double precision / 1000)
         FROM jsonb_to_recordset($1::jsonb) AS r(name text, level text, value double precision) ORDER BY r.name
         ON CONFLICT (name) DO UPDATE SET level = excluded.level, value = excluded.value,
           since = CASE WHEN a.level = excluded.level THEN a.since ELSE excluded.since END
         RETURNING name, level, (extract(epoch FROM since) * 1000)::double precision AS "sinceMs", told_level AS "toldLevel",
                   (extract(epoch FROM told_at) * 1000)::double precision AS "toldAtMs"`,
        [JSON.stringify(readings.map(({ name, level, value }) => ({ name, level, value }))), nowMs],
      );
      return rows.map(({ name, level, sinceMs, toldLevel, toldAtMs }) => ({
        name: String(name),
        level: level as AlarmLevel,
        sinceMs: Number(sinceMs),
        told: toldLevel === null ? undefined : { level: toldLevel as AlarmLevel, atMs: Number(toldAtMs) },
      }));
    },

    /** The operator has been told of these levels. */
    async told(levels: readonly { name: string; level: AlarmLevel }[], nowMs: number): Promise<void> {
      await db.query(
        `UPDATE alarms a SET told_level = t.level, told_at = to_timestamp($2::double precision / 1000)
         FROM jsonb_to_recordset($1::jsonb) AS t(name text, level text) WHERE a.name = t.name`,
        [JSON.stringify(levels), nowMs],
      );
    },
  };
}
