// Authentication. A bad credential is answered with a challenge, wakes no object and leaves nothing behind. A revoked right is
// refused on the very next request of every method.
import { expect, test, onTestFinished } from "vitest";
import { mintCredential } from "../../src/core/keys/credentials.ts";
import {
  aJwt,
  aTenant,
  callTool,
  controlRows,
  databaseFaults,
  modernMeta,
  operator,
  postMcp,
  setClock,
  storedCalls,
  system,
  type TestTenant,
} from "../support/flow.ts";

const resourceMetadataUrl = `${system.publicUrl}/.well-known/oauth-protected-resource/mcp`;

const legacy = { "mcp-protocol-version": "2025-11-25" };
const initializeParams = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "t", version: "1" } };

/** One request of every kind that an agent makes, in both eras of the protocol. */
const requests: readonly [string, (token: string | undefined) => Promise<Response>][] = [
  ["tools/call", (token) => modern(token, "tools/call", { name: "get_usage", arguments: {} })],
  ["tools/call of no tool", (token) => modern(token, "tools/call", { name: "no_such_tool", arguments: {} })],
  [
    "tools/call with bad arguments",
    (token) => modern(token, "tools/call", { name: "search_products", arguments: { query: 1 } }),
  ],
  ["tools/list", (token) => modern(token, "tools/list")],
  ["server/discover", (token) => modern(token, "server/discover")],
  ["a method that is unknown", (token) => modern(token, "no/such")],
  ["initialize", (token) => old(token, "initialize", initializeParams)],
  ["ping", (token) => old(token, "ping")],
  ["tools/list of the older era", (token) => old(token, "tools/list")],
  ["tools/call of the older era", (token) => old(token, "tools/call", { name: "get_usage", arguments: {} })],
];

function modern(token: string | undefined, method: string, params: Record<string, unknown> = {}): Promise<Response> {
  return postMcp(token, { jsonrpc: "2.0", id: 1, method, params: { ...params, _meta: modernMeta } });
}

function old(token: string | undefined, method: string, params: Record<string, unknown> = {}): Promise<Response> {
  return postMcp(token, { jsonrpc: "2.0", id: 1, method, params }, legacy);
}

const usage = (token: string): Promise<Response> => modern(token, "tools/call", { name: "get_usage", arguments: {} });

/** The challenge of RFC 6750 and RFC 9728, as JSON. */
async function expectChallenge(response: Response, status: 401 | 403, what: string): Promise<void> {
  expect(response.status, what).toBe(status);
  const header = response.headers.get("www-authenticate") ?? "";
  expect(header, what).toMatch(/^Bearer /);
  expect(header, what).toContain(`resource_metadata="${resourceMetadataUrl}"`);
  expect(response.headers.get("content-type"), what).toContain("application/json");
  expect(await response.json(), what).toMatchObject({ error: expect.anything() });
}

/** A valid token of an unknown identity. Another token would not help, so the answer is no challenge. */
async function expectUnknown(response: Response, what: string): Promise<void> {
  expect(response.status, what).toBe(403);
  expect(response.headers.get("www-authenticate"), what).toBeNull();
  expect(await response.json(), what).toMatchObject({ error: { data: { code: "tenant_unknown" } } });
}

async function aKey(tenantId: string, request: Record<string, unknown> = {}): Promise<{ id: string; apiKey: string }> {
  return (await (await operator("POST", `/tenants/${tenantId}/keys`, request)).json()) as {
    id: string;
    apiKey: string;
  };
}

const aUser = (tenant: TestTenant, claims: Record<string, unknown> = {}): Promise<string> =>
  aJwt({ tenant_id: tenant.id, scopes: ["tools:read", "tools:write"], ...claims });

test("a revoked key is refused on the very next request of every method", async () => {
  const tenant = await aTenant();
  const { id, apiKey } = await aKey(tenant.id);
  for (const [what, send] of requests) expect((await send(apiKey)).status, `${what} before`).not.toBe(401);
  expect(await (await operator("DELETE", `/tenants/${tenant.id}/keys/${id}`)).json()).toMatchObject({
    revoked: true,
    delivered: true,
  });
  for (const [what, send] of requests) await expectChallenge(await send(apiKey), 401, what);
  expect((await usage(tenant.apiKey)).status, "the other key").toBe(200);
});

test("a suspended tenant is refused on the very next request of every method, and resumes unchanged", async () => {
  const tenant = await aTenant();
  const user = await aUser(tenant);
  await callTool(tenant.apiKey, "search_products", { query: "" });
  expect(await (await operator("POST", `/tenants/${tenant.id}/suspend`)).json()).toMatchObject({ delivered: true });
  for (const token of [tenant.apiKey, user]) {
    for (const [what, send] of requests) {
      const response = await send(token);
      const body = (await response.json()) as {
        result?: { isError?: boolean; _meta?: Record<string, { code: string }> };
        error?: { data?: { code: string } };
      };
      const refusal = body.result?._meta?.["tollgate/refusal"] ?? body.error?.data;
      expect(refusal?.code, what).toBe("tenant_suspended");
      expect(response.status === 403 || body.result?.isError === true, what).toBe(true);
    }
  }
  expect(await (await operator("POST", `/tenants/${tenant.id}/resume`)).json()).toMatchObject({ delivered: true });
  for (const token of [tenant.apiKey, user]) {
    expect((await callTool(token, "get_usage")).data).toMatchObject({ hour: { used: 1 } });
  }
});

test("an expired key is refused, and a key that is already expired cannot be made", async () => {
  const tenant = await aTenant();
  const past = new Date(Date.now() - 1_000).toISOString();
  expect((await operator("POST", `/tenants/${tenant.id}/keys`, { expiresAt: past })).status).toBe(400);
  const { apiKey } = await aKey(tenant.id, { expiresAt: new Date(Date.now() + 3_600_000).toISOString() });
  expect((await usage(apiKey)).status).toBe(200);
  await setClock(tenant.id, 3_601_000);
  for (const [what, send] of requests) await expectChallenge(await send(apiKey), 401, what);
  expect((await usage(tenant.apiKey)).status).toBe(200);
});

test("an expired token is refused", async () => {
  const tenant = await aTenant();
  await expectChallenge(await usage(await aUser(tenant, { expiresIn: -60 })), 401, "expired when it came");
  // The cached verification of a moment ago must not help it.
  const token = await aUser(tenant, { expiresIn: 120 });
  expect((await usage(token)).status).toBe(200);
  // The issuer's clock may be 5 s ahead, and the tenant's object allows for it, too.
  await setClock(tenant.id, 121_000);
  expect((await usage(token)).status).toBe(200);
  await setClock(tenant.id, 126_000);
  for (const [what, send] of requests) await expectChallenge(await send(token), 401, what);
});

test("no token, garbage and other schemes are answered with a challenge", async () => {
  for (const [what, send] of requests) await expectChallenge(await send(undefined), 401, what);
  const tenant = await aTenant();
  const authorizations = [
    "Bearer x",
    "Bearer tgk_",
    "Bearer a.b.c",
    `Bearer ${"x".repeat(9_000)}`,
    "Bearer",
    `Basic ${btoa(`user:${tenant.apiKey}`)}`,
    tenant.apiKey,
    `Bearer ${tenant.apiKey} ${tenant.apiKey}`,
  ];
  for (const authorization of authorizations) {
    const response = await postMcp(undefined, { method: "tools/list", jsonrpc: "2.0", id: 1 }, { authorization });
    await expectChallenge(response, 401, authorization.slice(0, 20));
  }
});

test("a key with any one character changed is refused", async () => {
  const { apiKey } = await aTenant();
  const end = apiKey.length;
  for (const place of [0, 4, 8, 24, 30, 40, 50, 60, end - 30, end - 2, end - 1]) {
    const changed = apiKey[place] === "A" ? "B" : "A";
    const forged = apiKey.slice(0, place) + changed + apiKey.slice(place + 1);
    await expectChallenge(await usage(forged), 401, `character ${place}`);
  }
});

test("a forged key reads no database, wakes no object and leaves nothing", async () => {
  const forged = await mintCredential("not the deployment's key", {
    kind: "key",
    tenantId: "nobody-at-all" as never,
    fields: ["id", "dG9vbHM6cmVhZA", "secret"],
  });
  // An object that woke would read the control database and answer 503.
  await databaseFaults([{ kind: "refuse-before", probability: 1 }]);
  try {
    for (const [what, send] of requests) await expectChallenge(await send(forged), 401, what);
  } finally {
    await databaseFaults([]);
  }
  expect(await storedCalls("nobody-at-all")).toEqual([]);
});

test("a genuine credential of an unknown tenant leaves nothing", async () => {
  const tenantId = "never-signed-up";
  const fields = ["id", "dG9vbHM6cmVhZA", "secret"];
  const orphan = await mintCredential(system.credentialKey, { kind: "key", tenantId: tenantId as never, fields });
  for (const [what, send] of requests) {
    const response = await send(orphan);
    const body = JSON.stringify(await response.json());
    expect(body, what).toContain("tenant_unknown");
    expect(body, what).not.toContain('"structuredContent"');
  }
  expect(await storedCalls(tenantId)).toEqual([]);
  expect(await controlRows("SELECT id FROM tenants WHERE id = $1", [tenantId])).toEqual([]);
});

test("a token of many groups is accepted, and scopes count in every claim that issuers put them in", async () => {
  const tenant = await aTenant();
  const groups = Array.from({ length: 200 }, (_, n) => `5f8b2c1e-0000-4000-8000-${String(n).padStart(12, "0")}`);
  const claims = [
    { scp: "tools:read", groups },
    { scp: ["tools:read"] },
    { roles: ["tools:read"] },
    { permissions: ["tools:read"] },
  ];
  for (const own of claims) {
    const token = await aJwt({ tenant_id: tenant.id, ...own });
    expect((await callTool(token, "health_check")).data, Object.keys(own).join()).toMatchObject({ ok: true });
  }
  const nested = await aJwt({ tenant_id: tenant.id, permissions: [["tools:read"]] });
  expect((await modern(nested, "tools/call", { name: "health_check", arguments: {} })).status).toBe(403);
});

test("a user whose organisation is linked to no tenant is refused and leaves nothing", async () => {
  const token = await aJwt({ tenant_id: "org-nobody-linked", scopes: ["tools:read"] });
  for (const [what, send] of requests) await expectUnknown(await send(token), what);
  expect(await storedCalls("org-nobody-linked")).toEqual([]);
});

test("an issuer cannot speak for a tenant that is linked to another one", async () => {
  const tenant = await aTenant();
  const organisation = `org-${tenant.id}`;
  const link = { issuer: "https://their-own-issuer.example", organisation };
  const untrusted = await operator("POST", `/tenants/${tenant.id}/links`, link);
  expect(untrusted.status).toBe(400);
  expect(await untrusted.text()).toContain(`Known: ${system.issuerUrl}`);
  await fetch(`${system.publicUrl}/test/trust?issuer=${link.issuer}`);
  onTestFinished(async () => void (await fetch(`${system.publicUrl}/test/trust`)));
  expect((await operator("POST", `/tenants/${tenant.id}/links`, link)).status).toBe(201);
  await expectUnknown(await usage(await aJwt({ tenant_id: organisation, scopes: ["tools:read"] })), "before");
  // The same name at another issuer is another organisation.
  const other = await aTenant();
  const same = { issuer: system.issuerUrl, organisation };
  expect((await operator("POST", `/tenants/${other.id}/links`, same)).status).toBe(201);
  const token = await aJwt({ tenant_id: organisation, scopes: ["tools:read"] });
  expect((await callTool(token, "health_check")).data).toMatchObject({ tenant: other.id });
  // An organisation that has its tenant keeps it.
  expect((await operator("POST", `/tenants/${tenant.id}/links`, same)).status).toBe(409);
});

test("a token's claims about plan and limits are ignored", async () => {
  const tenant = await aTenant({ limits: { unitsPerHour: 1 } });
  const token = await aUser(tenant, {
    plan: "enterprise",
    limits: { unitsPerHour: 1_000_000 },
    unitsPerHour: 1_000_000,
    allowedTools: ["generate_report"],
    org_id: "somebody-else",
    kind: "canary",
  });
  expect((await callTool(token, "get_usage")).data).toMatchObject({ plan: "free", hour: { limit: 1 } });
  expect((await callTool(token, "search_products", { query: "" })).isError).toBeFalsy();
  expect((await callTool(token, "search_products", { query: "" })).refusal).toMatchObject({ limit: 1, used: 1 });
});

test("a read-only key learns which scope a writing tool needs, and is not charged", async () => {
  const tenant = await aTenant();
  const { apiKey } = await aKey(tenant.id, { scopes: ["tools:read"] });
  const user = await aUser(tenant, { scopes: ["tools:read"] });
  expect((await callTool(apiKey, "list_documents")).isError).toBeFalsy();
  for (const token of [apiKey, user]) {
    for (const send of [modern, old]) {
      const call = { name: "write_document", arguments: { path: "a.md", text: "x" } };
      const response = await send(token, "tools/call", call);
      const challenge = response.headers.get("www-authenticate") ?? "";
      await expectChallenge(response, 403, send.name);
      expect(challenge).toContain('error="insufficient_scope"');
      expect(challenge).toMatch(/scope="[^"]*tools:write/);
    }
  }
  expect(await storedCalls(tenant.id)).toHaveLength(1);
  expect((await callTool(tenant.apiKey, "list_documents")).data).toMatchObject({ documents: [] });
});

test("a challenged client finds out where to get a token", async () => {
  const challenge = (await usage("x")).headers.get("www-authenticate") ?? "";
  const [, url = ""] = /resource_metadata="([^"]+)"/.exec(challenge) ?? [];
  for (const each of [url, `${system.publicUrl}/.well-known/oauth-protected-resource`]) {
    const response = await fetch(each);
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({
      resource: `${system.publicUrl}/mcp`,
      authorization_servers: [system.publicUrl],
      scopes_supported: ["tools:read", "tools:write"],
      bearer_methods_supported: ["header"],
    });
  }
});

test("a tenant's health is shown only to the holder of its monitor token", async () => {
  const [tenant, other] = await Promise.all([aTenant(), aTenant()]);
  const monitorTokenOf = async ({ id }: TestTenant): Promise<string> =>
    ((await (await operator("GET", `/tenants/${id}`)).json()) as { monitorToken: string }).monitorToken;
  const health = (token: string | undefined): Promise<Response> =>
    fetch(`${system.publicUrl}/health?tenant=${tenant.id}`, {
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
    });
  expect((await health(await monitorTokenOf(tenant))).status).toBe(200);
  for (const [token, status] of [
    [undefined, 401],
    ["tgm_x", 401],
    [await monitorTokenOf(other), 404],
    [tenant.apiKey, 401],
    [system.operatorToken, 401],
  ] as const) {
    const response = await health(token);
    expect(response.status).toBe(status);
    expect(response.headers.get("content-type")).toContain("application/problem+json");
  }
});

test("the operator's API takes only the operator token", async () => {
  const tenant = await aTenant();
  const { version } = (
    await controlRows<{ version: number }>("SELECT version FROM tenants WHERE id = $1", [tenant.id])
  )[0] ?? {
    version: -1,
  };
  for (const token of ["", "wrong", `${system.operatorToken}x`, system.operatorToken.slice(0, -1), tenant.apiKey]) {
    for (const [method, path] of [
      ["GET", "/tenants"],
      ["GET", `/tenants/${tenant.id}`],
      ["POST", `/tenants/${tenant.id}/suspend`],
      ["POST", `/tenants/${tenant.id}/keys`],
      ["POST", "/tenants"],
    ] as const) {
      const response = await operator(method, path, method === "POST" ? {} : undefined, token);
      expect(response.status, `${method} ${path}`).toBe(401);
      expect(response.headers.get("content-type")).toContain("application/problem+json");
    }
  }
  const after = await controlRows<{ version: number }>("SELECT version FROM tenants WHERE id = $1", [tenant.id]);
  expect(after).toEqual([{ version }]);
});

test("the first key is made once, and only by the buyer", async () => {
  const tenant = await aTenant();
  const other = await aTenant();
  const firstKey = (tenantId: string, token: string): Promise<Response> =>
    fetch(`${system.publicUrl}/api/tenants/${tenantId}/keys`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      body: "{}",
    });
  const setupToken = (tenantId: string, expiresAtMs: number): Promise<string> =>
    mintCredential(system.credentialKey, { kind: "setup", tenantId: tenantId as never, fields: [String(expiresAtMs)] });
  const late = await setupToken(tenant.id, Date.now() - 1);
  const foreign = await setupToken(other.id, Date.now() + 60_000);
  for (const token of [late, "x"]) expect((await firstKey(tenant.id, token)).status).toBe(401);
  // A key is a credential of this path, and never makes a key.
  expect((await firstKey(tenant.id, tenant.apiKey)).status).toBe(403);
  expect((await firstKey(tenant.id, foreign)).status).toBe(404);
  // It already has a key, made by the operator.
  expect((await firstKey(tenant.id, await setupToken(tenant.id, Date.now() + 60_000))).status).toBe(409);
});
