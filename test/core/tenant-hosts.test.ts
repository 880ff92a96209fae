// Host names of single tenants: what a request to one is answered with, for whom its tokens are, and which settings are refused.
import { expect, test, vi } from "vitest";
import { encodeScopes, mintCredential } from "../../src/core/keys/credentials.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import {
  isResourceOf,
  ownUrlOf,
  placeOf,
  resourcesOf,
  tenantOfResource,
} from "../../src/identity/tokens/tenant-hosts.ts";
import {
  CREDENTIAL_KEY,
  PUBLIC_URL,
  errorOf,
  oauthObjects,
  presented,
  site,
  tokensOf,
} from "../support/oauth-objects.ts";

// Classes of the platform, which exist only in workerd.
vi.mock("cloudflare:workers", () => ({ DurableObject: Object, WorkflowEntrypoint: Object, RpcTarget: Object }));
vi.mock("cloudflare:workflows", () => ({ NonRetryableError: Error }));

const hosted = TenantId.parse("hosted");
const acme = TenantId.parse("acme");
const HOST = "https://hosted.example";
const RESOURCE = `${HOST}/mcp`;

test.each([
  ["https://hosted.example/mcp", HOST, hosted],
  ["http://hosted.example/mcp", HOST, hosted], // behind a proxy that ends TLS
  ["https://HOSTED.example/mcp?x=1", HOST, hosted],
  ["https://hosted.example:8443/mcp", PUBLIC_URL, undefined],
  ["https://hosted.example.evil.example/mcp", PUBLIC_URL, undefined],
  ["https://x.hosted.example/mcp", PUBLIC_URL, undefined],
  ["https://tollgate.example/mcp", PUBLIC_URL, undefined],
  ["http://127.0.0.1:8787/mcp", PUBLIC_URL, undefined],
])("a request to %s came to %s, for the tenant %s", (url, origin, tenantId) => {
  expect(placeOf(site, url)).toEqual({ origin, tenantId });
});

test.each([
  ["no JSON", "acme", "it is not JSON"],
  ["a list", JSON.stringify(["acme.example"]), "it is no object"],
  ["a URL", JSON.stringify({ "https://acme.example": "acme" }), '"https://acme.example" is no host name'],
  ["a path", JSON.stringify({ "acme.example/mcp": "acme" }), '"acme.example/mcp" is no host name'],
  ["a user", JSON.stringify({ "acme@acme.example": "acme" }), '"acme@acme.example" is no host name'],
  ["upper case", JSON.stringify({ "Acme.example": "acme" }), '"Acme.example" is no host name'],
  ["the protocol's own port", JSON.stringify({ "acme.example:443": "acme" }), '"acme.example:443" is no host name'],
  ["no host", JSON.stringify({ "": "acme" }), '"" is no host name'],
  ["the common host", JSON.stringify({ "tollgate.example": "acme" }), '"tollgate.example" is the host of PUBLIC_URL'],
  [
    "a name that is no tenant's id",
    JSON.stringify({ "acme.example": "No Tenant" }),
    `"acme.example" has no tenant's id`,
  ],
  ["a number", JSON.stringify({ "a.example": "acme", "b.example": 1 }), `"b.example" has no tenant's id`],
])("a setting with %s is refused as a whole, and the message names what is wrong", (_, TENANT_HOSTS, problem) => {
  const wrong = { PUBLIC_URL, TENANT_HOSTS };
  for (const use of [
    () => placeOf(wrong, RESOURCE),
    () => resourcesOf(wrong),
    () => isResourceOf(wrong, RESOURCE, acme),
  ])
    expect(use).toThrow(`TENANT_HOSTS: ${problem}`);
  // The pages and the API of the operator stay.
  expect(placeOf(wrong, `${PUBLIC_URL}/admin`)).toEqual({ origin: PUBLIC_URL, tenantId: undefined });
});

test("without TLS only a name of the loopback interface is a tenant's host", () => {
  const local = (host: string) => ({
    PUBLIC_URL: "http://127.0.0.1:8787",
    TENANT_HOSTS: JSON.stringify({ [host]: "acme" }),
  });
  expect(resourcesOf(local("localhost:8787"))[1]).toBe("http://localhost:8787/mcp");
  expect(() => resourcesOf(local("acme.example"))).toThrow('"acme.example" needs a PUBLIC_URL with https');
});

test.each([
  [`${HOST}/mcp`, undefined],
  [`${HOST}/mcp/`, undefined],
  [`${HOST}/.well-known/oauth-protected-resource/mcp`, undefined],
  [`${HOST}/`, `${PUBLIC_URL}/`],
  [`${HOST}/mcp/x`, `${PUBLIC_URL}/mcp/x`],
  [`${HOST}//evil.example/?a=b`, `${PUBLIC_URL}//evil.example/?a=b`],
  [`${HOST}/admin/api/tenants?limit=1`, `${PUBLIC_URL}/admin/api/tenants?limit=1`],
  [`${PUBLIC_URL}/app`, undefined],
  ["https://unknown.example/app", undefined],
])("a request to %s belongs to %s", (url, elsewhere) => {
  expect(ownUrlOf(site, url)).toBe(elsewhere);
});

test("each host is a resource of its own, and for its tenant alone", () => {
  expect(resourcesOf(site)).toEqual([`${PUBLIC_URL}/mcp`, RESOURCE]);
  expect(resourcesOf({ PUBLIC_URL, TENANT_HOSTS: "" })).toEqual([`${PUBLIC_URL}/mcp`]);
  expect([tenantOfResource(site, RESOURCE), tenantOfResource(site, `${PUBLIC_URL}/mcp`)]).toEqual([hosted, undefined]);
  for (const tenantId of [hosted, acme]) {
    expect(isResourceOf(site, `${PUBLIC_URL}/mcp`, tenantId)).toBe(true);
    expect(isResourceOf(site, RESOURCE, tenantId)).toBe(tenantId === hosted);
    expect(isResourceOf(site, `${RESOURCE}/`, tenantId)).toBe(false);
  }
});

test("a client of a tenant's host gets tokens for this host, which work for this tenant and for no other", async () => {
  const objects = oauthObjects();
  const clientId = await objects.register();
  const signIn = async (tenantId: TenantId, asked: string) => {
    const consent = await objects.authorize(clientId, { tenantId, resource: asked });
    return objects.redeem(clientId, consent, RESOURCE);
  };
  // Clients add a slash.
  for (const asked of [RESOURCE, `${RESOURCE}/`]) {
    const tokens = tokensOf(await signIn(hosted, asked));
    expect(tokens.resource).toBe(RESOURCE);
    expect(objects.tenant(hosted).find(await presented(tokens.access_token))).toBeDefined();
    const renewed = tokensOf(await objects.refresh(clientId, tokens.refresh_token));
    expect(objects.tenant(hosted).find(await presented(renewed.access_token))).toBeDefined();
  }
  // The consent page offers no other tenant; were one granted, its object would refuse the tokens.
  const foreign = tokensOf(await signIn(acme, RESOURCE));
  expect(objects.tenant(acme).find(await presented(foreign.access_token))).toBeUndefined();
  // The audience of a code cannot be changed at the token endpoint.
  const consent = await objects.authorize(clientId, { tenantId: hosted });
  expect(errorOf(await objects.redeem(clientId, consent, RESOURCE))).toBe("invalid_target");
});

const env = {
  ...site,
  ...{ CREDENTIAL_KEY, ALLOWED_ORIGINS: "", OAUTH_MODE: "server", OIDC_ISSUERS: "[]" },
  TENANT: { getByName: () => ({ authorize: () => Promise.reject(new Error("the object was asked")) }) },
};
async function send(url: string, init?: RequestInit): Promise<Response> {
  const { app } = await import("../../src/routes.ts");
  const context = { waitUntil() {}, passThroughOnException() {}, props: {} };
  return app.fetch(new Request(url, init), env as unknown as Env, context as unknown as ExecutionContext);
}
const listTools = (url: string, token?: string): Promise<Response> =>
  send(url, {
    method: "POST",
    headers: {
      ...{ "content-type": "application/json", accept: "application/json, text/event-stream", host: new URL(url).host },
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list", params: {} }),
  });

test.each([
  [HOST, HOST],
  [PUBLIC_URL, PUBLIC_URL],
  ["https://unknown.example", PUBLIC_URL],
])("the metadata at %s are those of %s, and the server is the same", async (origin, resource) => {
  for (const form of ["", "/mcp"]) {
    const answer = await send(`${origin}/.well-known/oauth-protected-resource${form}`);
    expect(await answer.json()).toMatchObject({ resource: `${resource}/mcp`, authorization_servers: [PUBLIC_URL] });
  }
  const server = await send(`${origin}/.well-known/oauth-authorization-server/mcp`);
  expect(await server.json()).toMatchObject({ issuer: PUBLIC_URL, protected_resources: resourcesOf(site) });
});

test("a client without a token is sent to the metadata of the host that it asked", async () => {
  for (const origin of [HOST, PUBLIC_URL]) {
    const answer = await listTools(`${origin}/mcp`);
    expect(answer.status).toBe(401);
    expect(answer.headers.get("www-authenticate")).toContain(
      `resource_metadata="${origin}/.well-known/oauth-protected-resource/mcp"`,
    );
  }
});

test("on a tenant's host no other tenant's credential works", async () => {
  const key = (tenantId: TenantId): Promise<string> =>
    mintCredential(CREDENTIAL_KEY, { kind: "key", tenantId, fields: ["k1", encodeScopes(["tools:read"]), "secret"] });
  const logged = vi.spyOn(console, "warn").mockImplementation(() => {});
  const errors = vi.spyOn(console, "error").mockImplementation(() => {});
  const foreign = await listTools(`${HOST}/mcp`, await key(acme));
  expect(foreign.status).toBe(401);
  expect(JSON.stringify(logged.mock.calls)).toContain("cross_tenant_refused");
  // The tenant's own key reaches its object, and so does each key on the deployment's own host.
  for (const [origin, tenantId] of [
    [HOST, hosted],
    [PUBLIC_URL, hosted],
    [PUBLIC_URL, acme],
  ] as const)
    expect((await listTools(`${origin}/mcp`, await key(tenantId))).status, origin).not.toBe(401);
  logged.mockRestore();
  errors.mockRestore();
});
