// The OAuth server without a platform: the real library over the entries of tenants and registries, from a client's registration
// to the revocation of its grant.
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { DAY_MS, HOUR_MS } from "../../src/core/time.ts";
import { mintSubject, oauthServer, serverMetadata, withResource } from "../../src/identity/oauth/server.ts";
import { resourceOf } from "../../src/identity/tokens/tenant-hosts.ts";
import {
  CREDENTIAL_KEY,
  PUBLIC_URL,
  REDIRECT_URI,
  errorOf,
  oauthObjects,
  presented,
  site,
  tokensOf,
} from "../support/oauth-objects.ts";

const acme = TenantId.parse("acme");
const other = TenantId.parse("other");

beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"], now: Date.UTC(2026, 10, 28) }));
afterEach(() => void vi.useRealTimers());

const wait = (ms: number): unknown => vi.setSystemTime(Date.now() + ms);

test("a client registers, its user consents, and the first call after the token endpoint is accepted", async () => {
  const objects = oauthObjects();
  const clientId = await objects.register();
  const consent = await objects.authorize(clientId, { tenantId: acme, memberId: "m1" });
  expect(consent.redirect.origin + consent.redirect.pathname).toBe(REDIRECT_URI);
  expect(consent.redirect.searchParams.get("state")).toBe("the state");
  expect(consent.redirect.searchParams.get("iss")).toBe(PUBLIC_URL);
  const tokens = tokensOf(await objects.redeem(clientId, consent));
  expect(tokens.resource).toBe(resourceOf(PUBLIC_URL));
  const token = await presented(tokens.access_token);
  expect(token.tenantId).toBe(acme);
  expect(objects.tenant(acme).find(token)).toEqual({
    clientId,
    scopes: ["tools:read"],
    createdAtMs: Date.now(),
    expiresAtMs: Date.now() + HOUR_MS,
  });
});

test("the check of a call agrees with the library's own about every kind of token", async () => {
  const objects = oauthObjects();
  const { clientId, tokens } = await objects.signIn({ tenantId: acme });
  const own = tokens.access_token;
  const [subject = "", grantId = "", secret = ""] = own.split(":");
  const elsewhere = await mintSubject(CREDENTIAL_KEY, other, "m1");
  const texts = [
    own,
    tokens.refresh_token,
    `${subject}:${grantId}:${secret.slice(1)}x`,
    `${elsewhere}:${grantId}:${secret}`,
  ];
  const agree = async (): Promise<boolean[]> => {
    const accepted: boolean[] = [];
    for (const text of texts) {
      const { tenantId, ...token } = await presented(text);
      const found = objects.tenant(tenantId).find(token);
      const validated = await oauthServer(site).validateToken(resourceOf(PUBLIC_URL), text, objects.env());
      expect(found === undefined, text.length.toString()).toBe(validated === null);
      if (found !== undefined && validated !== null) {
        expect(found.scopes).toEqual(validated.scope);
        expect(found.clientId).toBe(validated.clientId);
        expect(found.expiresAtMs).toBe(validated.expiresAt * 1_000);
      }
      accepted.push(found !== undefined);
    }
    return accepted;
  };
  expect(await agree()).toEqual([true, false, false, false]);
  wait(HOUR_MS - 1);
  expect(await agree()).toEqual([true, false, false, false]);
  wait(1);
  expect(await agree()).toEqual([false, false, false, false]);
  texts.push(tokensOf(await objects.refresh(clientId, tokens.refresh_token)).access_token);
  expect(await agree()).toEqual([false, false, false, false, true]);
  await objects.tenant(acme).revoke({ memberIds: ["m1"] });
  expect(await agree()).toEqual([false, false, false, false, false]);
});

test("two refreshes at once get one answer, and both senders can refresh again", async () => {
  const objects = oauthObjects();
  const { clientId, tokens } = await objects.signIn({ tenantId: acme });
  const [first, second] = await Promise.all([
    objects.refresh(clientId, tokens.refresh_token),
    objects.refresh(clientId, tokens.refresh_token),
  ]);
  expect(tokensOf(first)).toEqual(tokensOf(second));
  const late = tokensOf(await objects.refresh(clientId, tokens.refresh_token));
  expect(late).toEqual(tokensOf(first));
  const next = tokensOf(await objects.refresh(clientId, late.refresh_token));
  expect(next.refresh_token).not.toBe(late.refresh_token);
});

test("after a lost answer the old refresh token still works; once its successor was used, its replay ends the grant", async () => {
  const objects = oauthObjects();
  const { clientId, tokens } = await objects.signIn({ tenantId: acme });
  const colleague = await objects.signIn({ tenantId: acme, memberId: "m2" });
  await objects.refresh(clientId, tokens.refresh_token);
  wait(5 * 60_000);
  const recovered = tokensOf(await objects.refresh(clientId, tokens.refresh_token));
  const newest = tokensOf(await objects.refresh(clientId, recovered.refresh_token));
  const works = async (token: string): Promise<boolean> =>
    objects.tenant(acme).find(await presented(token)) !== undefined;
  // A made-up token of the grant proves no second holder.
  const guess = `${tokens.refresh_token.slice(0, -4)}AAAA`;
  expect(errorOf(await objects.refresh(clientId, guess))).toBe("invalid_grant");
  expect(await works(newest.access_token)).toBe(true);
  const replayed = await objects.refresh(clientId, tokens.refresh_token);
  expect([replayed.status, errorOf(replayed)]).toEqual([400, "invalid_grant"]);
  expect(await works(newest.access_token)).toBe(false);
  expect(errorOf(await objects.refresh(clientId, newest.refresh_token))).toBe("invalid_grant");
  expect(await works(colleague.tokens.access_token)).toBe(true);
});

test("a code is redeemed once, also by two requests at once, and its replay ends the grant", async () => {
  const objects = oauthObjects();
  const clientId = await objects.register();
  const consent = await objects.authorize(clientId, { tenantId: acme });
  const answers = await Promise.all([objects.redeem(clientId, consent), objects.redeem(clientId, consent)]);
  expect(answers.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 400]);
  const won = answers.find(({ status }) => status === 200);
  if (won === undefined) throw new Error("no answer won");
  expect(objects.tenant(acme).find(await presented(tokensOf(won).access_token))).toBeUndefined();
  expect(errorOf(await objects.refresh(clientId, tokensOf(won).refresh_token))).toBe("invalid_grant");
});

test("a code needs its verifier and its client", async () => {
  const objects = oauthObjects();
  const clientId = await objects.register();
  const consent = await objects.authorize(clientId, { tenantId: acme });
  expect(errorOf(await objects.redeem(clientId, { ...consent, verifier: "v".repeat(43) }))).toBe("invalid_grant");
  expect(errorOf(await objects.redeem(await objects.register(), consent))).toBe("invalid_grant");
  expect((await objects.redeem(clientId, consent)).status).toBe(200);
});

test("a revoked grant is refused on the next call and at the next refresh, by whichever way it was revoked", async () => {
  const objects = oauthObjects();
  const ways = [
    (clientId: string, token: string) => objects.token({ client_id: clientId, token }),
    async () => objects.tenant(acme).revoke({ memberIds: ["m1"] }),
    async (_clientId: string, token: string) =>
      objects.tenant(acme).revoke({ grantId: (await presented(token)).grantId }),
  ];
  for (const revoke of ways) {
    const { clientId, tokens } = await objects.signIn({ tenantId: acme });
    // The answer of this refresh could be repeated, were the grant not revoked.
    const renewed = tokensOf(await objects.refresh(clientId, tokens.refresh_token));
    await revoke(clientId, renewed.refresh_token);
    for (const { access_token: access } of [tokens, renewed])
      expect(objects.tenant(acme).find(await presented(access))).toBeUndefined();
    for (const { refresh_token: refresh } of [tokens, renewed]) {
      const refused = await objects.refresh(clientId, refresh);
      expect([refused.status, errorOf(refused)]).toEqual([400, "invalid_grant"]);
    }
    expect(await objects.tenant(acme).grants({ limit: 10 })).toEqual({ grants: [], next: null });
  }
});

test("a refresh that runs while its grant is revoked does not bring the grant back", async () => {
  const objects = oauthObjects();
  const { clientId, tokens } = await objects.signIn({ tenantId: acme });
  let revoking: Promise<number> | undefined;
  objects.duringRefresh(async () => {
    revoking = objects.tenant(acme).revoke({ memberIds: ["m1"] });
    await new Promise((resolve) => setTimeout(resolve, 20));
  });
  const renewed = tokensOf(await objects.refresh(clientId, tokens.refresh_token));
  expect(await revoking).toBe(1);
  expect(objects.tenant(acme).find(await presented(renewed.access_token))).toBeUndefined();
  expect(errorOf(await objects.refresh(clientId, renewed.refresh_token))).toBe("invalid_grant");
  expect((await objects.tenant(acme).grants({ limit: 10 }))?.grants).toEqual([]);
});

test("a member who is removed, or signed in too long ago, cannot refresh, and the grant ends", async () => {
  const objects = oauthObjects();
  const gone = await objects.signIn({ tenantId: acme, memberId: "gone" });
  objects.removeMember("gone");
  expect(errorOf(await objects.refresh(gone.clientId, gone.tokens.refresh_token))).toBe("invalid_grant");
  let { clientId, tokens } = await objects.signIn({ tenantId: acme, memberId: "stays" });
  for (let day = 0; day < 84; day += 28) {
    wait(28 * DAY_MS);
    tokens = tokensOf(await objects.refresh(clientId, tokens.refresh_token));
  }
  wait(6 * DAY_MS);
  expect(errorOf(await objects.refresh(clientId, tokens.refresh_token))).toBe("invalid_grant");
  expect((await objects.tenant(acme).grants({ limit: 10 }))?.grants).toEqual([]);
});

test("a grant that no client renews for 30 days ends", async () => {
  const objects = oauthObjects();
  const { clientId, tokens } = await objects.signIn({ tenantId: acme });
  wait(30 * DAY_MS);
  expect(errorOf(await objects.refresh(clientId, tokens.refresh_token))).toBe("invalid_grant");
});

test("a page names the client by what is proven: its redirect host, and whether the code stays on the user's machine", async () => {
  const objects = oauthObjects();
  const id = await objects.register({ redirect_uris: [REDIRECT_URI, "http://127.0.0.1/callback"] });
  const { fields } = await objects.requestOf(id);
  const client = { id, name: "A client", domain: undefined, redirectHost: "client.example", isLocal: false };
  expect(await objects.ask(fields)).toMatchObject({ kind: "asks", client });
  // RFC 8252, 7.3: a program on the user's machine may listen on any port.
  expect(await objects.ask({ ...fields, redirect_uri: "http://127.0.0.1:49152/callback" })).toMatchObject({
    client: { ...client, redirectHost: "127.0.0.1", isLocal: true },
  });
});

test.each([
  ["an unknown client", { client_id: "unknown" }, "refused"],
  ["no client", { client_id: undefined }, "refused"],
  ["a client id of many characters", { client_id: "x".repeat(10_000) }, "refused"],
  ["no redirect URI", { redirect_uri: undefined }, "refused"],
  ["another redirect URI", { redirect_uri: "https://evil.example/callback" }, "refused"],
  ["a longer redirect URI", { redirect_uri: `${REDIRECT_URI}/x` }, "refused"],
  ["a redirect URI with a query", { redirect_uri: `${REDIRECT_URI}?x=1` }, "refused"],
  ["an odd scheme that is registered", { redirect_uri: "cursor://anysphere.cursor-mcp/callback" }, "refused"],
  ["no verifier's challenge", { code_challenge: undefined, code_challenge_method: undefined }, "redirect"],
  ["a challenge in plain text", { code_challenge_method: "plain" }, "redirect"],
  ["the implicit flow", { response_type: "token" }, "redirect"],
  ["another resource", { resource: "https://elsewhere.example/mcp" }, "redirect"],
  ["the resource with a slash", { resource: `${PUBLIC_URL}/mcp/` }, "asks"],
  ["no resource", { resource: undefined }, "asks"],
] as const)("a request with %s is answered by the right party", async (_name, change, kind) => {
  const objects = oauthObjects();
  const id = await objects.register({ redirect_uris: [REDIRECT_URI, "cursor://anysphere.cursor-mcp/callback"] });
  const answer = await objects.ask({ ...(await objects.requestOf(id)).fields, ...change });
  expect(answer.kind).toBe(kind);
  if (answer.kind === "redirect") {
    expect(answer.to.startsWith(`${REDIRECT_URI}?`)).toBe(true);
    const error = new URL(answer.to).searchParams;
    expect([error.get("state"), error.get("iss"), error.get("code")]).toEqual(["the state", PUBLIC_URL, null]);
  }
});

test("a registration without a consent ends after a day, and with one it lasts", async () => {
  const objects = oauthObjects();
  const unused = await objects.register();
  const { clientId, tokens } = await objects.signIn({ tenantId: acme });
  wait(DAY_MS);
  expect((await objects.ask((await objects.requestOf(unused)).fields)).kind).toBe("refused");
  expect((await objects.ask((await objects.requestOf(clientId)).fields)).kind).toBe("asks");
  expect((await objects.refresh(clientId, tokens.refresh_token)).status).toBe(200);
});

test("a second consent for the same client and member replaces the first grant, and no other member's", async () => {
  const objects = oauthObjects();
  const clientId = await objects.register();
  const who = { tenantId: acme, memberId: "m1" };
  const first = tokensOf(await objects.redeem(clientId, await objects.authorize(clientId, who)));
  const others = [
    await objects.authorize(clientId, { ...who, memberId: "m2" }),
    await objects.authorize(clientId, { ...who, tenantId: other }),
  ];
  const second = tokensOf(await objects.redeem(clientId, await objects.authorize(clientId, who)));
  expect(objects.tenant(acme).find(await presented(first.access_token))).toBeUndefined();
  expect(objects.tenant(acme).find(await presented(second.access_token))).toBeDefined();
  for (const consent of others) expect((await objects.redeem(clientId, consent)).status).toBe(200);
  const members = (await objects.tenant(acme).grants({ limit: 10 }))?.grants.map(({ memberId }) => memberId);
  expect(members?.toSorted()).toEqual(["m1", "m2"]);
});

test("a forged code or token is refused without asking any tenant's object", async () => {
  const objects = oauthObjects();
  const { clientId, tokens } = await objects.signIn({ tenantId: acme });
  const forger = await mintSubject("another root key", acme, "m1");
  const [subject = "", grantId = "", secret = ""] = tokens.refresh_token.split(":");
  const forged = [`${forger}:${grantId}:${secret}`, `${subject.slice(0, -2)}AA:${grantId}:${secret}`, "x", "a:b:c", ""];
  objects.asked.length = 0;
  for (const text of forged) {
    expect((await objects.refresh(clientId, text)).status, text).toBe(400);
    expect((await objects.redeem(clientId, { code: text, verifier: "v" })).status, text).toBe(400);
    expect((await objects.token({ client_id: clientId, token: text })).status, text).toBeLessThan(500);
  }
  expect(objects.asked).toEqual([]);
});

test("an object refuses the entries of another tenant", async () => {
  const objects = oauthObjects();
  const { tokens } = await objects.signIn({ tenantId: other });
  const { subject, grantId } = await presented(tokens.access_token);
  const key = `grant:${subject}:${grantId}`;
  await expect(objects.tenant(acme).get(key)).rejects.toThrow("not the tenant's");
  await expect(objects.tenant(acme).put(key, { value: "{}" })).rejects.toThrow("not the tenant's");
  await expect(objects.tenant(acme).delete(key)).rejects.toThrow("not the tenant's");
  await expect(objects.tenant(acme).list(`grant:${subject}:`, { limit: 1 })).rejects.toThrow("not the tenant's");
  await expect(objects.tenant(acme).get("client:a")).rejects.toThrow("not the tenant's");
});

test("a fault of ours is a 503 that names the time of a retry, never a 4xx", async () => {
  const objects = oauthObjects();
  const { clientId, tokens } = await objects.signIn({ tenantId: acme });
  objects.failRegistries();
  for (const answer of [
    await objects.refresh(clientId, tokens.refresh_token),
    await objects.token({ client_id: clientId, token: tokens.refresh_token }),
    await objects.token({ grant_type: "refresh_token", client_id: clientId, refresh_token: "forged" }),
  ]) {
    expect([answer.status, errorOf(answer), answer.headers["retry-after"]]).toEqual([
      503,
      "temporarily_unavailable",
      "5",
    ]);
    expect(answer.headers["cache-control"]).toBe("no-store");
  }
  // The refresh token has not been used up.
  expect(objects.tenant(acme).find(await presented(tokens.access_token))).toBeDefined();
});

test("a registration is bounded in size and in redirect URIs, and an odd scheme beside a good one is stored", async () => {
  const objects = oauthObjects();
  await expect(objects.register({ client_name: "n".repeat(9_000) })).rejects.toThrow("400");
  const uris = Array.from({ length: 21 }, (_, number) => `https://client.example/${number}`);
  await expect(objects.register({ redirect_uris: uris })).rejects.toThrow("400");
  await expect(objects.register({ redirect_uris: ["javascript:alert(1)"] })).rejects.toThrow("400");
  await objects.register({ redirect_uris: [REDIRECT_URI, "cursor://anysphere.cursor-mcp/oauth/callback"] });
});

test("the metadata names the endpoints, S256, and in OpenID Connect's form what its readers require", async () => {
  const oauth = await serverMetadata(site, "oauth");
  expect(oauth).toMatchObject({
    issuer: PUBLIC_URL,
    authorization_endpoint: `${PUBLIC_URL}/oauth/authorize`,
    token_endpoint: `${PUBLIC_URL}/oauth/token`,
    registration_endpoint: `${PUBLIC_URL}/oauth/register`,
    revocation_endpoint: `${PUBLIC_URL}/oauth/revoke`,
    code_challenge_methods_supported: ["S256"],
    authorization_response_iss_parameter_supported: true,
    protected_resources: [resourceOf(PUBLIC_URL), "https://hosted.example/mcp"],
  });
  expect(await serverMetadata(site, "openid")).toMatchObject({ ...oauth, subject_types_supported: ["public"] });
});

test.each([
  ["the published spelling", ["/mcp"], ["/mcp"]],
  ["a slash at the end", ["/mcp/"], ["/mcp"]],
  ["another resource", ["/other/"], ["/other/"]],
  ["two slashes", ["/mcp//"], ["/mcp//"]],
  ["no resource", [], []],
])("with %s in a request, the library sees the right one", (_name, sent, seen) => {
  const form = new URLSearchParams(sent.map((path) => ["resource", PUBLIC_URL + path]));
  form.append("client_id", "a b");
  const fields = new URLSearchParams(withResource(form.toString(), site));
  expect(fields.getAll("resource")).toEqual(seen.map((path) => PUBLIC_URL + path));
  expect(fields.get("client_id")).toBe("a b");
});
