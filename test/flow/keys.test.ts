// API keys from outside: restrictions hold under load, and each change is in force on the next request.
import { expect, onTestFinished, test } from "vitest";
import { periodOf } from "../../src/calls/admission.ts";
import {
  aTenant,
  callTool,
  endObject,
  modernMeta,
  objectFault,
  operator,
  postMcp,
  setClock,
  storedCalls,
  system,
  type TestTenant,
  type ToolAnswer,
} from "../support/flow.ts";

const unlimited = { unitsPerHour: null, unitsPerMonth: null, callsPerMinute: null, callsInFlight: 200 };

interface Key {
  id: string;
  apiKey: string;
  prefix: string;
  expiresAt: string | null;
  replaces?: { id: string; endsAt: string };
}
interface Listed {
  id: string;
  prefix: string;
  name: string;
  tools: string[] | null;
  lastUsedAt: string | null;
  unitsUsed: number | null;
  expiresAt: string | null;
  revokedAt: string | null;
  replacedBy: string | null;
  createdBy: { kind: string; id: string | null };
}

async function aKey(tenant: TestTenant, request: Record<string, unknown> = {}): Promise<Key> {
  const response = await operator("POST", `/tenants/${tenant.id}/keys`, request);
  expect(response.status).toBe(201);
  return (await response.json()) as Key;
}

const rotated = (
  tenant: TestTenant,
  { id }: { id: string },
  request: Record<string, unknown> = {},
): Promise<Response> => operator("POST", `/tenants/${tenant.id}/keys/${id}/rotate`, request);

async function listed(tenant: TestTenant): Promise<Listed[]> {
  const response = await operator("GET", `/tenants/${tenant.id}/keys`);
  const { keys, usageKnown } = (await response.json()) as { keys: Listed[]; usageKnown: boolean };
  expect(usageKnown).toBe(true);
  return keys;
}

async function listedKey(tenant: TestTenant, { id }: { id: string }): Promise<Listed> {
  const key = (await listed(tenant)).find((each) => each.id === id);
  if (key === undefined) throw new Error(`key ${id} is not listed`);
  return key;
}

const search = (token: string): Promise<ToolAnswer> => callTool(token, "search_products", { query: "" });
/** The HTTP status of a call that is free. */
const statusOf = async (token: string): Promise<number> =>
  (
    await postMcp(token, {
      ...{ jsonrpc: "2.0", id: 1, method: "tools/call" },
      params: { name: "get_usage", arguments: {}, _meta: modernMeta },
    })
  ).status;

async function toolsOf(token: string): Promise<string[]> {
  const response = await postMcp(token, { jsonrpc: "2.0", id: 1, method: "tools/list", params: { _meta: modernMeta } });
  const { result } = (await response.json()) as { result: { tools: { name: string }[] } };
  return result.tools.map(({ name }) => name).toSorted();
}

test("of 50 calls at once, a budget admits exactly its units; a restart keeps them, and the next month renews them", async () => {
  const tenant = await aTenant({ plan: "starter", limits: unlimited });
  onTestFinished(() => setClock(tenant.id, 0));
  const key = await aKey(tenant, { unitsPerMonth: 20 });
  const failing = (): Promise<ToolAnswer> =>
    callTool(key.apiKey, "run_sql", { statements: ["SELECT 1"], fail: true }).catch(() => search(key.apiKey));
  const calls = Array.from({ length: 50 }, (_, n) => (n % 5 === 0 ? failing() : search(key.apiKey)));
  const answers = await Promise.all(calls);
  const charged = answers.filter(({ receipt }) => receipt !== undefined).length;
  expect(charged).toBeLessThanOrEqual(20);
  // A call that failed held its unit for a moment, and gave it back.
  for (let more = charged; more < 20; more += 1) expect((await search(key.apiKey)).receipt).toMatchObject({ units: 1 });
  const refused = await search(key.apiKey);
  expect(refused.refusal).toMatchObject({ code: "key_budget_exhausted", limit: 20, used: 20, cost: 1 });
  const { endsAtMs } = periodOf(Date.now());
  expect(refused.text).toContain(new Date(endsAtMs).toISOString().slice(0, 16));
  expect(refused.refusal?.upgradeUrl).toBeUndefined();
  expect(await storedCalls(tenant.id)).toHaveLength(20);
  expect((await callTool(key.apiKey, "get_usage")).data).toMatchObject({ key: { limit: 20, used: 20, left: 0 } });
  expect(await listedKey(tenant, key)).toMatchObject({ unitsUsed: 20 });

  // Another key of the tenant has no budget.
  expect((await search(tenant.apiKey)).receipt).toMatchObject({ units: 1 });
  await endObject(tenant.id);
  expect((await search(key.apiKey)).refusal).toMatchObject({ code: "key_budget_exhausted", used: 20 });
  // An hour later the rows have left the window, and their units have not left the month.
  const raised = await operator("PATCH", `/tenants/${tenant.id}/keys/${key.id}`, { unitsPerMonth: 21 });
  expect(await raised.json()).toMatchObject({ delivered: true, unitsPerMonth: 21, unitsUsed: 20 });
  expect((await search(key.apiKey)).receipt).toMatchObject({ units: 1 });
  expect((await search(key.apiKey)).refusal).toMatchObject({ code: "key_budget_exhausted", limit: 21, used: 21 });
  await setClock(tenant.id, endsAtMs - Date.now() + 1_000);
  expect((await search(key.apiKey)).receipt).toMatchObject({ units: 1 });
});

test("a revocation is in force on the very next call of each of 50 agents", async () => {
  const tenant = await aTenant({ plan: "starter", limits: unlimited });
  const key = await aKey(tenant);
  let revokedAtMs = Infinity;
  const wrong: number[] = [];
  const agent = async (): Promise<void> => {
    for (let after = 0; after < 3;) {
      const began = performance.now();
      const status = await statusOf(key.apiKey);
      if (began > revokedAtMs) after += 1;
      if (began > revokedAtMs && status !== 401) wrong.push(status);
    }
  };
  const agents = Array.from({ length: 50 }, agent);
  await new Promise((resolve) => setTimeout(resolve, 300));
  const answer = await operator("DELETE", `/tenants/${tenant.id}/keys/${key.id}`);
  expect(await answer.json()).toMatchObject({ revoked: true, delivered: true });
  revokedAtMs = performance.now();
  await Promise.all(agents);
  expect(wrong).toEqual([]);
  expect(await listedKey(tenant, key)).toMatchObject({ revokedAt: expect.any(String) });
}, 60_000);

test("a rotation gives a key with the same rights and the same budget, and the old one ends after the overlap", async () => {
  const tenant = await aTenant({ plan: "starter", limits: unlimited });
  onTestFinished(() => setClock(tenant.id, 0));
  const tools = ["get_usage", "search_products"];
  const old = await aKey(tenant, { name: "agent", scopes: ["tools:read"], tools, unitsPerMonth: 3 });
  await search(old.apiKey);
  const response = await rotated(tenant, old, { overlapHours: 1 });
  expect(response.status).toBe(201);
  const next = (await response.json()) as Key;
  expect(next).toMatchObject({
    ...{ name: "agent", scopes: ["tools:read"], tools, unitsPerMonth: 3, expiresAt: null, delivered: true },
    replaces: { id: old.id, endsAt: expect.any(String) },
  });
  expect(next.apiKey.startsWith(`${next.prefix}.`)).toBe(true);
  for (const { apiKey } of [old, next]) expect((await search(apiKey)).receipt).toMatchObject({ units: 1 });
  for (const { apiKey } of [old, next])
    expect((await search(apiKey)).refusal).toMatchObject({ code: "key_budget_exhausted", used: 3 });
  expect(await listedKey(tenant, old)).toMatchObject({ replacedBy: next.id, unitsUsed: 3 });

  const again = await rotated(tenant, old);
  expect([again.status, ((await again.json()) as { detail: string }).detail]).toEqual([
    409,
    `The key was rotated before. Its successor is ${next.id}.`,
  ]);
  // A successor that was revoked by mistake can be replaced. The old key does not live longer for it.
  expect((await operator("DELETE", `/tenants/${tenant.id}/keys/${next.id}`)).status).toBe(200);
  const second = (await (await rotated(tenant, old, { overlapHours: 168 })).json()) as Key;
  expect(second.replaces).toEqual(next.replaces);
  await setClock(tenant.id, 3_601_000);
  const statuses = await Promise.all([old, next, second].map(({ apiKey }) => statusOf(apiKey)));
  expect(statuses).toEqual([401, 401, 200]);
});

test("a rotation without overlap ends the old key on the very next call, and a repeated request gets the same key", async () => {
  const tenant = await aTenant();
  const expiresAt = new Date(Date.now() + 3_600_000).toISOString();
  const old = await aKey(tenant, { expiresAt });
  const rotate = async (): Promise<Key> => {
    const response = await fetch(`${system.publicUrl}/admin/api/tenants/${tenant.id}/keys/${old.id}/rotate`, {
      method: "POST",
      headers: {
        ...{ authorization: `Bearer ${system.operatorToken}`, "content-type": "application/json" },
        "idempotency-key": `rotate-${old.id}`,
      },
      body: JSON.stringify({ overlapHours: 0 }),
    });
    return (await response.json()) as Key;
  };
  const next = await rotate();
  expect([await statusOf(old.apiKey), await statusOf(next.apiKey)]).toEqual([401, 200]);
  expect(next.expiresAt).toBe(expiresAt);
  expect((await rotate()).apiKey).toBe(next.apiKey);
  // Its predecessor works no more.
  const of = async (response: Promise<Response>): Promise<number> => (await response).status;
  expect(await of(operator("PATCH", `/tenants/${tenant.id}/keys/${old.id}`, { name: "b" }))).toBe(409);
  expect(await of(rotated(tenant, { id: "no-such-key" }))).toBe(404);
  const later = new Date(Date.now() + 7_200_000).toISOString();
  expect(await of(operator("PATCH", `/tenants/${tenant.id}/keys/${next.id}`, { expiresAt: later }))).toBe(400);
  const sooner = new Date(Date.now() + 60_000).toISOString();
  expect(await of(operator("PATCH", `/tenants/${tenant.id}/keys/${next.id}`, { expiresAt: sooner }))).toBe(200);
  expect(await listedKey(tenant, next)).toMatchObject({ expiresAt: sooner });
});

test("a key with a list of tools sees and calls only these, from the next request after a change on", async () => {
  const tenant = await aTenant();
  const key = await aKey(tenant, { tools: ["search_products"] });
  expect(await toolsOf(key.apiKey)).toEqual(["search_products"]);
  expect((await search(key.apiKey)).isError).toBeFalsy();
  const refused = await callTool(key.apiKey, "list_documents");
  expect(refused.refusal).toMatchObject({ code: "tool_not_in_key" });
  expect(refused.text).toContain("It may call: search_products.");
  const change = (tools: string[] | null): Promise<Response> =>
    operator("PATCH", `/tenants/${tenant.id}/keys/${key.id}`, { tools });
  expect(await (await change(["list_documents"])).json()).toMatchObject({ tools: ["list_documents"], delivered: true });
  expect((await callTool(key.apiKey, "list_documents")).isError).toBeFalsy();
  expect((await search(key.apiKey)).refusal).toMatchObject({ code: "tool_not_in_key" });
  expect((await change(null)).status).toBe(200);
  expect((await search(key.apiKey)).isError).toBeFalsy();
  expect((await toolsOf(key.apiKey)).length).toBeGreaterThan(3);
  expect((await change(["no_such_tool"])).status).toBe(400);
});

test("the list shows each key's last use, also after the object restarted, and never a key", async () => {
  const tenant = await aTenant();
  const [called, asked] = [await aKey(tenant), await aKey(tenant)];
  const [managing, idle] = [await aKey(tenant, { scopes: ["tenant:admin"] }), await aKey(tenant)];
  const before = Date.now();
  await search(called.apiKey);
  await toolsOf(asked.apiKey);
  const usage = { headers: { authorization: `Bearer ${managing.apiKey}` } };
  expect((await fetch(`${system.publicUrl}/api/tenants/${tenant.id}/usage`, usage)).status).toBe(200);
  const uses = async (): Promise<(string | null)[]> => {
    const keys = await listed(tenant);
    return [called, asked, managing, idle].map(({ id }) => keys.find((each) => each.id === id)?.lastUsedAt ?? null);
  };
  const first = await uses();
  for (const at of first.slice(0, 3)) expect(Date.parse(at ?? "")).toBeGreaterThanOrEqual(before);
  expect(first[3]).toBeNull();
  await endObject(tenant.id);
  expect(await uses()).toEqual(first);

  const answer = await operator("GET", `/tenants/${tenant.id}/keys`);
  expect(answer.headers.get("cache-control")).toBe("no-store");
  const text = await answer.text();
  for (const { apiKey, prefix } of [called, asked, idle]) {
    expect(text).toContain(prefix);
    expect(text).not.toContain(apiKey.split(".")[3]);
  }
  expect(await listedKey(tenant, idle)).toMatchObject({ createdBy: { kind: "operator" }, unitsUsed: 0 });
  // In pages, newest first.
  const page = async (query: string): Promise<{ keys: Listed[]; next: string | null }> =>
    (await (await operator("GET", `/tenants/${tenant.id}/keys?${query}`)).json()) as {
      keys: Listed[];
      next: string | null;
    };
  const [one, all] = [await page("limit=1"), await page("limit=100")];
  expect(one.keys[0]?.id).toBe(idle.id);
  expect(all).toMatchObject({ next: null });
  const two = await page(`limit=100&after=${one.next}`);
  expect([...one.keys, ...two.keys].map(({ id }) => id)).toEqual(all.keys.map(({ id }) => id));
});

test("a key does not list, make, change, rotate or revoke keys, and another tenant's key finds no tenant", async () => {
  const [tenant, other] = [await aTenant(), await aTenant()];
  const admin = await aKey(tenant, { scopes: ["tools:read", "tenant:admin"] });
  const stranger = await aKey(other, { scopes: ["tenant:admin"] });
  const requests: [string, string, unknown?][] = [
    ["GET", ""],
    ["POST", "", { name: "more" }],
    ["PATCH", `/${admin.id}`, { unitsPerMonth: null }],
    ["POST", `/${admin.id}/rotate`, {}],
    ["DELETE", `/${admin.id}`],
  ];
  for (const [method, path, body] of requests) {
    const send = (token: string): Promise<Response> =>
      fetch(`${system.publicUrl}/api/tenants/${tenant.id}/keys${path}`, {
        method,
        headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
    const refused = await send(admin.apiKey);
    expect([refused.status, ((await refused.json()) as { code: string }).code], `${method} ${path}`).toEqual([
      403,
      "scope_missing",
    ]);
    expect((await send(stranger.apiKey)).status, `${method} ${path}`).toBe(404);
  }
  expect(await statusOf(admin.apiKey)).toBe(200);
  expect((await listed(tenant)).length).toBe(2);
});

test("without the tenant's object a key with a budget is refused and says why, and any other key is served", async () => {
  const tenant = await aTenant({ plan: "starter" });
  const key = await aKey(tenant, { unitsPerMonth: 5 });
  onTestFinished(async () => void (await objectFault(tenant.id)));
  await objectFault(tenant.id, "away");
  const refused = await search(key.apiKey);
  expect(refused.refusal).toMatchObject({ code: "metering_unavailable", retryAfterSeconds: expect.any(Number) });
  expect(refused.text).toContain("This API key has a monthly budget");
  expect((await search(tenant.apiKey)).receipt).toMatchObject({ units: 1 });
  const list = (await (await operator("GET", `/tenants/${tenant.id}/keys`)).json()) as { usageKnown: boolean };
  expect(list.usageKnown).toBe(false);
  await objectFault(tenant.id);
  expect((await search(key.apiKey)).receipt).toMatchObject({ units: 1 });
});

test("the operator sees how many keys need each root key", async () => {
  const count = async (): Promise<number> => {
    const response = await operator("GET", "/root-keys");
    const { rootKeys, next } = (await response.json()) as {
      rootKeys: { id: string; makesCredentials: boolean; verifies: string; apiKeys: number }[];
      next: string | null;
    };
    expect(next).toBeNull();
    expect(rootKeys).toMatchObject([{ makesCredentials: true, verifies: "all", tenants: expect.any(Number) }]);
    return rootKeys[0]?.apiKeys ?? 0;
  };
  const tenant = await aTenant();
  const key = await aKey(tenant);
  const before = await count();
  expect(before).toBeGreaterThanOrEqual(2);
  await operator("DELETE", `/tenants/${tenant.id}/keys/${key.id}`);
  // Other files run on another system, and tests of this file one after the other.
  expect(await count()).toBe(before - 1);
});
