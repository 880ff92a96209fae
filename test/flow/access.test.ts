// Who may reach a tenant, beside its own keys, and how often: other tenants' credentials, issuers' links, monitors and admins.
// What the operator ends is refused on the very next request.
import { expect, test } from "vitest";
import { backUp } from "../support/backups.ts";
import { aJwt, aTenant, callTool, databaseFaults, modernMeta, operator, postMcp, system } from "../support/flow.ts";

function send(token: string, method: string, params: Record<string, unknown> = {}): Promise<Response> {
  return postMcp(token, { jsonrpc: "2.0", id: 1, method, params: { ...params, _meta: modernMeta } });
}

const usage = (token: string): Promise<Response> => send(token, "tools/call", { name: "get_usage", arguments: {} });

test("a key on another tenant's route finds no tenant, gets the answer for an id that does not exist, and is counted", async () => {
  const [tenant, other] = await Promise.all([aTenant(), aTenant()]);
  const made = await operator("POST", `/tenants/${tenant.id}/keys`, { scopes: ["tools:read", "tenant:admin"] });
  const { apiKey } = (await made.json()) as { apiKey: string };
  const usageOf = (id: string): Promise<Response> =>
    fetch(`${system.publicUrl}/api/tenants/${id}/usage`, { headers: { authorization: `Bearer ${apiKey}` } });
  expect((await usageOf(tenant.id)).status).toBe(200);
  const [foreign, unknown] = await Promise.all([usageOf(other.id), usageOf("nobody-at-all")]);
  const bodies = (await Promise.all([foreign.json(), unknown.json()])) as Record<string, unknown>[];
  expect([foreign.status, unknown.status]).toEqual([404, 404]);
  expect({ ...bodies[0], requestId: "" }).toEqual({ ...bodies[1], requestId: "" });
  const attempts = async (id: string): Promise<unknown> =>
    ((await (await operator("GET", `/tenants/${id}`)).json()) as Record<string, unknown>)["crossTenantAttempts"];
  await expect.poll(() => attempts(tenant.id)).toEqual({ attempts: 2, lastAt: expect.any(String) });
  expect(await attempts(other.id)).toEqual({ attempts: 0, lastAt: null });
});

test("a link that is removed is refused on the very next request of every method", async () => {
  const tenant = await aTenant();
  const organisation = `org-of-${tenant.id}`;
  const link = { issuer: system.issuerUrl, organisation };
  expect(await (await operator("POST", `/tenants/${tenant.id}/links`, link)).json()).toMatchObject({ delivered: true });
  const token = await aJwt({ tenant_id: organisation, scopes: ["tools:read"] });
  expect((await usage(token)).status).toBe(200);
  const { links } = (await (await operator("GET", `/tenants/${tenant.id}/links`)).json()) as { links: unknown[] };
  expect(links).toContainEqual({ ...link, createdAt: expect.any(String) });
  const path = `/tenants/${tenant.id}/links?${new URLSearchParams(link).toString()}`;
  expect(await (await operator("DELETE", path)).json()).toMatchObject({ unlinked: true, delivered: true });
  for (const method of ["tools/list", "server/discover", "no/such"]) {
    const response = await send(token, method);
    expect(response.status, method).toBe(403);
    expect(await response.json(), method).toMatchObject({ error: { data: { code: "tenant_unknown" } } });
  }
  expect((await callTool(token, "get_usage")).refusal?.code).toBe("tenant_unknown");
  expect((await operator("DELETE", path)).status).toBe(404);
  // The account's own users and keys stay.
  const user = await aJwt({ tenant_id: tenant.id, scopes: ["tools:read"] });
  expect((await usage(user)).status).toBe(200);
});

test("a monitor token can be revoked, and the monitor gets the new one", async () => {
  const tenant = await aTenant();
  const shown = async (): Promise<string> =>
    ((await (await operator("GET", `/tenants/${tenant.id}`)).json()) as { monitorToken: string }).monitorToken;
  const health = async (token: string): Promise<number> =>
    (await fetch(`${system.publicUrl}/health?tenant=${tenant.id}`, { headers: { authorization: `Bearer ${token}` } }))
      .status;
  const first = await shown();
  expect(await health(first)).toBe(200);
  const renewed = await operator("POST", `/tenants/${tenant.id}/monitor-token`);
  expect(renewed.status).toBe(201);
  const { monitorToken } = (await renewed.json()) as { monitorToken: string };
  expect(await health(first)).toBe(401);
  expect(await health(monitorToken)).toBe(200);
  expect(await shown()).toBe(monitorToken);
});

test("a backup that is being made can be cancelled, once", async () => {
  const tenant = await aTenant();
  await databaseFaults([{ kind: "refuse-before", database: "tollgate_shared_1", probability: 1 }]);
  let cancelled: Response;
  let again: Response;
  try {
    const { name } = (await (await operator("POST", `/tenants/${tenant.id}/backups`, {})).json()) as { name: string };
    cancelled = await operator("DELETE", `/tenants/${tenant.id}/backups/${name}`);
    again = await operator("DELETE", `/tenants/${tenant.id}/backups/${name}`);
  } finally {
    await databaseFaults([]);
  }
  expect(await cancelled.json()).toMatchObject({ state: "cancelled" });
  expect(again.status).toBe(404);
  expect((await backUp(tenant)).state).toBe("done");
});

test("a tenant has one export at a time, and its admin the plan's requests a minute, and few pages of Stripe", async () => {
  const tenant = await aTenant({ limits: { callsPerMinute: 30 } });
  const made = await operator("POST", `/tenants/${tenant.id}/keys`, { name: "admin", scopes: ["tenant:admin"] });
  const { apiKey } = (await made.json()) as { apiKey: string };
  const ask = (path: string, method = "GET"): Promise<Response> =>
    fetch(`${system.publicUrl}/api/tenants/${tenant.id}/${path}`, {
      method,
      headers: { authorization: `Bearer ${apiKey}`, "content-type": "application/json" },
      ...(method === "POST" && { body: "{}" }),
    });
  const running = await ask("export");
  const second = await ask("export");
  expect([running.status, second.status]).toEqual([200, 409]);
  expect(await second.json()).toMatchObject({ code: "conflict", detail: expect.stringContaining("Another export") });
  await running.text();
  const third = await ask("export");
  expect(third.status).toBe(200);
  await third.body?.cancel();
  const again = async (): Promise<number> => {
    const response = await ask("export");
    await response.text();
    return response.status;
  };
  await expect.poll(again, { interval: 500, timeout: 10_000 }).toBe(200);

  const portals = await Promise.all(Array.from({ length: 12 }, () => ask("portal", "POST")));
  const refused = portals.filter((portal) => portal.status === 429);
  expect([portals.filter((portal) => portal.status === 201).length, refused.length]).toEqual([10, 2]);
  expect(Number(refused[0]?.headers.get("retry-after"))).toBeGreaterThan(40);
  expect(await refused[0]?.json()).toMatchObject({
    code: "rate_limited",
    detail: expect.stringMatching(/10 pages of Stripe a minute/),
  });
  const reads = await Promise.all(Array.from({ length: 30 }, () => ask("usage")));
  const admitted = reads.filter((read) => read.status === 200).length;
  expect(admitted).toBeGreaterThan(10);
  expect(reads.filter((read) => read.status === 429).length).toBe(30 - admitted);
  expect(admitted).toBeLessThan(30);
  // An agent's calls are another matter.
  expect((await callTool(tenant.apiKey, "get_usage")).isError).toBeFalsy();
});
