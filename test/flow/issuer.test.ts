// While an issuer is unreachable, its tokens cannot be verified. Tollgate answers 503 without a challenge, so that a client
// keeps a token that may be valid.
import { type Server, createServer } from "node:http";
import { type CryptoKey, SignJWT, exportJWK, generateKeyPair } from "jose";
import { afterAll, beforeAll, expect, test } from "vitest";
import { freePort } from "../../cli/ports.ts";
import {
  aTenant,
  callTool,
  modernMeta,
  operator,
  postMcp,
  storedCalls,
  system,
  type TestTenant,
} from "../support/flow.ts";

/** A second issuer besides the local one. Tests start and stop it. */
const issuer = `http://127.0.0.1:${await freePort()}`;
let tenant: TestTenant;
let privateKey: CryptoKey;
let jwks: string;

beforeAll(async () => {
  await fetch(`${system.publicUrl}/test/trust?issuer=${issuer}`);
  const pair = await generateKeyPair("ES256");
  privateKey = pair.privateKey;
  jwks = JSON.stringify({ keys: [{ ...(await exportJWK(pair.publicKey)), alg: "ES256", use: "sig" }] });
  tenant = await aTenant();
  const linked = await operator("POST", `/tenants/${tenant.id}/links`, { issuer, organisation: "theirs" });
  expect(linked.status).toBe(201);
});

afterAll(() => fetch(`${system.publicUrl}/test/trust`));

test.each<[string, ((server: Server) => void) | undefined]>([
  ["is not there", undefined],
  ["fails", (server) => void server.on("request", (_, response) => response.writeHead(500).end())],
  ["answers with a page", (server) => void server.on("request", (_, response) => response.end("<h1>Hello</h1>"))],
  ["answers with no keys", (server) => void server.on("request", (_, response) => response.end(`{"error":"busy"}`))],
  ["does not answer", (server) => void server.on("request", () => undefined)],
])("a token is refused temporarily while its issuer %s", async (_, behave) => {
  await using _server = behave === undefined ? undefined : await listen(behave);
  const token = await aToken();
  for (const method of ["tools/list", "tools/call"]) {
    const params = { name: "get_usage", arguments: {}, _meta: modernMeta };
    const response = await postMcp(token, { jsonrpc: "2.0", id: 1, method, params });
    expect(response.status).toBe(503);
    expect(response.headers.get("www-authenticate")).toBeNull();
    expect(await response.json()).toMatchObject({ id: 1, error: { data: { code: "issuer_unavailable" } } });
  }
  // Callers with other credentials are served.
  expect((await callTool(tenant.apiKey, "get_usage")).isError).toBeFalsy();
});

test("the same token is accepted once the issuer answers, and a forged token is refused as invalid", async () => {
  const [good, forged] = await Promise.all([aToken(), aToken((await generateKeyPair("ES256")).privateKey)]);
  await using _server = await listen((server) => void server.on("request", (__, response) => response.end(jwks)));
  expect((await callTool(good, "search_products", { query: "" })).isError).toBeFalsy();
  const refused = await postMcp(forged, { jsonrpc: "2.0", id: 1, method: "tools/list", params: { _meta: modernMeta } });
  expect(refused.status).toBe(401);
  expect(refused.headers.get("www-authenticate")).toContain("invalid_token");
  expect(await storedCalls(tenant.id)).toHaveLength(1);
});

function aToken(key = privateKey): Promise<string> {
  return new SignJWT({ tenant_id: "theirs", scope: "tools:read", sub: "user", jti: crypto.randomUUID() })
    .setProtectedHeader({ alg: "ES256" })
    .setIssuer(issuer)
    .setAudience(`${system.publicUrl}/mcp`)
    .setIssuedAt()
    .setExpirationTime("1h")
    .sign(key);
}

/** Starts a server at the issuer's address. */
async function listen(behave: (server: Server) => void): Promise<AsyncDisposable> {
  const server = createServer();
  behave(server);
  const { port, hostname } = new URL(issuer);
  await new Promise<void>((done, failed) => server.once("error", failed).listen(Number(port), hostname, done));
  return {
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    },
  };
}
