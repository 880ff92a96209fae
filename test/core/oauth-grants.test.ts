// What admins see of the clients that members have let in, and handles that another browser brings.
import { AuthorizationError } from "@cloudflare/workers-oauth-provider";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { queryOf } from "../../src/identity/oauth/authorize.ts";
import { oauthServer } from "../../src/identity/oauth/server.ts";
import type { PresentedToken } from "../../src/identity/oauth/grants.ts";
import { HOUR_MS } from "../../src/core/time.ts";
import { PUBLIC_URL, oauthObjects, presented, site } from "../support/oauth-objects.ts";

const acme = TenantId.parse("acme");
type SignedIn = PresentedToken & { clientId: string; refresh: string };
const START = Date.UTC(2026, 10, 28);

beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"], now: START }));
afterEach(() => void vi.useRealTimers());

test("an admin sees each grant with its client's name and its last use to the minute, which a refresh keeps", async () => {
  const objects = oauthObjects();
  const { clientId, tokens } = await objects.signIn({ tenantId: acme });
  const grants = objects.tenant(acme);
  const shown = async () => (await grants.grants({ limit: 10 }))?.grants[0];
  expect(await shown()).toMatchObject({ clientId, clientName: "A client", memberId: "m1", lastUsedAtMs: null });
  const token = await presented(tokens.access_token);
  for (const afterMs of [1_000, 30_000, 60_999, 61_000]) {
    vi.setSystemTime(START + afterMs);
    grants.noteUse(token);
  }
  expect(await shown()).toMatchObject({ lastUsedAtMs: START + 61_000 });
  await objects.refresh(clientId, tokens.refresh_token);
  expect(await shown()).toMatchObject({ lastUsedAtMs: START + 61_000 });
});

test("a token that was found is not read again, and any write of the tenant's entries ends that at once", async () => {
  const objects = oauthObjects();
  const grants = objects.tenant(acme);
  const { clientId, tokens } = await objects.signIn({ tenantId: acme });
  const token = await presented(tokens.access_token);
  const readsOf = (work: () => unknown): number => {
    const before = objects.readsNow();
    work();
    return objects.readsNow() - before;
  };
  expect(readsOf(() => grants.find(token))).toBe(1);
  expect(readsOf(() => [1, 2, 3].map(() => grants.find(token)))).toBe(0);
  // To note a use writes nothing that a call reads.
  expect(readsOf(() => (grants.noteUse(token), grants.find(token)))).toBe(0);
  await objects.refresh(clientId, tokens.refresh_token);
  expect(readsOf(() => grants.find(token))).toBe(1);
  expect(grants.find(token)).toMatchObject({ clientId, scopes: ["tools:read"] });
  // An expired token is refused although it was found before.
  vi.setSystemTime(START + HOUR_MS);
  expect(grants.find(token)).toBeUndefined();
});

test.each<[string, (objects: ReturnType<typeof oauthObjects>, signedIn: SignedIn) => Promise<unknown>]>([
  ["an admin ends the grant", (objects, { grantId }) => objects.tenant(acme).revoke({ grantId })],
  ["the member is removed", (objects) => objects.tenant(acme).revoke({ memberIds: ["m1"] })],
  ["the client revokes", (objects, { clientId, refresh }) => objects.token({ client_id: clientId, token: refresh })],
  [
    "the Worker deletes the grant",
    (objects, { subject, grantId }) => objects.tenant(acme).delete(`grant:${subject}:${grantId}`),
  ],
  [
    "the Worker deletes the token",
    (objects, { subject, grantId, tokenHash }) =>
      objects.tenant(acme).delete(`token:${subject}:${grantId}:${tokenHash}`),
  ],
  ["the member lets the client in again", (objects, { clientId }) => objects.authorize(clientId, { tenantId: acme })],
])("a token that was found a moment ago is refused once %s", async (_, end) => {
  const objects = oauthObjects();
  const { clientId, tokens } = await objects.signIn({ tenantId: acme });
  const token = await presented(tokens.access_token);
  expect(objects.tenant(acme).find(token)).toBeDefined();
  await end(objects, { ...token, clientId, refresh: tokens.refresh_token });
  expect(objects.tenant(acme).find(token)).toBeUndefined();
});

test("the pages of the grants are all of them, each once, and a page after a grant that has ended is refused", async () => {
  const objects = oauthObjects();
  for (const memberId of ["m1", "m2", "m3", "m4", "m5"]) await objects.signIn({ tenantId: acme, memberId });
  const grants = objects.tenant(acme);
  const seen: string[] = [];
  let after: string | undefined;
  do {
    const page = await grants.grants({ limit: 2, after });
    if (page === undefined) throw new Error("no page");
    seen.push(...page.grants.map(({ memberId }) => memberId));
    after = page.next ?? undefined;
    // A cursor shows nothing of a member's credential.
    if (after !== undefined) expect(after).toMatch(/^[\w-]{16}$/);
  } while (after !== undefined);
  expect(seen.toSorted()).toEqual(["m1", "m2", "m3", "m4", "m5"]);
  const first = await grants.grants({ limit: 1 });
  const ended = first?.next ?? "";
  await grants.revoke({ grantId: ended });
  expect(await grants.grants({ limit: 1, after: ended })).toBeUndefined();
});

test("a request survives the way over the provider unchanged", async () => {
  const objects = oauthObjects();
  const { fields } = await objects.requestOf(await objects.register());
  const state = "a state with & = + % ü and spaces";
  const first = await objects.ask({ ...fields, state });
  if (first.kind !== "asks") throw new Error(first.kind);
  const again = await objects.ask(Object.fromEntries(new URLSearchParams(queryOf(first.request))));
  expect(again).toEqual(first);
});

test("a consent or a sign-in that began in another browser is refused, and so is a handle that was used (fixation)", async () => {
  const objects = oauthObjects();
  const read = await objects.ask((await objects.requestOf(await objects.register())).fields);
  if (read.kind !== "asks") throw new Error(read.kind);
  const api = oauthServer(site).getOAuthApi(objects.env());
  const cookieOf = (headers: Headers): string => (headers.get("set-cookie") ?? "").split(";", 1)[0] ?? "";
  const posted = (cookie: string): Request => new Request(PUBLIC_URL, { method: "POST", headers: { cookie } });
  const consent = await api.beginConsent(read.request);
  const other = await api.beginConsent(read.request);
  for (const cookie of ["", cookieOf(other.headers), "__Host-oauth-consent=x"])
    await expect(api.approveConsent(posted(cookie), consent.handle)).rejects.toThrow(AuthorizationError);
  const own = posted(cookieOf(consent.headers));
  expect((await api.approveConsent(own, consent.handle)).request).toEqual(read.request);
  await expect(api.approveConsent(own, consent.handle)).rejects.toThrow(AuthorizationError);

  const upstream = await api.beginUpstream(read.request, { data: { verifier: "v" } });
  const back = (cookie: string, state = upstream.state): Request =>
    new Request(`${PUBLIC_URL}/oauth/callback?state=${state}&code=c`, { headers: { cookie } });
  await expect(api.finishUpstream(back(""))).rejects.toThrow(AuthorizationError);
  await expect(api.finishUpstream(back(cookieOf(upstream.headers), other.handle))).rejects.toThrow(AuthorizationError);
  expect((await api.finishUpstream(back(cookieOf(upstream.headers)))).data).toEqual({ verifier: "v" });
  await expect(api.finishUpstream(back(cookieOf(upstream.headers)))).rejects.toThrow(AuthorizationError);
});
