// The audit log of a whole system: what people and programs do over HTTP is in the chain of its tenant, once, also when the control
// database goes away in between, and a tool call costs nothing for it.
import { afterEach, expect, test } from "vitest";
import {
  type TestTenant,
  aCustomer,
  aTenant,
  callTool,
  controlRows,
  databaseFaults,
  fireCron,
  operator,
  system,
  until,
} from "../support/flow.ts";
import { anAdminKey, asAdmin, leaves, reaches } from "../support/removals.ts";

afterEach(async () => {
  await databaseFaults([]);
});

interface Event {
  id: string;
  tenantId: string | null;
  position: number;
  actor: { kind: string; id: string | null; name: string | null };
  action: string;
  target: string | null;
  outcome: string;
  status: number | null;
  requestId: string | null;
  address: string | null;
  detail: Record<string, unknown>;
  previousHash: string;
}

async function ask(query: Record<string, string>): Promise<Event[]> {
  const response = await operator("GET", `/audit?${new URLSearchParams(query).toString()}`);
  expect(response.status, await response.clone().text()).toBe(200);
  return ((await response.json()) as { events: Event[] }).events;
}

/** The event of a request, which is stored after the answer. */
async function eventOf(response: Response): Promise<Event> {
  const requestId = response.headers.get("x-request-id") ?? "";
  await until(async () => (await ask({ requestId })).length > 0, `request ${requestId} is recorded`);
  const events = await ask({ requestId });
  expect(events).toHaveLength(1);
  return events[0] as Event;
}

/** The events of a tenant, oldest first, as its own admin sees them. */
async function own(tenant: TestTenant, key: string): Promise<Event[]> {
  const response = await asAdmin(tenant, key, "GET", "/audit");
  expect(response.status, await response.clone().text()).toBe(200);
  return ((await response.json()) as { events: Event[] }).events.toReversed();
}

test("a customer's life is in its chain: order, first key, changes, downloads, refusals; the operator's person and address are not shown", async () => {
  const tenant = await aCustomer({ plan: "pro", name: "Audited" });
  const admin = await anAdminKey(tenant.id);
  const renamed = await asAdmin(tenant, admin, "PATCH", "", { name: "Audited & renamed" });
  expect(await eventOf(renamed)).toMatchObject({
    action: "changeOwnAccount",
    outcome: "succeeded",
    detail: { fields: "name" },
  });
  const refused = await asAdmin(tenant, admin, "POST", "/remove", { name: "Another name" });
  expect(await eventOf(refused)).toMatchObject({ action: "removeOwnAccount", outcome: "refused", status: 400 });
  const exported = await asAdmin(tenant, admin, "GET", "/export");
  await exported.text();
  expect(await eventOf(exported)).toMatchObject({ action: "exportOwnData", outcome: "succeeded" });
  expect(await eventOf(await operator("POST", `/tenants/${tenant.id}/suspend`))).toMatchObject({
    ...{ action: "suspendTenant", tenantId: tenant.id, target: tenant.id, detail: { state: "suspended" } },
    actor: { kind: "operator", id: "operator-token", name: "Operator token" },
  });
  await operator("POST", `/tenants/${tenant.id}/resume`);
  await until(
    async () => (await own(tenant, admin)).some(({ action }) => action === "resumeTenant"),
    "all are recorded",
  );
  const events = await own(tenant, admin);
  expect(events.map(({ position }) => position)).toEqual(events.map((_, index) => index + 1));
  expect(events.map(({ action }) => action)).toEqual(
    expect.arrayContaining([
      "createFirstKey",
      "createKey",
      "changeOwnAccount",
      "exportOwnData",
      "suspendTenant",
      "resumeTenant",
    ]),
  );
  for (const { actor, address } of events.filter((each) => each.actor.kind === "operator"))
    expect({ actor, address }).toEqual({
      actor: { kind: "operator", id: null, name: null, onBehalfOf: null },
      address: null,
    });
  const ordered = (await ask({ action: "createCheckout" })).find(({ target }) => target === tenant.id);
  expect(ordered).toMatchObject({ tenantId: null, actor: { kind: "anonymous" }, outcome: "succeeded" });
  // The export has the chain, and no other tenant's.
  const again = await asAdmin(tenant, admin, "GET", "/export");
  const lines = (await again.text())
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as { audit?: Event });
  const inExport = lines.flatMap(({ audit }) => audit ?? []);
  expect(inExport.slice(0, events.length)).toEqual(events);
  expect(inExport.every(({ tenantId }) => tenantId === tenant.id)).toBe(true);
  expect(lines.at(-1)).toHaveProperty("end");
});

test("a created key, link and tenant are named by their ids, and a repeated request says that it is one", async () => {
  const tenant = await aTenant();
  const [first] = await ask({ tenant: tenant.id, action: "createTenant" });
  expect(first).toMatchObject({ target: tenant.id, tenantId: tenant.id, position: 1 });
  const headers = {
    authorization: `Bearer ${system.operatorToken}`,
    "content-type": "application/json",
    "idempotency-key": crypto.randomUUID(),
  };
  const create = () =>
    fetch(`${system.publicUrl}/admin/api/tenants/${tenant.id}/keys`, {
      method: "POST",
      headers,
      body: JSON.stringify({ name: "x" }),
    });
  const created = await create();
  const { id } = (await created.clone().json()) as { id: string };
  expect(await eventOf(created)).toMatchObject({
    action: "createKey",
    target: id,
    status: 201,
    detail: { role: "admin" },
  });
  expect((await eventOf(await create())).detail).toMatchObject({ replayed: true });
  expect(await eventOf(await operator("DELETE", `/tenants/${tenant.id}/keys/${id}`))).toMatchObject({
    action: "revokeKey",
    target: id,
  });
});

test("a refusal across tenants is in the chain of the credential's tenant, is counted, and the operator lists it", async () => {
  const [tenant, other] = await Promise.all([aTenant(), aTenant()]);
  const admin = await anAdminKey(tenant.id);
  const crossed = await asAdmin(other, admin, "GET", "/usage");
  expect(crossed.status).toBe(404);
  expect(await eventOf(crossed)).toMatchObject({
    ...{ action: "tenant.cross", tenantId: tenant.id, target: other.id, outcome: "refused", status: 404 },
    actor: { kind: "key" },
  });
  await asAdmin(other, admin, "POST", "/portal", {});
  const listed = async () =>
    (
      (await (await operator("GET", "/cross-tenant-attempts")).json()) as {
        crossings: { tenantId: string; attempts: number }[];
      }
    ).crossings;
  await until(
    async () => (await listed()).some(({ tenantId, attempts }) => tenantId === tenant.id && attempts === 2),
    "both count",
  );
  expect((await listed()).some(({ tenantId }) => tenantId === other.id)).toBe(false);
  expect((await ask({ tenant: other.id })).some(({ action }) => action === "tenant.cross")).toBe(false);
});

test("a control database that goes away after the act fails no request, and the act is recorded once it is back", async () => {
  const tenant = await aTenant();
  await databaseFaults([{ kind: "refuse-before", sql: "INSERT INTO audit_events" }]);
  const suspended = await operator("POST", `/tenants/${tenant.id}/suspend`);
  expect(suspended.status).toBe(200);
  const requestId = suspended.headers.get("x-request-id") ?? "";
  expect(await controlRows(`SELECT action FROM audit_intents WHERE id = $1`, [requestId])).toEqual([
    { action: "suspendTenant" },
  ]);
  await databaseFaults([]);
  expect(await eventOf(suspended)).toMatchObject({ action: "suspendTenant", outcome: "succeeded" });
  expect(await controlRows(`SELECT FROM audit_intents WHERE id = $1`, [requestId])).toEqual([]);
});

test("an act whose record was given up has its note, and the sweep records it with the outcome unknown", async () => {
  const tenant = await aTenant();
  const id = crypto.randomUUID();
  await controlRows(
    `INSERT INTO audit_intents (id, tenant_id, at, actor_kind, actor_id, action, request_id) VALUES ($1, $2, now() - interval '2 hours', 'operator', 'o1', 'removeTenant', $1)`,
    [id, tenant.id],
  );
  await fireCron("* * * * *");
  expect(await ask({ requestId: id })).toEqual([
    expect.objectContaining({ tenantId: tenant.id, action: "removeTenant", outcome: "unknown", status: null }),
  ]);
});

test("a note that cannot be written stops no act, and a lost answer of the database makes no second row", async () => {
  const tenant = await aTenant();
  await databaseFaults([
    { kind: "refuse-before", sql: "INSERT INTO audit_intents", times: 1 },
    { kind: "lose-after", sql: "INSERT INTO audit_events", times: 1 },
  ]);
  const suspended = await operator("POST", `/tenants/${tenant.id}/suspend`);
  expect(suspended.status).toBe(200);
  expect(await eventOf(suspended)).toMatchObject({ outcome: "succeeded" });
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  const requestId = suspended.headers.get("x-request-id");
  expect(await controlRows(`SELECT count(*)::int AS n FROM audit_events WHERE request_id = $1`, [requestId])).toEqual([
    { n: 1 },
  ]);
});

test("Stripe's acts and the end of a removal are recorded as such, and the removed tenant's chain stays", async () => {
  const tenant = await aCustomer({ plan: "pro", name: "Leaves in the log" });
  const [row] = await controlRows<{ subscription: string }>(
    `SELECT stripe_subscription_id AS subscription FROM tenants WHERE id = $1`,
    [tenant.id],
  );
  await leaves(tenant.id);
  await operator("POST", `/tenants/${tenant.id}/remove?now=true`, { name: "Leaves in the log" });
  await reaches(tenant.id, "done");
  const events = await ask({ tenant: tenant.id });
  expect(events.map(({ action }) => action)).toContain("removal.finish");
  expect(events.find(({ action }) => action === "removal.finish")).toMatchObject({
    actor: { kind: "tollgate" },
    outcome: "succeeded",
  });
  const received = await ask({ action: "receiveStripeEvent" });
  expect(received[0]).toMatchObject({
    actor: { kind: "stripe" },
    tenantId: null,
    target: expect.stringMatching(/^evt_\S+ \S+$/),
  });
  expect(JSON.stringify(received)).not.toContain(row?.subscription ?? "sub_");
});

test("a tool call writes nothing to the audit log", async () => {
  const tenant = await aTenant();
  const count = async () =>
    (
      await controlRows<{ n: number }>(`SELECT count(*)::int AS n FROM audit_events WHERE tenant_id = $1`, [tenant.id])
    )[0]?.n;
  await until(async () => (await ask({ tenant: tenant.id, action: "createKey" })).length > 0, "the key is recorded");
  const before = await count();
  for (let n = 0; n < 5; n += 1) await callTool(tenant.apiKey, "search_products", { query: "" });
  expect(await count()).toBe(before);
});

test("the sweep verifies the chains of a running system, and finds none broken", async () => {
  const tenant = await aTenant();
  await until(async () => (await ask({ tenant: tenant.id, action: "createKey" })).length > 0, "the key is recorded");
  await until(async () => {
    await fireCron("* * * * *");
    const [row] = await controlRows<{ end: number }>(
      `SELECT verified_position::int AS end FROM audit_checks WHERE chain = $1`,
      [tenant.id],
    );
    return (row?.end ?? 0) > 0;
  }, "the chain is verified");
  expect(
    await controlRows(`SELECT chain, broken_position, broken_by FROM audit_checks WHERE broken_position IS NOT NULL`),
  ).toEqual([]);
});
