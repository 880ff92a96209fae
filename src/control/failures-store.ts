// Failures of single items of background work: one bad tenant, event or row never stops the others. `isolated` does the work
// for each item, logs what fails and records it here. An item that keeps failing is an alarm. The operator acknowledges it,
// and it counts again only when it keeps failing afterwards.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import { errorCode } from "../core/errors.ts";
import type { Row } from "../core/sql.ts";
import { storable } from "../core/text/text.ts";
import { toIso } from "../core/time.ts";
import { describeError, log } from "../log.ts";

export const Failure = z.object({
  part: z.string(),
  item: z.string(),
  error: z.string(),
  times: z.int(),
  firstAt: z.string(),
  lastAt: z.string(),
});
export type Failure = z.infer<typeof Failure>;

/** What a person must look at in tenants' subscriptions. It stays until it is over or acknowledged. */
export const SUBSCRIPTION_ISSUES = "subscriptions";

const MAX_ITEM_CHARS = 200;
/** A failure that did not come back for a week is over. */
const KEPT_DAYS = 7;

export function failuresStore(control: ControlDatabase) {
  return {
    /** Counts a failure for each of these items of a part. */
    async record(part: string, failures: ReadonlyMap<string, string>): Promise<void> {
      await control.query(
        `INSERT INTO failures AS f (part, item, error) SELECT $1, * FROM unnest($2::text[], $3::text[])
         ON CONFLICT (part, item) DO UPDATE SET error = excluded.error, times = f.times + 1, last_at = now()`,
        [part, [...failures.keys()], [...failures.values()]],
      );
    },

    /** Up to `limit` failures, the latest first. `after`: those that come after this one in the list. */
    async list(limit: number, after?: Pick<Failure, "lastAt" | "part" | "item">): Promise<Failure[]> {
      // Clients see milliseconds, so the order has no finer ones.
      const at = `date_trunc('milliseconds', last_at)`;
      const text = `SELECT part, item, error, times, ${toIso("first_at")} AS "firstAt", ${toIso("last_at")} AS "lastAt"
         FROM failures
         WHERE $2::timestamptz IS NULL OR ${at} < $2 OR (${at} = $2 AND (part, item) > ($3::text, $4::text))
         ORDER BY ${at} DESC, part, item LIMIT $1`;
      const from = [after?.lastAt ?? null, after?.part ?? null, after?.item ?? null];
      const how = { part: "failures", idOf: (row: Row) => `${String(row["part"])} ${String(row["item"])}` };
      return readableList(control, limit, Failure, how, (count) => control.query(text, [count, ...from]));
    },

    /** Forgets the failures of a part, or of one of its items. Returns how many there were. */
    async acknowledge(part: string, item: string | undefined): Promise<number> {
      const rows = await control.query(
        `DELETE FROM failures WHERE part = $1 AND ($2::text IS NULL OR item = $2) RETURNING item`,
        [part, item ?? null],
      );
      return rows.length;
    },

    /** Forgets failures that did not come back. */
    async prune(): Promise<void> {
      await control.query(`DELETE FROM failures WHERE last_at < now() - make_interval(days => $1) AND part <> $2`, [
        KEPT_DAYS,
        SUBSCRIPTION_ISSUES,
      ]);
    },
  };
}

export interface Isolation<Item> {
  /** Names the work in the log and in the table of failures: `lagging_inbox`. */
  part: string;
  /** The item's id. It is logged, so it must be no tenant data. */
  idOf: (item: Item) => string;
  /** Items at the same time. Without it, all. */
  atOnce?: number;
}

/**
 * Does the work for each item. An item that fails is logged and recorded, and holds back no other. Throws only when the
 * control database cannot be reached: then the other items would fail, too.
 */
export async function isolated<Item>(
  control: ControlDatabase,
  items: readonly Item[],
  { part, idOf, atOnce = items.length }: Isolation<Item>,
  work: (item: Item) => Promise<unknown>,
): Promise<void> {
  const failures = new Map<string, string>();
  let outage: { error: unknown } | undefined;
  const queue = items.values();
  const lane = async (): Promise<void> => {
    for (const item of queue) {
      if (outage !== undefined) return;
      try {
        await work(item);
      } catch (error) {
        if (errorCode(error) === "control_unavailable") outage = { error };
        else failures.set(storable(idOf(item), MAX_ITEM_CHARS), describeError(error));
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, lane));
  for (const [item, error] of failures) log("error", "item_failed", { part, item, error });
  if (failures.size > 0) {
    await failuresStore(control)
      .record(part, failures)
      .catch((error: unknown) => log("error", "failures_not_recorded", { part, error: describeError(error) }));
  }
  if (outage !== undefined) throw outage.error;
}

type Reading = Pick<Isolation<Row>, "part" | "idOf">;

/** The rows that the schema accepts. A row that it refuses is logged and recorded, and holds back no other. */
export async function readableRows<Schema extends z.ZodType>(
  control: ControlDatabase,
  rows: readonly Row[],
  schema: Schema,
  { part, idOf }: Reading,
): Promise<z.output<Schema>[]> {
  const read: z.output<Schema>[] = [];
  await isolated(control, rows, { part, idOf, atOnce: 1 }, async (row) => {
    read.push(schema.parse(row));
  });
  return read;
}

/**
 * Up to `limit` rows of a list that the schema accepts, as `readableRows` finds them. Fewer are the end of the list, so that rows
 * which cannot be read end no page too early. `read` reads the first rows of the list, up to a count.
 */
export async function readableList<Schema extends z.ZodType>(
  control: ControlDatabase,
  limit: number,
  schema: Schema,
  reading: Reading,
  read: (count: number) => Promise<readonly Row[]>,
): Promise<z.output<Schema>[]> {
  for (let count = limit; ; count *= 2) {
    const rows = await read(count);
    const isEnd = rows.length < count;
    if (isEnd || rows.filter((row) => schema.safeParse(row).success).length >= limit)
      return (await readableRows(control, rows, schema, reading)).slice(0, limit);
  }
}

/** Names a row by its column `id`. */
export function idOfRow(row: Row): string {
  return String(row["id"]);
}
