// Clients that sign their requests with a key of their metadata document (RFC 7523), as ChatGPT does.
import { SignJWT, exportJWK, generateKeyPair } from "jose";
import { expect, onTestFinished, test, vi } from "vitest";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { oauthPaths } from "../../src/identity/oauth/server.ts";
import { PUBLIC_URL, REDIRECT_URI, errorOf, oauthObjects, tokensOf } from "../support/oauth-objects.ts";

const acme = TenantId.parse("acme");
const id = "https://agent.example/client.json";

test("a client proves itself by a signed assertion, each good once, and no other key and no bare request passes", async () => {
  vi.stubGlobal("Cloudflare", { compatibilityFlags: { global_fetch_strictly_public: true } });
  const [own, other] = await Promise.all([generateKeyPair("ES256"), generateKeyPair("ES256")]);
  const document = {
    ...{ client_id: id, client_name: "Agent", redirect_uris: [REDIRECT_URI] },
    ...{ token_endpoint_auth_method: "private_key_jwt", token_endpoint_auth_signing_alg: "ES256" },
    jwks: { keys: [{ ...(await exportJWK(own.publicKey)), kid: "k1", alg: "ES256", use: "sig" }] },
  };
  const fetched = vi.spyOn(globalThis, "fetch").mockImplementation(async () => Response.json(document));
  onTestFinished(() => {
    vi.unstubAllGlobals();
    fetched.mockRestore();
  });
  const assertion = (key = own.privateKey, audience = PUBLIC_URL): Promise<string> =>
    new SignJWT({ jti: crypto.randomUUID() })
      .setProtectedHeader({ alg: "ES256", kid: "k1" })
      .setIssuer(id)
      .setSubject(id)
      .setAudience(audience)
      .setIssuedAt()
      .setExpirationTime("1m")
      .sign(key);
  const objects = oauthObjects();
  const { code, verifier } = await objects.authorize(id, { tenantId: acme });
  const redeem = (proof: Record<string, string>) =>
    objects.token({
      ...{ grant_type: "authorization_code", client_id: id, code, code_verifier: verifier, redirect_uri: REDIRECT_URI },
      ...proof,
    });
  const signed = (jwt: string) => ({
    client_assertion: jwt,
    client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
  });
  for (const proof of [
    {},
    signed(await assertion(other.privateKey)),
    signed(await assertion(own.privateKey, "https://elsewhere.example")),
    signed("made-up"),
  ]) {
    const refused = await redeem(proof);
    expect([refused.status, errorOf(refused)]).toEqual([401, "invalid_client"]);
  }
  const first = await assertion(own.privateKey, PUBLIC_URL + oauthPaths.token);
  const tokens = tokensOf(await redeem(signed(first)));
  const refresh = (jwt: string) =>
    objects.token({
      ...{ grant_type: "refresh_token", client_id: id, refresh_token: tokens.refresh_token },
      ...signed(jwt),
    });
  expect(errorOf(await refresh(first))).toBe("invalid_client");
  expect((await refresh(await assertion())).status).toBe(200);
});
