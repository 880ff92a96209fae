// Enterprise-managed authorization: a client that the organisation's provider vouches for gets a token without a browser, for a member
// of that organisation who has signed in once, and no other.
import { expect, test } from "vitest";
import * as z from "zod";
import { ASSERTION_GRANT } from "../../src/identity/providers/id-jag.ts";
import { callTool, operator, system } from "../support/flow.ts";
import { type View, providerPath, proveDomains, setProvider, signInAt } from "../support/own-providers.ts";
import { anOwnedTenant, send } from "../support/people.ts";
import { Browser, REDIRECT, aPerson, realUrl } from "../support/sign-in.ts";
import { createHash, randomUUID } from "node:crypto";

const Registered = z.object({ client_id: z.string(), client_secret: z.string() });
type Credentials = { clientId: string; clientSecret: string };

async function register(url: string, redirectUri: string): Promise<Credentials> {
  const response = await fetch(realUrl(new URL(url)), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      client_name: "An agent",
      redirect_uris: [redirectUri],
      token_endpoint_auth_method: "client_secret_post",
    }),
  });
  const { client_id: clientId, client_secret: clientSecret } = Registered.parse(await response.json());
  return { clientId, clientSecret };
}

const post = (url: string, { clientId, clientSecret }: Credentials, fields: Record<string, string>) =>
  fetch(realUrl(new URL(url)), {
    method: "POST",
    body: new URLSearchParams({ ...fields, client_id: clientId, client_secret: clientSecret }),
  });

/** A tenant whose provider is at a public name, with a proved domain. */
async function aCompany(overrides: Record<string, unknown> = {}) {
  const tenant = await anOwnedTenant();
  const issuer = `https://${tenant.id}.idp.example`;
  const own = await register(`${issuer}/register`, `${system.publicUrl}/oauth/callback`);
  const domain = `${tenant.id}.example`;
  const settings = { kind: "oidc", issuer, ...own, domains: [domain], idJag: true, ...overrides };
  const view: View = await setProvider(tenant, settings);
  await proveDomains(tenant, view);
  return { tenant, issuer: settings.issuer, domain, settings, slug: view.slug };
}

/** The agent signs its person in at the provider and gets an ID token there. */
async function idTokenOf(issuer: string, client: Credentials, sub: string): Promise<string> {
  const verifier = `${randomUUID()}${randomUUID()}`;
  const query = new URLSearchParams({
    ...{ response_type: "code", client_id: client.clientId, redirect_uri: REDIRECT, scope: "openid email", state: "s" },
    ...{ code_challenge: createHash("sha256").update(verifier).digest("base64url"), code_challenge_method: "S256" },
  });
  const browser = new Browser();
  const back = await browser.submit(await browser.page(`${issuer}/authorize?${query.toString()}`), { sub });
  if (!(back instanceof URL)) throw new Error("no way back");
  const answer = await post(`${issuer}/token`, client, {
    ...{ grant_type: "authorization_code", code: back.searchParams.get("code") ?? "", redirect_uri: REDIRECT },
    code_verifier: verifier,
  });
  return z.object({ id_token: z.string() }).parse(await answer.json()).id_token;
}

/** An agent with a client at the provider and one at Tollgate, and its exchanges. */
async function anAgentAt(issuer: string) {
  const atProvider = await register(`${issuer}/register`, REDIRECT);
  const atTollgate = await register(`${system.publicUrl}/oauth/register`, "https://agent.example/callback");
  const assertionOf = async (sub: string, more: Record<string, string> = {}): Promise<string> => {
    const answer = await post(`${issuer}/token`, atProvider, {
      grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
      requested_token_type: "urn:ietf:params:oauth:token-type:id-jag",
      subject_token: await idTokenOf(issuer, atProvider, sub),
      subject_token_type: "urn:ietf:params:oauth:token-type:id_token",
      ...{ audience: system.publicUrl, audience_client_id: atTollgate.clientId },
      ...{ resource: `${system.publicUrl}/mcp`, scope: "tools:read", ...more },
    });
    return z.object({ access_token: z.string() }).parse(await answer.json()).access_token;
  };
  const exchange = async (assertion: string): Promise<{ status: number; access: string; error?: string }> => {
    const answer = await post(`${system.publicUrl}/oauth/token`, atTollgate, {
      grant_type: ASSERTION_GRANT,
      assertion,
    });
    const body = (await answer.json()) as { access_token?: string; error?: string };
    return { status: answer.status, access: body.access_token ?? "", ...(body.error && { error: body.error }) };
  };
  return { assertionOf, exchange };
}

test("a client gets a token by the organisation's assertion, until the member or the provider is removed", async () => {
  const { tenant, issuer, domain, slug } = await aCompany();
  const sub = await aPerson([], { email: `ada-${randomUUID()}@${domain}` });
  const agent = await anAgentAt(issuer);

  // The provider vouches for a person whom Tollgate does not know yet.
  expect(await agent.exchange(await agent.assertionOf(sub))).toMatchObject({ status: 400, error: "invalid_grant" });
  await signInAt(slug, sub);
  const assertion = await agent.assertionOf(sub);
  const { status, access } = await agent.exchange(assertion);
  expect([status, access.startsWith(`tgo_${tenant.id}.`)]).toEqual([200, true]);
  expect((await callTool(access, "get_usage")).isError).toBeFalsy();
  expect(await agent.exchange(assertion)).toMatchObject({ status: 400, error: "invalid_grant" });
  // The admins see the grant and the act.
  const { grants } = (await (await send("GET", `/api/tenants/${tenant.id}/grants`, tenant.ownerToken)).json()) as {
    grants: { clientName: string; memberId: string }[];
  };
  expect(grants).toEqual([expect.objectContaining({ clientName: "An agent", scopes: ["tools:read"] })]);
  await expect
    .poll(async () => (await send("GET", `/api/tenants/${tenant.id}/audit`, tenant.ownerToken)).text())
    .toContain("assertion.grant");

  const memberId = grants[0]?.memberId ?? "";
  const next = await agent.assertionOf(sub);
  expect((await operator("DELETE", `/tenants/${tenant.id}/members/${memberId}`)).status).toBe(200);
  await expect(callTool(access, "get_usage")).rejects.toThrow("401");
  expect(await agent.exchange(next)).toMatchObject({ status: 400, error: "invalid_grant" });

  const other = await aPerson([], { email: `bo-${randomUUID()}@${domain}` });
  await signInAt(slug, other);
  const second = await agent.exchange(await agent.assertionOf(other));
  expect((await callTool(second.access, "get_usage")).isError).toBeFalsy();
  const last = await agent.assertionOf(other);
  expect((await send("DELETE", providerPath(tenant), tenant.ownerToken)).status).toBe(200);
  await expect(callTool(second.access, "get_usage")).rejects.toThrow("401");
  expect(await agent.exchange(last)).toMatchObject({ status: 400, error: "invalid_grant" });
});

test("an organisation's assertion opens no other organisation, and none where it is not switched on", async () => {
  const [own, other] = [await aCompany(), await aCompany({ idJag: false })];
  const agent = await anAgentAt(own.issuer);
  const otherAgent = await anAgentAt(other.issuer);
  // The same person, a member of the other organisation alone.
  const sub = await aPerson([], { email: `eve-${randomUUID()}@${other.domain}` });
  await signInAt(other.slug, sub);
  expect(await agent.exchange(await agent.assertionOf(sub))).toMatchObject({ status: 400, error: "invalid_grant" });
  expect(await otherAgent.exchange(await otherAgent.assertionOf(sub))).toMatchObject({ error: "invalid_grant" });
  // Switched on, with the same people: no sign-in is needed again.
  await setProvider(other.tenant, { ...other.settings, idJag: true });
  const { access } = await otherAgent.exchange(await otherAgent.assertionOf(sub));
  expect(access.startsWith(`tgo_${other.tenant.id}.`)).toBe(true);
  // Assertions for another server or client, and of another agent's client.
  for (const more of [{ audience: "https://other.example" }, { audience_client_id: "another" }])
    expect((await otherAgent.exchange(await otherAgent.assertionOf(sub, more))).status).toBe(400);
  expect((await agent.exchange(await otherAgent.assertionOf(sub))).status).toBe(400);
});
