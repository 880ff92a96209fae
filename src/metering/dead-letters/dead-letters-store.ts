// Dead letters: usage messages that could not be written to the ledger, with their bodies unchanged. The operator lists them
// and replays or dismisses them. Each function is one transaction and can be repeated.
import * as z from "zod";
import { idOfRow, readableList } from "../../control/failures-store.ts";
import type { ControlDatabase } from "../../control/context.ts";
import { storable } from "../../core/text/text.ts";
import { toIso } from "../../core/time.ts";

export const DeadLetter = z.object({
  /** The id of the queue message. */
  id: z.string(),
  /** The message's body as text, written by `textOfBody`. */
  body: z.string(),
  why: z.string(),
  receivedAt: z.string(),
  replayedAt: z.string().nullable(),
  dismissedAt: z.string().nullable(),
});
export type DeadLetter = z.infer<typeof DeadLetter>;

const columns = `id, body, why, ${toIso("received_at")} AS "receivedAt", ${toIso("replayed_at")} AS "replayedAt",
  ${toIso("dismissed_at")} AS "dismissedAt"`;

/** Letters that were neither replayed nor dismissed. */
const waiting = `replayed_at IS NULL AND dismissed_at IS NULL`;

export function deadLettersStore(control: ControlDatabase) {
  return {
    /** Stores messages. Storing one again changes nothing. */
    async keep(letters: readonly Pick<DeadLetter, "id" | "body" | "why">[]): Promise<void> {
      await control.query(
        // Arrays, because a body may hold text that PostgreSQL's JSON refuses.
        `INSERT INTO dead_letters (id, body, why) SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) ON CONFLICT DO NOTHING`,
        // A NUL in a body that is no JSON is the only character that the column refuses.
        [
          letters.map(({ id }) => id),
          letters.map(({ body }) => storable(body, body.length)),
          letters.map(({ why }) => why),
        ],
      );
    },

    /** Up to `limit` letters after the letter `after`, the oldest first. Without `all`, only those that wait. */
    async list(limit: number, { after, all }: { after: string; all: boolean }): Promise<DeadLetter[]> {
      return readableList(control, limit, DeadLetter, { part: "dead_letters", idOf: idOfRow }, (count) =>
        control.query(
          `SELECT ${columns} FROM dead_letters
           WHERE ($3::boolean OR ${waiting})
             AND ($2 = '' OR (received_at, id) > (SELECT received_at, id FROM dead_letters WHERE id = $2))
           ORDER BY dead_letters.received_at, id LIMIT $1`,
          [count, after, all],
        ),
      );
    },

    /** These letters, including replayed and dismissed ones. */
    async byId(ids: readonly string[]): Promise<DeadLetter[]> {
      const rows = await control.query(`SELECT ${columns} FROM dead_letters WHERE id = ANY($1::text[]) ORDER BY id`, [
        [...ids],
      ]);
      return rows.map((row) => DeadLetter.parse(row));
    },

    /** Records that these letters were sent to the queue again. */
    async replayed(ids: readonly string[]): Promise<void> {
      await control.query(`UPDATE dead_letters SET replayed_at = now() WHERE id = ANY($1::text[])`, [[...ids]]);
    },

    /** Records that these letters will never be replayed. Returns the ids that exist. */
    async dismissed(ids: readonly string[]): Promise<string[]> {
      const rows = await control.query(
        `UPDATE dead_letters SET dismissed_at = coalesce(dismissed_at, now()) WHERE id = ANY($1::text[]) RETURNING id`,
        [[...ids]],
      );
      return rows.map((row) => String(row["id"]));
    },

    /** Number of letters that wait for the operator. */
    async waiting(): Promise<number> {
      const [row] = await control.query(`SELECT count(*)::int AS waiting FROM dead_letters WHERE ${waiting}`);
      return Number(row?.["waiting"]);
    },
  };
}
