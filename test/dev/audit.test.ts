// The audit log in a real PostgreSQL: its rows never change, its hashes are those that the program computes, many writers make one
// chain, and a change behind its back is found.
import fc from "fast-check";
import { Client } from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { appendTogether } from "../../src/identity/audit/append.ts";
import { type AuditEvent, auditOutcomes, hashOf, verifyRows } from "../../src/identity/audit/audit.ts";
import { checkAuditChains, verifyChain } from "../../src/identity/audit/check.ts";
import { auditStore } from "../../src/identity/audit/audit-store.ts";
import { crossingsStore } from "../../src/identity/audit/crossings-store.ts";
import { type AuditLog, anEvent, startAuditLog } from "../support/audit-log.ts";

let log: AuditLog;
beforeAll(async () => void (log = await startAuditLog()), 60_000);
afterAll(() => log[Symbol.asyncDispose]());

test("the service and the owner can insert rows and neither change, delete nor empty them, and the service chooses no place and no hash", async () => {
  const tenantId = await log.aTenant();
  await log.append(tenantId, 1);
  for (const url of [log.serviceUrl, log.ownerUrl]) {
    const client = new Client({ connectionString: url });
    await client.connect();
    const refused = url === log.serviceUrl ? /permission denied/ : /never change/;
    for (const statement of [
      `UPDATE audit_events SET action = 'other'`,
      `UPDATE audit_events SET hash = hash`,
      `DELETE FROM audit_events`,
      `TRUNCATE audit_events`,
    ])
      await expect(client.query(statement), statement).rejects.toThrow(refused);
    await client.end();
  }
  const client = new Client({ connectionString: log.serviceUrl });
  await client.connect();
  for (const statement of [
    `INSERT INTO audit_events (id, actor_kind, action, outcome, position) VALUES ('x', 'key', 'a', 'succeeded', 7)`,
    `INSERT INTO audit_events (id, actor_kind, action, outcome, hash) VALUES ('x', 'key', 'a', 'succeeded', 'h')`,
    `INSERT INTO audit_events (id, actor_kind, action, outcome, recorded_at) VALUES ('x', 'key', 'a', 'succeeded', now())`,
    `UPDATE audit_chains SET position = 0`,
    `DELETE FROM audit_chains`,
    `DELETE FROM audit_intents`,
    `SELECT audit_append()`,
  ])
    await expect(client.query(statement), statement).rejects.toThrow(/permission denied|trigger functions/);
  await client.end();
  expect(await log.rowsOf(tenantId)).toHaveLength(1);
});

test("the hash that the database writes is the one that the program computes, for any texts and details", async () => {
  const tenantId = await log.aTenant();
  const Text = fc.oneof(
    fc.constant(null),
    fc.string({ unit: "binary", maxLength: 30 }).map((text) => text.toWellFormed().replaceAll("\0", "")),
  );
  const Value = fc.oneof(
    Text.map((text) => text ?? ""),
    fc.maxSafeInteger(),
    fc.boolean(),
  );
  const events = fc.sample(
    fc.record({
      actorId: Text,
      actorName: Text,
      onBehalfOf: Text,
      target: Text,
      code: Text,
      requestId: Text,
      address: Text,
      action: Text.map((text) => text ?? ""),
      outcome: fc.constantFrom(...auditOutcomes.filter((outcome) => outcome !== "refused")),
      status: fc.oneof(fc.constant(null), fc.integer({ min: 100, max: 599 })),
      atMs: fc.integer({ min: 0, max: 4_000_000_000_000 }),
      detail: fc.dictionary(fc.stringMatching(/^[a-zA-Z_]{1,12}$/), Value, { maxKeys: 6 }),
    }),
    { numRuns: 150, seed: 7 },
  );
  for (const event of events) await log.store.append(anEvent({ tenantId, ...event }));
  const rows = await log.rowsOf(tenantId);
  expect(rows).toHaveLength(events.length);
  for (const [index, row] of rows.entries()) {
    expect(await hashOf(row), JSON.stringify(row)).toBe(row.hash);
    expect(row).toMatchObject(events[index] ?? {});
  }
  expect((await verifyChain(log.store, await log.chainOf(tenantId))).broken).toBeUndefined();
});

test("many writers at the same time, each of which repeats its events, make one chain without a gap or a fork", async () => {
  const [one, two] = [await log.aTenant(), await log.aTenant()];
  const events = Array.from({ length: 120 }, (_, n) =>
    anEvent({ tenantId: n % 3 === 0 ? two : one, action: `act${n}` }),
  );
  const connections = Array.from({ length: 6 }, () => log.connect());
  await Promise.all(
    connections.map(async (connection, writer) => {
      for (const [n, event] of events.entries())
        // Three writers send each event.
        if (n % 2 === writer % 2) await auditStore(connection).append(event);
    }),
  );
  for (const [tenantId, count] of [
    [one, 80],
    [two, 40],
  ] as const) {
    const rows = await log.rowsOf(tenantId);
    expect(rows.map(({ position }) => position)).toEqual(Array.from({ length: count }, (_, n) => n + 1));
    expect(new Set(rows.map(({ id }) => id)).size).toBe(count);
    expect((await verifyChain(log.store, await log.chainOf(tenantId))).broken).toBeUndefined();
  }
});

test("events of requests at the same moment are stored once each with few transactions, and a bad one holds back no other", async () => {
  const [one, two] = [await log.aTenant(), await log.aTenant()];
  let batches = 0;
  const counted = {
    ...log.control,
    query: (...args: Parameters<typeof log.control.query>) => ((batches += 1), log.control.query(...args)),
  };
  const append = (events: AuditEvent[]) => Promise.allSettled(events.map((event) => appendTogether(counted, event)));
  const events = Array.from({ length: 40 }, (_, n) => anEvent({ tenantId: n % 2 === 0 ? one : two, atMs: 40 - n }));
  const outcomes = await append([...events, ...events.slice(0, 5)]);
  expect(outcomes.every(({ status }) => status === "fulfilled")).toBe(true);
  expect(batches).toBeLessThanOrEqual(2);
  const [bad, good] = await append([anEvent({ tenantId: one, target: "a\0b" }), anEvent({ tenantId: one })]);
  expect([bad?.status, good?.status]).toEqual(["rejected", "fulfilled"]);
  for (const [tenantId, count] of [
    [one, 21],
    [two, 20],
  ] as const) {
    const rows = await log.rowsOf(tenantId);
    // The first event came alone. Those that came meanwhile are in the order of their times.
    const crowd = new Set(events.slice(1).map(({ id }) => id));
    const together = rows.filter(({ id }) => crowd.has(id)).map(({ atMs }) => atMs);
    expect(together).toEqual(together.toSorted((a, b) => a - b));
    expect(new Set(rows.map(({ id }) => id)).size).toBe(count);
    expect((await verifyChain(log.store, await log.chainOf(tenantId))).broken).toBeUndefined();
  }
});

test("an event whose transaction is rolled back leaves no gap, and one whose answer is lost is stored once", async () => {
  const tenantId = await log.aTenant();
  const event = anEvent({ tenantId });
  await log.store.append(event);
  const client = new Client({ connectionString: log.serviceUrl });
  await client.connect();
  await client.query(`BEGIN`);
  await client.query(
    `INSERT INTO audit_events (id, tenant_id, actor_kind, action, outcome) VALUES ('gone', $1, 'key', 'a', 'succeeded')`,
    [tenantId],
  );
  await client.query(`ROLLBACK`);
  await client.end();
  await log.store.append(event);
  await log.store.append(anEvent({ tenantId }));
  expect((await log.rowsOf(tenantId)).map(({ position }) => position)).toEqual([1, 2]);
});

test("an act that was noted and never recorded gets the outcome unknown; a recorded one leaves no note", async () => {
  const tenantId = await log.aTenant();
  const [recorded, lost, young] = [anEvent({ tenantId }), anEvent({ tenantId }), anEvent({ tenantId })];
  const hourAgoMs = Date.now() - 3_700_000;
  for (const event of [recorded, lost]) await log.store.intend({ ...event, atMs: hourAgoMs });
  await log.store.intend(young);
  await log.store.append(recorded);
  expect(await log.store.closeIntents(3_600_000, 50)).toBe(1);
  expect(await log.store.closeIntents(3_600_000, 50)).toBe(0);
  // The answer comes after all, too late.
  await log.store.append(lost);
  expect((await log.rowsOf(tenantId)).map(({ id, outcome }) => ({ id, outcome }))).toEqual([
    { id: recorded.id, outcome: "succeeded" },
    { id: lost.id, outcome: "unknown" },
  ]);
  expect(await log.sql(`SELECT id FROM audit_intents WHERE tenant_id = $1`, [tenantId])).toEqual([{ id: young.id }]);
});

test("an event of no tenant that exists is in the deployment's chain", async () => {
  const event = anEvent({ tenantId: "made-up", target: "made-up" });
  await log.store.append(event);
  expect((await log.rowsOf("")).find(({ id }) => id === event.id)).toMatchObject({ tenantId: null, target: "made-up" });
});

test("a chain takes 30 refused requests a minute, counts the others, and takes every act", async () => {
  const tenantId = await log.aTenant();
  for (let n = 0; n < 40; n += 1) await log.store.append(anEvent({ tenantId, outcome: "refused", status: 403 }));
  await log.append(tenantId, 3);
  expect(await log.rowsOf(tenantId)).toHaveLength(33);
  expect((await log.chainOf(tenantId)).leftOut).toBe(10);
  await log.sql(`UPDATE audit_chains SET refused_since = now() - interval '2 minutes' WHERE chain = $1`, [tenantId]);
  await log.store.append(anEvent({ tenantId, outcome: "refused" }));
  expect(await log.rowsOf(tenantId)).toHaveLength(34);
});

test("the counter of attempts across tenants is exact while the rows are bounded, and names only targets that exist", async () => {
  const [tenantId, target] = [await log.aTenant(), await log.aTenant()];
  const crossings = crossingsStore(log.control);
  const counted = await Promise.all(Array.from({ length: 50 }, () => crossings.count(tenantId, target)));
  expect(counted.every((each) => each?.target === target)).toBe(true);
  expect(await crossings.count(tenantId, "no-such-tenant")).toEqual({ target: null });
  expect(await crossings.count("no-such-tenant", target)).toBeUndefined();
  expect((await crossings.list(10)).find((each) => each.tenantId === tenantId)).toMatchObject({ attempts: 51 });
  expect((await log.store.state()).crossTenantAttempts).toBeGreaterThanOrEqual(51);
});

test("the sweep's check finds each kind of change at its row, keeps the alarm, and ends it once the chain is right", async () => {
  const context = { control: log.control };
  const pass = async (): Promise<void> => {
    for (let n = 0; n < 30; n += 1) await checkAuditChains(context);
  };
  const brokenOf = async (tenantId: string) => (await log.chainOf(tenantId)).broken;
  const changes: [change: (tenantId: string) => Promise<void>, broken: { position: number; by: string }][] = [
    [
      (id) => log.behindItsBack(`UPDATE audit_events SET action = 'other' WHERE tenant_id = $1 AND position = 3`, [id]),
      { position: 3, by: "content" },
    ],
    [
      (id) =>
        log.behindItsBack(`UPDATE audit_events SET detail = '{"a": [1]}' WHERE tenant_id = $1 AND position = 4`, [id]),
      { position: 4, by: "content" },
    ],
    [
      (id) => log.behindItsBack(`DELETE FROM audit_events WHERE tenant_id = $1 AND position = 2`, [id]),
      { position: 2, by: "missing" },
    ],
    [
      (id) => log.behindItsBack(`DELETE FROM audit_events WHERE tenant_id = $1 AND position = 5`, [id]),
      { position: 5, by: "missing" },
    ],
    [
      async (id) => {
        await log.behindItsBack(`DELETE FROM audit_events WHERE tenant_id = $1 AND position = 5`, [id]);
        await log.sql(
          `UPDATE audit_chains SET position = 4, hash = (SELECT hash FROM audit_events WHERE chain = $1 AND position = 4) WHERE chain = $1`,
          [id],
        );
      },
      { position: 5, by: "end" },
    ],
  ];
  const tenants: string[] = [];
  for (const _ of changes) {
    const tenantId = await log.aTenant();
    await log.append(tenantId, 5);
    tenants.push(tenantId);
  }
  await pass();
  for (const tenantId of tenants)
    expect(await log.chainOf(tenantId)).toMatchObject({ broken: null, verified: { position: 5 } });
  const kept = await log.sql(`SELECT * FROM audit_events WHERE tenant_id = $1 ORDER BY position`, [tenants[2]]);
  for (const [index, [change]] of changes.entries()) await change(tenants[index] ?? "");
  await pass();
  for (const [index, [, broken]] of changes.entries()) {
    expect(await brokenOf(tenants[index] ?? ""), String(index)).toEqual(broken);
    expect((await verifyChain(log.store, await log.chainOf(tenants[index] ?? ""))).broken, String(index)).toEqual(
      broken,
    );
  }
  expect((await log.store.state()).brokenAuditChains).toBe(changes.length);
  // The row comes back as it was.
  const { chain: _, ...row } = kept[1] ?? {};
  const names = Object.keys(row);
  await log.behindItsBack(
    `INSERT INTO audit_events (${names.join(", ")}) OVERRIDING SYSTEM VALUE VALUES (${names.map((__, n) => `$${n + 1}`).join(", ")})`,
    Object.values(row),
  );
  await pass();
  expect(await brokenOf(tenants[2] ?? "")).toBeNull();
  await log.sql(`DELETE FROM audit_checks`);
});

test("rows are deleted after 400 days, from the start of the chain and once a day, and the rest still verifies", async () => {
  const tenantId = await log.aTenant();
  await log.append(tenantId, 6);
  const age = (position: string, days: number) =>
    log.behindItsBack(
      `UPDATE audit_events SET recorded_at = now() - make_interval(days => ${days}) WHERE tenant_id = $1 AND position ${position}`,
      [tenantId],
    );
  const broken = async () => (await verifyChain(log.store, await log.chainOf(tenantId))).broken;
  await age("<= 3", 400);
  await log.sql(`UPDATE audit_chains SET anchor_position = 0 WHERE chain = $1`, [tenantId]);
  expect(await log.store.prune(1_000)).toBe(0); // no row is a day too old
  await age("<= 3", 402);
  // A person who deletes by hand is refused, also for old rows.
  await expect(log.sql(`DELETE FROM audit_events WHERE tenant_id = $1 AND position <= 3`, [tenantId])).rejects.toThrow(
    /never change/,
  );
  expect(await log.store.prune(1_000)).toBe(3);
  expect(await log.rowsOf(tenantId)).toHaveLength(3);
  expect(await log.chainOf(tenantId)).toMatchObject({ anchor: { position: 3 }, end: { position: 6 } });
  expect(await broken()).toBeUndefined();
  await log.append(tenantId, 1);
  expect(await broken()).toBeUndefined();
  const rows = await log.rowsOf(tenantId);
  expect(await verifyRows(rows, (await log.chainOf(tenantId)).anchor)).not.toHaveProperty("broken");
  await log.behindItsBack(`DELETE FROM audit_events WHERE tenant_id = $1 AND position = 4`, [tenantId]);
  expect(await broken()).toEqual({ position: 4, by: "missing" });
});

test("Stripe's and Tollgate's own acts are in the transaction that does them; an operator's suspension is not one of them", async () => {
  const tenantId = await log.aTenant();
  const actions = async () => (await log.rowsOf(tenantId)).map(({ action, actorKind }) => `${actorKind} ${action}`);
  const to = (state: string, by: string | null) =>
    log.control.query(`UPDATE tenants SET state = $2, suspended_by = $3, version = version + 1 WHERE id = $1`, [
      tenantId,
      state,
      by,
    ]);
  await to("suspended", "operator");
  await to("active", null);
  expect(await actions()).toEqual([]);
  await to("past_due", null);
  await to("active", null);
  await to("suspended", "billing");
  await to("active", null);
  await log.control.query(`INSERT INTO removals (tenant_id, asked_by, from_state) VALUES ($1, 'billing', 'active')`, [
    tenantId,
  ]);
  await log.control.query(`UPDATE removals SET step = 'undone' WHERE tenant_id = $1`, [tenantId]);
  await log.control.query(`INSERT INTO removals (tenant_id, asked_by, from_state) VALUES ($1, 'operator', 'active')`, [
    tenantId,
  ]);
  await to("gone", null);
  await log.control.query(`UPDATE removals SET step = 'erase' WHERE tenant_id = $1 AND step <> 'undone'`, [tenantId]);
  await log.control.query(`SELECT erase_tenant($1)`, [tenantId]);
  expect(await actions()).toEqual([
    ...["stripe stripe.past_due", "stripe stripe.resume", "stripe stripe.suspend", "stripe stripe.resume"],
    ...["stripe stripe.end", "tollgate removal.undo", "tollgate removal.finish"],
  ]);
  expect((await verifyChain(log.store, await log.chainOf(tenantId))).broken).toBeUndefined();
});

test("the list filters by each field, and a tenant cannot find an operator's id by asking for it", async () => {
  const tenantId = await log.aTenant();
  const base = Date.parse("2026-11-01T00:00:00Z");
  await log.store.append(anEvent({ tenantId, action: "a", atMs: base, requestId: "q1" }));
  await log.store.append(
    anEvent({ tenantId, action: "b", atMs: base + 1_000, actorKind: "key", actorId: "k1", outcome: "failed" }),
  );
  const list = async (filter: Partial<Parameters<AuditLog["store"]["list"]>[0]>) =>
    (await log.store.list({ tenantId: tenantId as never, limit: 10, seesOperators: true, ...filter })).map(
      ({ action }) => action,
    );
  expect(await list({})).toEqual(["b", "a"]);
  expect(await list({ limit: 1 })).toEqual(["b"]);
  expect(await list({ actor: "o1" })).toEqual(["a"]);
  expect(await list({ actor: "o1", seesOperators: false })).toEqual([]);
  expect(await list({ actor: "operator", seesOperators: false })).toEqual(["a"]);
  expect(await list({ actor: "k1", seesOperators: false })).toEqual(["b"]);
  expect(await list({ action: "b" })).toEqual(["b"]);
  expect(await list({ outcome: "failed" })).toEqual(["b"]);
  expect(await list({ requestId: "q1" })).toEqual(["a"]);
  expect(await list({ from: "2026-11-01T00:00:01Z" })).toEqual(["b"]);
  expect(await list({ to: "2026-11-01T00:00:01Z" })).toEqual(["a"]);
  const [last] = await log.store.list({ tenantId: tenantId as never, limit: 1, seesOperators: true });
  expect(await list({ before: last?.seq })).toEqual(["a"]);
});
