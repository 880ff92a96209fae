// What all lists and all creating requests have in common, against a whole system.
import { expect, onTestFinished, test, vi } from "vitest";
import * as z from "zod";
import { endpoints } from "../../src/pages/endpoints.ts";
import { type TestTenant, aTenant, controlRows, operator, system } from "../support/flow.ts";

// Classes of the platform, which exist only in workerd.
vi.mock("cloudflare:workers", () => ({ DurableObject: Object, WorkflowEntrypoint: Object, RpcTarget: Object }));
vi.mock("cloudflare:workflows", () => ({ NonRetryableError: Error }));

interface Page {
  next: string | null;
}

/** The items of a list of the operator's API, read in pages of one. */
async function walk(path: string, name: string, most = 20): Promise<Record<string, unknown>[]> {
  const items: Record<string, unknown>[] = [];
  let after: string | null | undefined;
  while (after !== null && items.length < most) {
    const query = new URLSearchParams({ limit: "1", ...(after !== undefined && { after }) });
    const answer = await operator("GET", `${path}?${query.toString()}`);
    expect(answer.status, `${path}?${query.toString()}`).toBe(200);
    const page = (await answer.json()) as Page & Record<string, Record<string, unknown>[]>;
    expect(page[name]?.length, path).toBeLessThanOrEqual(1);
    items.push(...(page[name] ?? []));
    after = page.next;
  }
  return items;
}

/** The first page of the same list. */
async function whole(path: string, name: string): Promise<Record<string, unknown>[]> {
  const page = (await (await operator("GET", path)).json()) as Record<string, Record<string, unknown>[]>;
  return page[name] ?? [];
}

/** Both, read while the list did not change: other tests' work may still run in this system. */
async function bothWays(path: string, name: string, keyOf: (item: Record<string, unknown>) => unknown) {
  const keys = async () => (await whole(path, name)).map(keyOf);
  for (let look = 1; ; look += 1) {
    const all = await keys();
    const walked = (await walk(path, name)).map(keyOf);
    if (look === 10 || JSON.stringify(await keys()) === JSON.stringify(all)) return { all, walked };
  }
}

/** Sends a creating request. */
async function create(path: string, key: string, body?: unknown) {
  const response = await fetch(`${system.publicUrl}/admin/api${path}`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${system.operatorToken}`,
      "idempotency-key": key,
      ...(body !== undefined && { "content-type": "application/json" }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

test("every list of the operator's comes in pages of any size, each item once and in the same order", async () => {
  const { id } = await aTenant();
  for (const number of [1, 2, 3])
    await operator("POST", `/tenants/${id}/links`, {
      issuer: system.issuerUrl,
      organisation: `org ${number} of ${id}`,
    });
  for (let count = 0; count < 2; count += 1) {
    expect((await operator("POST", `/tenants/${id}/backups`, {})).status).toBe(202);
    expect((await operator("POST", `/tenants/${id}/plan`, { plan: "free" })).status).toBe(200);
  }
  // Failures and conflicts of one instant, in which only the rest of the cursor tells them apart.
  const part = `test of ${id}`;
  await controlRows(`INSERT INTO failures (part, item, error) SELECT $1, i, 'none' FROM unnest($2::text[]) AS i`, [
    part,
    ["a", "b", "c"],
  ]);
  await controlRows(
    `INSERT INTO ledger_conflicts (call_id, incoming) SELECT $1, jsonb_build_object('n', n) FROM generate_series(1, 3) AS n`,
    [part],
  );
  onTestFinished(async () => {
    await controlRows(`DELETE FROM failures WHERE part = $1`, [part]);
    await controlRows(`DELETE FROM ledger_conflicts WHERE call_id = $1`, [part]);
  });
  const lists: [path: string, name: string, least: number][] = [
    [`/tenants/${id}/links`, "links", 3],
    [`/tenants/${id}/backups`, "backups", 2],
    [`/tenants/${id}/plan`, "changes", 2],
    [`/tenants/${id}/move`, "moves", 0],
    [`/tenants/${id}/restores`, "restores", 0],
    ["/tenants", "tenants", 1],
    ["/failures", "failures", 3],
    ["/usage-conflicts", "conflicts", 3],
    ["/dead-letters", "deadLetters", 0],
    ["/stripe-events", "events", 0],
    ["/migrations", "runs", 0],
    ["/shards", "shards", 1],
    ["/meter-errors", "days", 0],
    ["/audit", "events", 1],
    ["/cross-tenant-attempts", "crossings", 0],
  ];
  const keyOf = (item: Record<string, unknown>): unknown => item["id"] ?? [item["item"], item["incoming"], item];
  for (const [path, name, least] of lists) {
    const { all, walked } = await bothWays(path, name, keyOf);
    expect(all.length, path).toBeGreaterThanOrEqual(least);
    expect(walked, path).toEqual(all.slice(0, 20));
    const refused = await operator("GET", `${path}?limit=0`);
    expect(await refused.json(), path).toMatchObject({ code: "bad_request", detail: expect.stringContaining("limit") });
  }
  for (const path of [
    "/failures",
    "/usage-conflicts",
    "/shards",
    "/meter-errors",
    "/cross-tenant-attempts",
    `/tenants/${id}/links`,
  ])
    expect((await operator("GET", `${path}?after=made-up`)).status, path).toBe(400);
});

test("a tenant whose row cannot be read hides no other tenant from the list", async () => {
  const ids = ["aa-unreadable", "zz-unreadable"]; // at both ends of the list
  await controlRows(
    `INSERT INTO tenants (id, name, plan, strategy, state, limits) SELECT i, i, 'free', 'shared', 'suspended', '{}' FROM unnest($1::text[]) i`,
    [ids],
  );
  onTestFinished(async () => {
    await controlRows(`DELETE FROM tenants WHERE id = ANY ($1)`, [ids]);
    await controlRows(`DELETE FROM failures WHERE part = 'tenants'`, []);
  });
  await Promise.all([aTenant(), aTenant()]);
  const { all, walked } = await bothWays("/tenants", "tenants", (tenant) => tenant["id"]);
  for (const each of ids) expect(all).not.toContain(each);
  expect(walked).toEqual(all.slice(0, 20));
  // The last tenant that can be read has the last page, although a row comes after it.
  const newest = await controlRows<{ id: string }>(
    `SELECT id FROM tenants WHERE NOT id = ANY ($1) ORDER BY id DESC LIMIT 2`,
    [ids],
  );
  const [last, before] = newest.map((row) => row.id);
  const page = await operator("GET", `/tenants?limit=1&after=${before}`);
  expect(await page.json()).toMatchObject({ tenants: [{ id: last }], next: null });
});

/** SQL: three rows `i` of a tenant, the second of them with an instant `at` that is none. */
const three = `FROM (SELECT i, $1::text AS tenant, CASE WHEN i = ($2::text[])[2] THEN 'infinity' ELSE date_trunc('milliseconds', now()) END AS at
  FROM unnest($2::text[]) AS i) AS planted`;
const soon = `now() + interval '5 minutes'`;

/**
 * Every list of the operator's, with three rows that have the texts `i`. PostgreSQL has an instant `infinity`, which no constraint of
 * the tables refuses and no list can show. Two lists cannot have such a row here. In the audit log it would break a chain that the cron
 * verifies; test/core/failures.test.ts has it. Root keys are counts of a column that is never null.
 */
const planted: { part: string; path: string; name: string; marks: string[]; insert: string; names?: string[] }[] = [
  {
    ...{ part: "keys", path: "/tenants/:id/keys", name: "keys", marks: ["api_keys.name"] },
    insert: `INSERT INTO api_keys (tenant_id, id, name, hash, root_key, scopes, line_id, created_by_kind, created_at)
      SELECT tenant, i, i, i, 'none', '{}', i, 'operator', at ${three}`,
  },
  {
    ...{ part: "links", path: "/tenants/:id/links", name: "links", marks: ["tenant_links.organisation"] },
    insert: `INSERT INTO tenant_links (issuer, organisation, tenant_id, created_at) SELECT 'https://issuer.example', i, tenant, at ${three}`,
  },
  {
    ...{ part: "sessions", path: "/tenants/:id/sessions", name: "sessions" },
    marks: ["members.name", "sessions.name"],
    insert: `WITH made AS (INSERT INTO members (tenant_id, id, name, role, issuer, subject)
        SELECT tenant, i, i, 'member', 'https://issuer.example', i ${three})
      INSERT INTO sessions (id_hash, issuer, subject, name, created_at, last_seen_at, expires_at)
      SELECT md5(i), 'https://issuer.example', i, i, at, now(), ${soon} ${three}`,
  },
  {
    ...{ part: "members", path: "/tenants/:id/members", name: "members", marks: ["members.name"] },
    insert: `INSERT INTO members (tenant_id, id, name, role, created_at) SELECT tenant, i, i, 'member', at ${three}`,
  },
  {
    ...{ part: "plan_changes", path: "/tenants/:id/plan", name: "changes", marks: ["plan_changes.error"] },
    insert: `INSERT INTO plan_changes (tenant_id, from_plan, plan, strategy, limits, requested_by, state, error, requested_at)
      SELECT tenant, 'free', 'free', 'shared', '{}', 'operator', 'done', i, at ${three}`,
  },
  {
    ...{ part: "moves", path: "/tenants/:id/move", name: "moves", marks: ["moves.error"] },
    insert: `INSERT INTO moves (tenant_id, state, strategy, from_placement, error, started_at)
      SELECT tenant, 'undone', 'shared', (SELECT placement_id FROM tenants WHERE id = tenant), i, at ${three}`,
  },
  ...(["backup", "restore"] as const).map((kind) => ({
    ...{ part: "jobs", path: `/tenants/:id/${kind}s`, name: `${kind}s`, marks: ["jobs.error"] },
    insert: `INSERT INTO jobs (tenant_id, kind, state, request, error, started_at)
      SELECT tenant, '${kind}', 'failed', jsonb_build_object('key', i), i, at ${three}`,
  })),
  {
    ...{ part: "impersonations", path: "/tenants/:id/impersonations", name: "impersonations" },
    marks: ["impersonations.reason"],
    insert: `INSERT INTO impersonations (id, tenant_id, operator_id, operator_name, through, reason, created_at, expires_at)
      SELECT i, tenant, 'o', 'o', 'token', i, at, ${soon} ${three}`,
  },
  {
    ...{ part: "cross_tenant_attempts", path: "/cross-tenant-attempts", name: "crossings" },
    ...{ marks: ["cross_tenant_attempts.day"], names: ["2001-01-01", "2001-01-02", "2001-01-03"] },
    insert: `INSERT INTO cross_tenant_attempts (tenant_id, day, last_at) SELECT tenant, i::date, at ${three}`,
  },
  {
    ...{ part: "meter_errors", path: "/meter-errors", name: "days", marks: ["meter_errors.code"] },
    insert: `INSERT INTO meter_errors (event_id, code, errors, report_ids, from_at, until_at) SELECT i, i, 1, '{}', now(), at ${three}`,
  },
  {
    // Closed, so that no tenant is placed there. A closed shard is in the list while it has tenants.
    ...{ part: "shards", path: "/shards", name: "shards", marks: ["placements.shard_id", "shards.id"] },
    insert: `WITH made AS (INSERT INTO shards (id, strategy, region, capacity, accepts, created_at)
        SELECT i, 'schema', 'nowhere', 1, false, at ${three})
      INSERT INTO placements (tenant_id, shard_id) SELECT tenant, i ${three}`,
  },
  {
    ...{ part: "dead_letters", path: "/dead-letters", name: "deadLetters", marks: ["dead_letters.id"] },
    insert: `INSERT INTO dead_letters (id, body, why, received_at) SELECT i, '{}', 'none', at ${three}`,
  },
  {
    ...{ part: "usage_conflicts", path: "/usage-conflicts", name: "conflicts", marks: ["ledger_conflicts.call_id"] },
    insert: `INSERT INTO ledger_conflicts (call_id, incoming, seen_at) SELECT i, '{}', at ${three}`,
  },
  {
    ...{ part: "stripe_events", path: "/stripe-events", name: "events", marks: ["webhook_inbox.event_id"] },
    insert: `INSERT INTO webhook_inbox (event_id, type, received_at, applied_at, outcome) SELECT i, 'none', at, now(), 'refused' ${three}`,
  },
  {
    ...{ part: "failures", path: "/failures", name: "failures", marks: ["failures.item"] },
    insert: `INSERT INTO failures (part, item, error, last_at) SELECT 'of a test', i, 'none', at ${three}`,
  },
  {
    ...{ part: "migration_runs", path: "/migrations", name: "runs", marks: ["migration_runs.reason"] },
    insert: `INSERT INTO migration_runs (state, started_by, options, runner, reason, started_at)
      SELECT 'done', 'a test', '{}', 'terminal', i, at ${three}`,
  },
];

let tenantOfLists: Promise<TestTenant> | undefined;
test.each(planted)(
  "a row of $path that cannot be read hides no other row of $name, and is recorded",
  async ({
    part,
    path,
    name,
    marks,
    insert,
    names = ["a", "b", "c"].map((each) => `${each}-${crypto.randomUUID()}`),
  }) => {
    tenantOfLists ??= aTenant();
    const { id } = await tenantOfLists;
    onTestFinished(async () => {
      for (const [table = "", column = ""] of marks.map((mark) => mark.split(".")))
        await controlRows(`DELETE FROM ${table} WHERE ${column}::text = ANY ($1)`, [names]);
      await controlRows(`DELETE FROM failures WHERE part = $1`, [part]);
    });
    await controlRows(insert, [id, names]);
    const [first = "", , last = ""] = names;
    const list = path.replace(":id", id);
    /** Which of the three an answer has. */
    const found = (items: readonly Record<string, unknown>[]): string[] =>
      items
        .filter((item) => item["part"] !== part)
        .flatMap((item) => names.filter((each) => JSON.stringify(item).includes(each)).slice(0, 1))
        .toSorted();
    expect(found(await whole(list, name))).toEqual([first, last]);
    expect(found(await walk(list, name, 60))).toEqual([first, last]);
    expect(await controlRows(`SELECT FROM failures WHERE part = $1`, [part])).toHaveLength(1);
  },
);

test("a backup, a plan change and a monitor token that are sent twice with one Idempotency-Key exist once", async () => {
  const { id } = await aTenant();
  const key = crypto.randomUUID();
  const backup = await create(`/tenants/${id}/backups`, key, {});
  expect(backup.status).toBe(202);
  expect(await create(`/tenants/${id}/backups`, key, {})).toEqual(backup);
  expect(await whole(`/tenants/${id}/backups`, "backups")).toHaveLength(1);

  const changed = await create(`/tenants/${id}/plan`, key, { plan: "free" });
  expect(changed.status).toBe(200);
  expect(await create(`/tenants/${id}/plan`, key, { plan: "free" })).toEqual(changed);
  expect(await whole(`/tenants/${id}/plan`, "changes")).toHaveLength(1);

  const token = await create(`/tenants/${id}/monitor-token`, key);
  expect(token.status).toBe(201);
  expect(await create(`/tenants/${id}/monitor-token`, key)).toEqual(token);
  expect((await create(`/tenants/${id}/monitor-token`, crypto.randomUUID())).body).not.toEqual(token.body);

  // The answer was not kept, and the lease of the dead request has ended: the repetition finds what the first run opened.
  await controlRows(
    `UPDATE idempotent_requests SET answer = NULL, locked_until = now() - interval '1 second' WHERE key = $1 AND scope LIKE '%/backups'`,
    [key],
  );
  const again = await create(`/tenants/${id}/backups`, key, {});
  expect({ status: again.status, id: again.body["id"] }).toEqual({ status: 202, id: backup.body["id"] });
  expect(await whole(`/tenants/${id}/backups`, "backups")).toHaveLength(1);
});

test("what GET routes answer is what the API reference says", async () => {
  const { id } = await aTenant();
  const issued = await operator("POST", `/tenants/${id}/keys`, {
    name: "admin",
    scopes: ["tools:read", "tenant:admin"],
  });
  const { apiKey } = (await issued.json()) as { apiKey: string };
  expect((await operator("POST", `/tenants/${id}/backups`, {})).status).toBe(202);
  expect((await operator("POST", `/tenants/${id}/plan`, { plan: "free" })).status).toBe(200);
  let compared = 0;
  for (const [name, { answers }] of Object.entries(endpoints)) {
    const [method, path = ""] = name.split(" ");
    const filled = path.replace(":tenantId", id);
    if (method !== "GET" || filled.includes(":")) continue;
    const isOperators = path.startsWith("/admin/") || path.endsWith("/status") || path === "/health";
    const token = isOperators ? system.operatorToken : apiKey;
    const answer = await fetch(`${system.publicUrl}${filled}`, { headers: { authorization: `Bearer ${token}` } });
    // Nothing is being removed.
    if (path.endsWith("/removal")) expect(answer.status, name).toBe(404);
    const schema = answers[answer.status];
    if (schema instanceof z.ZodType) {
      const parsed = schema.safeParse(await answer.json());
      expect(parsed.error?.issues, name).toBeUndefined();
      compared += 1;
    } else await answer.body?.cancel();
  }
  expect(compared).toBeGreaterThan(20);
});
