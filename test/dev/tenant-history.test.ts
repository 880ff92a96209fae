// Reading a tenant's rows as of one moment, and restoring them, against PostgreSQL: with concurrent writes, values of all
// types, and attempts that come late or twice.
import { Client } from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { connectNeon } from "../../src/adapters/neon.ts";
import { type AsTenant, type Key, type Table, tablesOf } from "../../src/tenant-db/copy.ts";
import {
  type History,
  type RecoveryPoint,
  collectUndone,
  fileColumns,
  readChunkAt,
  readCollected,
  recoveryPoint,
} from "../../src/backups/history.ts";
import { type StagedRow, addRows, beginAttempt, replaceRows, stageRows } from "../../src/backups/staged-rows.ts";
import { type Shard, aContext, acme, globex, startShard } from "../support/shard.ts";

let shard: Shard;
const asTenant: AsTenant = (statements) => shard.db(acme).transaction(statements);

function history(chunkRows: number): History {
  return { owner: connectNeon(shard.ownerUrl, shard.fetchEndpoint), schema: "public", tenantId: acme, chunkRows };
}

beforeAll(async () => {
  shard = await startShard();
  await shard.superuser(`
    SET ROLE tollgate_owner;
    CREATE TABLE public.things (
      tenant_id text NOT NULL, place integer NOT NULL, name text COLLATE "C" NOT NULL, amount numeric, bits bytea, facts jsonb,
      at timestamptz, ratio float8, tags text[], lasts interval, PRIMARY KEY (tenant_id, place, name));
    SELECT tollgate.isolate('public.things');
    CREATE TABLE public.notes (tenant_id text NOT NULL, id integer NOT NULL, note text UNIQUE NULLS DISTINCT, PRIMARY KEY (tenant_id, id));
    ALTER TABLE public.notes DROP CONSTRAINT notes_note_key, ADD UNIQUE (tenant_id, note);
    SELECT tollgate.isolate('public.notes');
    RESET ROLE`);
});
afterAll(() => shard[Symbol.asyncDispose]());

async function tableNamed(name: string): Promise<Table> {
  const found = (await tablesOf(asTenant)).find((table) => table.name === name);
  if (found === undefined) throw new Error(`table ${name} does not exist`);
  return found;
}

/** All lines of a table at a point, and how many chunks they came in. */
async function linesAt(
  from: History,
  table: Table,
  point: RecoveryPoint,
): Promise<{ lines: string[]; chunks: number }> {
  const lines: string[] = [];
  let chunks = 0;
  for (let after: Key | null = null; ; chunks += 1) {
    const chunk = await readChunkAt(from, asTenant, table, point, after);
    lines.push(...chunk.text.split("\n").slice(0, -1));
    if (chunk.next === null) return { lines, chunks };
    after = chunk.next;
  }
}

let jobs = 100;

/** All lines of a table as of an instant, sorted, and the transactions undone with later ones. */
async function linesAsOf(from: History, table: Table, since: string): Promise<{ lines: string[]; dragged: string[] }> {
  const point = await recoveryPoint(from, { since, job: (jobs += 1) });
  const { earlier } = point;
  if (earlier === null) throw new Error("the point is not an earlier one");
  for (let after: number | null = 0; after !== null;) after = await collectUndone(from, earlier, after);
  const { lines } = await linesAt(from, table, point);
  for (let after: string | null = null; ;) {
    const { text, next } = await readCollected(from, table, earlier, after);
    lines.push(...text.split("\n").slice(0, -1));
    if (next === null) return { lines: lines.toSorted(), dragged: earlier.dragged };
    after = next;
  }
}

/** The rows as a plain query returns them, in key order. */
const truthOf = (name: string, columns: string[], order: string) =>
  `SELECT '["${name}",' || array_to_json(ARRAY[${columns.map((column) => `${column}::text`).join(", ")}])::text || ']' AS line
   FROM ${name} ORDER BY ${order}`;

const thingColumns = ["place", "name", "amount", "bits", "facts", "at", "ratio", "tags", "lasts"];
const truth = truthOf("things", thingColumns, "place, name");
const plain = `SET datestyle = 'ISO, MDY'; SET timezone = 'UTC'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1`;

/** A connection of the application's login with acme's context for its whole life. */
async function aWriter(): Promise<Client> {
  const client = new Client({ connectionString: shard.appUrl });
  await client.connect();
  await client.query(`SELECT set_config('tollgate.context', $1, false)`, [await aContext({ lifeMs: 300_000 })]);
  await client.query(plain);
  return client;
}

const someThing = `(SELECT 'n' || (random() * 30)::int), random() * 1e12, decode(md5(random()::text), 'hex'),
  CASE WHEN random() < 0.2 THEN 'null'::jsonb WHEN random() < 0.5 THEN jsonb_build_object('a"b', random(), 'é\\n', NULL) END,
  now() - random() * interval '9 years', random() / 3, ARRAY['x', NULL, E'y\\n"'], random() * interval '3 days'`;
const someWrites = [
  `INSERT INTO things (place, name, amount, bits, facts, at, ratio, tags, lasts) SELECT (random() * 8)::int, ${someThing}
   ON CONFLICT (tenant_id, place, name) DO UPDATE SET amount = excluded.amount, facts = excluded.facts`,
  `UPDATE things SET amount = amount + 1, bits = NULL WHERE name < 'n' || (random() * 30)::int`,
  `DELETE FROM things WHERE name = 'n' || (random() * 30)::int`,
  `UPDATE things SET name = name || 'k' WHERE place = (random() * 8)::int AND length(name) < 6`,
];

async function writesAtRandom(client: Client, random: () => number): Promise<void> {
  await client.query("BEGIN");
  try {
    for (let n = 0; n < 1 + random() * 3; n += 1) {
      await client.query(someWrites[Math.floor(random() * someWrites.length)] ?? "");
      await new Promise((resolve) => setTimeout(resolve, random() * 15));
    }
    await client.query(random() < 0.2 ? "ROLLBACK" : "COMMIT");
  } catch {
    await client.query("ROLLBACK"); // a deadlock, or a duplicate key
  }
}

test("rows read in chunks during writes are exactly the rows of one moment", async () => {
  const table = await tableNamed("things");
  const stop = new AbortController();
  const writers = await Promise.all(Array.from({ length: 3 }, aWriter));
  const writing = writers.map(async (client) => {
    while (!stop.signal.aborted) await writesAtRandom(client, Math.random);
  });
  const looking = await aWriter();
  let chunks = 0;
  // Until the writers have written enough rows for several chunks.
  for (let round = 0; round < 25 || (chunks <= 20 && round < 1_000); round += 1) {
    const chunkRows = 1 + Math.floor(Math.random() * 9);
    // An open snapshot gives the expected rows. The chunks are read long after it began.
    await looking.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    const seen = await looking.query<{ snapshot: string; lowest: string }>(
      `SELECT pg_current_snapshot()::text AS snapshot, pg_snapshot_xmin(pg_current_snapshot())::text AS lowest`,
    );
    const { snapshot = "", lowest = "" } = seen.rows[0] ?? {};
    const point: RecoveryPoint = { snapshot, lowest, takenAt: "", earlier: null };
    const read = await linesAt(history(chunkRows), table, point);
    const expected = (await looking.query<{ line: string }>(truth)).rows.map(({ line }) => line);
    await looking.query("COMMIT");
    expect(read.lines).toEqual(expected);
    chunks += read.chunks;
  }
  stop.abort();
  await Promise.all(writing);
  for (const client of [...writers, looking]) await client.end();
  expect(chunks).toBeGreaterThan(20);
});

test("a point in time of a random history has the rows recorded at that time", async () => {
  const table = await tableNamed("things");
  const client = await aWriter();
  const recorded: { at: string; lines: string[] }[] = [];
  for (let n = 0; n < 60; n += 1) {
    await writesAtRandom(client, Math.random);
    if (n % 6 !== 0) continue;
    const lines = (await client.query<{ line: string }>(truth)).rows.map(({ line }) => line);
    const at = await client.query<{ at: string }>(`SELECT clock_timestamp()::text AS at`);
    recorded.push({ at: at.rows[0]?.at ?? "", lines });
  }
  await client.end();
  for (const { at, lines } of recorded) {
    expect(await linesAsOf(history(7), table, at)).toEqual({ lines: lines.toSorted(), dragged: [] });
  }
});

test("at a point in time a transaction is kept or undone as a whole", async () => {
  const table = await tableNamed("notes");
  await shard.db(acme).query(`INSERT INTO notes (id, note) VALUES (1, 'one'), (2, 'two'), (3, 'three')`);
  const [stays, dragged, furtherDragged, late] = await Promise.all([aWriter(), aWriter(), aWriter(), aWriter()]);
  for (const client of [stays, dragged, furtherDragged]) {
    await client.query("BEGIN");
    await client.query("SELECT now()");
  }
  const [row] = await shard.db(acme).query<{ at: string }>(`SELECT clock_timestamp()::text AS at`);
  const at = row?.at ?? "";
  await late.query(`UPDATE notes SET note = 'late' WHERE id = 1`);
  // Began before the point, then changed a row that a later transaction had changed. A third one builds on that.
  await dragged.query(`UPDATE notes SET note = note || ' and dragged' WHERE id = 1`);
  await dragged.query(`INSERT INTO notes (id, note) VALUES (4, 'dragged')`);
  await dragged.query("COMMIT");
  await furtherDragged.query(`UPDATE notes SET note = 'further' WHERE id = 4`);
  await furtherDragged.query(`DELETE FROM notes WHERE id = 3`);
  await furtherDragged.query("COMMIT");
  // Began before the point and touches no row of a later transaction.
  await stays.query(`UPDATE notes SET note = 'stays' WHERE id = 2`);
  await stays.query("COMMIT");
  for (const client of [stays, dragged, furtherDragged, late]) await client.end();

  const found = await linesAsOf(history(2), table, at);
  expect(found.dragged).toHaveLength(2);
  expect(found.lines).toEqual(['["notes",["1","one"]]', '["notes",["2","stays"]]', '["notes",["3","three"]]']);
});

test("session settings do not change what the log records", async () => {
  const table = await tableNamed("things");
  const client = await aWriter();
  await client.query(
    `INSERT INTO things (place, name, at, ratio, lasts, bits) VALUES (99, 'set', '2026-03-04 05:06:07.123456+02', 0.1::float8 + 0.2, '1 mon 2 days', '\\x00ff')`,
  );
  const before = (await client.query<{ line: string }>(truth)).rows.map(({ line }) => line);
  const at = await client.query<{ at: string }>(`SELECT clock_timestamp()::text AS at`);
  await client.query(
    `SET datestyle = 'German'; SET timezone = 'Asia/Tokyo'; SET extra_float_digits = -5; SET intervalstyle = 'iso_8601'; SET bytea_output = 'escape'`,
  );
  await client.query(`DELETE FROM things WHERE place = 99`);
  await client.end();
  expect((await linesAsOf(history(50), table, at.rows[0]?.at ?? "")).lines).toEqual(before.toSorted());
});

// ---- restoring rows

async function putBack(table: Table, lines: readonly string[], job: number): Promise<void> {
  const owner = connectNeon(shard.ownerUrl, shard.fetchEndpoint);
  const rows: StagedRow[] = lines.map((line, index) => ({
    line: index + 1,
    table: table.name,
    cells: (JSON.parse(line) as [string, string[]])[1],
  }));
  await stageRows(owner, { tenantId: acme, job }, rows);
  await stageRows(owner, { tenantId: acme, job }, rows); // as after a lost answer
  expect(await beginAttempt(owner, { tenantId: acme, job }, 1)).toBe(false);
  const file = { name: table.name, columns: fileColumns(table), keys: [] };
  await replaceRows(asTenant, { job, attempt: 1 }, [{ file, rows: lines.length, target: table }]);
}

test("one transaction restores the rows, and touches only this tenant's rows that differ", async () => {
  const table = await tableNamed("things");
  const point = await recoveryPoint(history(50), null);
  const { lines } = await linesAt(history(50), table, point);
  expect(lines.length).toBeGreaterThan(5);
  await shard.superuser(`INSERT INTO things (tenant_id, place, name) VALUES ('globex', 1, 'theirs')`);
  await shard.db(acme).query(`DELETE FROM things WHERE place < 5`);
  await shard.db(acme).query(`INSERT INTO things (place, name) VALUES (1000, 'more')`);
  const [change] = await shard
    .db(acme)
    .query<{ name: string }>(`UPDATE things SET facts = '{}' WHERE place = 6 RETURNING name`);
  const [before] = await shard.superuser(`SELECT max(n) AS n FROM tollgate.changes`);
  await putBack(table, lines, 1);
  expect((await linesAt(history(50), table, await recoveryPoint(history(50), null))).lines).toEqual(lines);
  const [noted] = await shard.superuser(`SELECT count(*)::int AS n FROM tollgate.changes WHERE n > $1`, [
    before?.["n"],
  ]);
  expect(noted?.["n"]).toBeLessThanOrEqual(lines.length);
  expect(change === undefined || lines.some((line) => line.includes(change.name))).toBe(true);
  // The log records the transaction like any other.
  expect(await shard.db(globex).query(`SELECT name FROM things`)).toEqual([{ name: "theirs" }]);
  await putBack(table, lines, 2);
  const [again] = await shard.superuser(`SELECT max(n) AS n FROM tollgate.changes`);
  expect(Number(again?.["n"]) - Number(before?.["n"])).toBe(noted?.["n"]);
});

test("unique values that two rows exchanged are restored", async () => {
  const table = await tableNamed("notes");
  const { lines } = await linesAt(history(50), table, await recoveryPoint(history(50), null));
  await shard.db(acme).query(`UPDATE notes SET note = id || '?'`);
  await shard
    .db(acme)
    .query(`UPDATE notes SET note = CASE id WHEN 1 THEN 'stays' WHEN 2 THEN 'late and dragged' ELSE note END`);
  await putBack(table, lines, 3);
  expect((await linesAt(history(50), table, await recoveryPoint(history(50), null))).lines).toEqual(lines);
});

test("rows that the tables refuse, and incomplete rows, change nothing", async () => {
  const table = await tableNamed("notes");
  const { lines } = await linesAt(history(50), table, await recoveryPoint(history(50), null));
  await expect(putBack(table, ['["notes",["1","a"]]', '["notes",["2","a"]]'], 4)).rejects.toThrow(/23505/);
  await expect(putBack(table, ['["notes",["x","a"]]'], 5)).rejects.toThrow(/22P02/);
  const owner = connectNeon(shard.ownerUrl, shard.fetchEndpoint);
  await stageRows(owner, { tenantId: acme, job: 6 }, [{ line: 1, table: "notes", cells: ["1", "a"] }]);
  await beginAttempt(owner, { tenantId: acme, job: 6 }, 1);
  const file = { name: "notes", columns: fileColumns(table), keys: [] };
  await expect(replaceRows(asTenant, { job: 6, attempt: 1 }, [{ file, rows: 2, target: table }])).rejects.toThrow(
    /TG003/,
  );
  expect((await linesAt(history(50), table, await recoveryPoint(history(50), null))).lines).toEqual(lines);
});

test("rows are restored once, although attempts come late and answers are lost", async () => {
  const table = await tableNamed("notes");
  const owner = connectNeon(shard.ownerUrl, shard.fetchEndpoint);
  const ids = { tenantId: acme, job: 8 };
  const file = { name: "notes", columns: fileColumns(table), keys: [] };
  const put = (attempt: number) => replaceRows(asTenant, { job: 8, attempt }, [{ file, rows: 1, target: table }]);
  await stageRows(owner, ids, [{ line: 1, table: "notes", cells: ["1", "put back"] }]);
  await expect(put(1)).rejects.toThrow(/TG003/); // never begun
  expect(await beginAttempt(owner, ids, 1)).toBe(false);
  expect(await beginAttempt(owner, ids, 2)).toBe(false);
  await expect(put(1)).rejects.toThrow(/TG003/);
  await put(2);
  await shard.db(acme).query(`UPDATE notes SET note = 'written since'`);
  expect(await beginAttempt(owner, ids, 3)).toBe(true);
  await expect(put(3)).rejects.toThrow(/TG003/);
  expect(await shard.db(acme).query(`SELECT note FROM notes`)).toEqual([{ note: "written since" }]);
});

test("rows staged for one tenant are invisible to another", async () => {
  const owner = connectNeon(shard.ownerUrl, shard.fetchEndpoint);
  await stageRows(owner, { tenantId: acme, job: 7 }, [{ line: 1, table: "notes", cells: ["1", "secret"] }]);
  const rows = `SELECT count(*)::int AS n FROM tollgate.staged_rows(7, 'notes')`;
  expect(await shard.db(acme).query(rows)).toEqual([{ n: 1 }]);
  expect(await shard.db(globex).query(rows)).toEqual([{ n: 0 }]);
  await expect(shard.db(acme).query(`SELECT FROM tollgate.staged`)).rejects.toThrow(/42501/);
});

test("imported rows keep existing rows, or replace them with overwrite", async () => {
  const table = await tableNamed("notes");
  await asTenant([
    addRows(
      table,
      ["id", "note"],
      [
        ["50", "imported"],
        ["51", null],
      ],
      { overwrite: false },
    ),
  ]);
  await asTenant([
    addRows(
      table,
      ["note", "id"],
      [
        ["other", "50"],
        ["new", "52"],
      ],
      { overwrite: false },
    ),
  ]);
  const rows = `SELECT id, note FROM notes WHERE id >= 50 ORDER BY id`;
  const first = [
    { id: 50, note: "imported" },
    { id: 51, note: null },
    { id: 52, note: "new" },
  ];
  expect(await shard.db(acme).query(rows)).toEqual(first);
  await asTenant([addRows(table, ["note", "id"], [["other", "50"]], { overwrite: true })]);
  expect(await shard.db(acme).query(rows)).toEqual([{ id: 50, note: "other" }, ...first.slice(1)]);
});
