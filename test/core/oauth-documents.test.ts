// Clients with a metadata document (CIMD): what a fault of the document, of its host or of the network does to their grants.
import { SignJWT, exportJWK, generateKeyPair } from "jose";
import { expect, onTestFinished, test, vi } from "vitest";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { resourceOf } from "../../src/identity/tokens/tenant-hosts.ts";
import { PUBLIC_URL, REDIRECT_URI, errorOf, oauthObjects, tokensOf } from "../support/oauth-objects.ts";

const acme = TenantId.parse("acme");
const id = "https://agent.example/client.json";
const document = {
  client_id: id,
  client_name: "Agent",
  redirect_uris: [REDIRECT_URI],
  token_endpoint_auth_method: "none",
};

/** The world outside answers each URL so, until the test ends. */
function outside(answer: (url: string) => Response): void {
  // The library reads documents only where the platform keeps its requests out of the operator's own network.
  vi.stubGlobal("Cloudflare", { compatibilityFlags: { global_fetch_strictly_public: true } });
  const fetched = vi
    .spyOn(globalThis, "fetch")
    .mockImplementation(async (input) => answer(input instanceof Request ? input.url : String(input)));
  const warned = vi.spyOn(console, "warn").mockImplementation(() => {});
  onTestFinished(() => {
    vi.unstubAllGlobals();
    fetched.mockRestore();
    warned.mockRestore();
  });
}

const away = (): Response => {
  throw new TypeError("fetch failed");
};
const html = (): Response => new Response("<html>Are you human?", { headers: { "content-type": "text/html" } });

test.each<[string, () => Response, 401 | 503]>([
  ["cannot be reached", away, 503],
  ["does not answer for its host", () => new Response(null, { status: 502 }), 503],
  ["is behind a limit", () => new Response(null, { status: 429 }), 503],
  ["is behind a login", () => new Response(null, { status: 403 }), 503],
  ["is a page that asks for a human", html, 503],
  ["is larger than the library reads", () => new Response("x".repeat(100_000)), 503],
  ["is gone", () => new Response(null, { status: 404 }), 401],
  ["is gone for good", () => new Response(null, { status: 410 }), 401],
  ["is of another client", () => Response.json({ ...document, client_id: `${id}2` }), 401],
  ["is a list", () => Response.json([document]), 401],
  ["has no name", () => Response.json({ ...document, client_name: "" }), 401],
  ["has no redirect URIs", () => Response.json({ ...document, redirect_uris: [] }), 401],
  ["has a dangerous redirect URI", () => Response.json({ ...document, redirect_uris: ["javascript:x"] }), 401],
  ["has a number as its name", () => Response.json({ ...document, client_name: 1 }), 401],
  ["has a secret", () => Response.json({ ...document, client_secret: "s" }), 401],
  ["has a private key", () => Response.json({ ...document, jwks: { keys: [{ kty: "EC", d: "x" }] } }), 401],
  [
    "wants a secret to authenticate",
    () => Response.json({ ...document, token_endpoint_auth_method: "client_secret_post" }),
    401,
  ],
])(
  "a refresh of a client whose document %s tells a fault of the network from one of the client",
  async (_, answer, status) => {
    let now: () => Response = () => Response.json(document);
    outside(() => now());
    const objects = oauthObjects();
    const tokens = tokensOf(await objects.redeem(id, await objects.authorize(id, { tenantId: acme })));
    now = answer;
    const refused = await objects.refresh(id, tokens.refresh_token);
    expect([refused.status, errorOf(refused)]).toEqual([
      status,
      status === 503 ? "temporarily_unavailable" : "invalid_client",
    ]);
    expect(await objects.ask((await objects.requestOf(id)).fields)).toMatchObject({
      ...{ kind: "refused", reason: status === 503 ? "client_unreadable" : "bad_request" },
    });
    // Neither ends the grant: the client may be whole again.
    now = () => Response.json(document);
    expect((await objects.refresh(id, tokens.refresh_token)).status).toBe(200);
  },
);

test("a client whose keys cannot be fetched is asked to try again, and one with another key is refused", async () => {
  const { privateKey, publicKey } = await generateKeyPair("ES256", { extractable: true });
  const keysUrl = "https://agent.example/keys.json";
  const isKnown = { ...document, token_endpoint_auth_method: "private_key_jwt", jwks_uri: keysUrl };
  let keys: () => Response = away;
  outside((url) => (url === keysUrl ? keys() : Response.json(isKnown)));
  const objects = oauthObjects();
  const consent = await objects.authorize(id, { tenantId: acme });
  const redeem = async (key: CryptoKey, jti: string) =>
    objects.token({
      ...{ grant_type: "authorization_code", client_id: id, code: consent.code, code_verifier: consent.verifier },
      ...{ redirect_uri: REDIRECT_URI, resource: resourceOf(PUBLIC_URL) },
      client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
      client_assertion: await new SignJWT({ jti })
        .setProtectedHeader({ alg: "ES256", kid: "k1" })
        .setIssuer(id)
        .setSubject(id)
        .setAudience(PUBLIC_URL)
        .setIssuedAt(Math.floor(Date.now() / 1_000))
        .setExpirationTime(Math.floor(Date.now() / 1_000) + 60)
        .sign(key),
    });
  for (const fault of [away, () => new Response(null, { status: 500 })]) {
    keys = fault;
    expect((await redeem(privateKey, "a")).status).toBe(503);
  }
  const jwks = { keys: [{ ...(await exportJWK(publicKey)), kid: "k1", alg: "ES256", use: "sig" }] };
  keys = () => Response.json(jwks);
  const stranger = await generateKeyPair("ES256");
  expect((await redeem(stranger.privateKey, "b")).status).toBe(401);
  expect((await redeem(privateKey, "c")).status).toBe(200);
});

test("a client with a metadata document is named by its domain, and an outage of that domain ends no grant", async () => {
  let isAway = false;
  outside((url) => {
    expect(url).toBe(id);
    return isAway ? new Response(null, { status: 502 }) : Response.json(document);
  });
  const objects = oauthObjects();
  const { fields } = await objects.requestOf(id);
  expect(await objects.ask(fields)).toMatchObject({ kind: "asks", client: { name: "Agent", domain: "agent.example" } });
  const tokens = tokensOf(await objects.redeem(id, await objects.authorize(id, { tenantId: acme })));
  isAway = true;
  expect(await objects.ask(fields)).toMatchObject({ kind: "refused", reason: "client_unreadable" });
  expect((await objects.refresh(id, tokens.refresh_token)).status).toBe(503);
  isAway = false;
  expect((await objects.refresh(id, tokens.refresh_token)).status).toBe(200);
});
