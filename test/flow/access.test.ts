// Who may reach a tenant, beside its own keys: other tenants' credentials, issuers' links, and monitors. What the operator ends
// is refused on the very next request.
import { expect, test } from "vitest";
import { aJwt, aTenant, callTool, modernMeta, operator, postMcp, system } from "../support/flow.ts";

function send(token: string, method: string, params: Record<string, unknown> = {}): Promise<Response> {
  return postMcp(token, { jsonrpc: "2.0", id: 1, method, params: { ...params, _meta: modernMeta } });
}

const usage = (token: string): Promise<Response> => send(token, "tools/call", { name: "get_usage", arguments: {} });

test("a key on another tenant's route finds no tenant, is the same as an id of nobody, and is counted", async () => {
  const [tenant, other] = await Promise.all([aTenant(), aTenant()]);
  const made = await operator("POST", `/tenants/${tenant.id}/keys`, { scopes: ["tools:read", "tenant:admin"] });
  const { apiKey } = (await made.json()) as { apiKey: string };
  const usageOf = (id: string): Promise<Response> =>
    fetch(`${system.publicUrl}/api/tenants/${id}/usage`, { headers: { authorization: `Bearer ${apiKey}` } });
  expect((await usageOf(tenant.id)).status).toBe(200);
  const [foreign, nobody] = await Promise.all([usageOf(other.id), usageOf("nobody-at-all")]);
  const bodies = (await Promise.all([foreign.json(), nobody.json()])) as Record<string, unknown>[];
  expect([foreign.status, nobody.status]).toEqual([404, 404]);
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
