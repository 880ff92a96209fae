// Messages of the usage queue that could not be taken: kept as they were, shown, and sent again on demand. Each function is
// one transaction; each can be repeated.
import * as z from "zod";
import { instant } from "../control/tenants-store.ts";
import { type NeonConnection } from "../adapters/neon.ts";

export const DeadLetter = z.object({
  /** Of the queue's message. */
  id: z.string(),
  /** `core/dead-letter.ts` makes a body of it again. */
  body: z.string(),
  why: z.string(),
  receivedAt: z.string(),
  replayedAt: z.string().nullable(),
  dismissedAt: z.string().nullable(),
});
export type DeadLetter = z.infer<typeof DeadLetter>;

const columns = `id, body, why, ${instant("received_at")} AS "receivedAt", ${instant("replayed_at")} AS "replayedAt",
  ${instant("dismissed_at")} AS "dismissedAt"`;

/** Of letters that nobody has done anything about. */
const waiting = `replayed_at IS NULL AND dismissed_at IS NULL`;

export function deadLettersStore(db: NeonConnection) {
  return {
    /** Keeps messages. One that comes again changes nothing. */
    async keep(letters: readonly Pick<DeadLetter, "id" | "body" | "why">[]): Promise<void> {
      await db.query(
        // As arrays: a body may hold what PostgreSQL's JSON does not take.
        `INSERT INTO dead_letters (id, body, why) SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) ON CONFLICT DO NOTHING`,
        [letters.map(({ id }) => id), letters.map(({ body }) => body), letters.map(({ why }) => why)],
      );
    },

    /** Up to `limit` letters, the oldest first, after the letter `after`: those that wait, or all. */
    async list(limit: number, { after, all }: { after: string; all: boolean }): Promise<DeadLetter[]> {
      const rows = await db.query(
        `SELECT ${columns} FROM dead_letters
         WHERE ($3::boolean OR ${waiting})
           AND ($2 = '' OR (received_at, id) > (SELECT received_at, id FROM dead_letters WHERE id = $2))
         ORDER BY dead_letters.received_at, id LIMIT $1`,
        [limit, after, all],
      );
      return rows.map((row) => DeadLetter.parse(row));
    },

    /** These letters, also those that wait no more. */
    async byId(ids: readonly string[]): Promise<DeadLetter[]> {
      const rows = await db.query(`SELECT ${columns} FROM dead_letters WHERE id = ANY($1::text[]) ORDER BY id`, [
        [...ids],
      ]);
      return rows.map((row) => DeadLetter.parse(row));
    },

    /** These were sent again. */
    async replayed(ids: readonly string[]): Promise<void> {
      await db.query(`UPDATE dead_letters SET replayed_at = now() WHERE id = ANY($1::text[])`, [[...ids]]);
    },

    /** These are nothing to send again. Returns those that there are. */
    async dismissed(ids: readonly string[]): Promise<string[]> {
      const rows = await db.query(
        `UPDATE dead_letters SET dismissed_at = coalesce(dismissed_at, now()) WHERE id = ANY($1::text[]) RETURNING id`,
        [[...ids]],
      );
      return rows.map((row) => String(row["id"]));
    },

    /** How many wait for somebody to do something about them. */
    async waiting(): Promise<number> {
      const [row] = await db.query(`SELECT count(*)::int AS waiting FROM dead_letters WHERE ${waiting}`);
      return Number(row?.["waiting"]);
    },
  };
}
