// Tenants that bring their own provider: their people find it, sign in there for that tenant alone, and lose what rests on it in the
// moment in which it is removed.
import { expect, onTestFinished, test } from "vitest";
import { callTool, controlRows, operator, system } from "../support/flow.ts";
import {
  anAuth0,
  proveDomains,
  providerPath,
  setProvider,
  signInAt,
  theSameIssuer,
  typeOrganisation,
} from "../support/own-providers.ts";
import { aMember, anOwnedTenant, mailedToken, send } from "../support/people.ts";
import { textOf } from "../support/html.ts";
import { Browser, aPerson, anAuthorization, isSignedIn, redeem, token } from "../support/sign-in.ts";

interface Member {
  id: string;
  email: string | null;
  role: string;
  isBound: boolean;
}
const membersOf = async (tenantId: string): Promise<Member[]> =>
  ((await (await operator("GET", `/tenants/${tenantId}/members`)).json()) as { members: Member[] }).members;

/** Consents as the signed-in person, and returns the client's tokens. */
async function letIn(browser: Browser) {
  const asked = await anAuthorization();
  const back = await browser.submit(await browser.page(asked.url), { decision: "allow" });
  if (!(back instanceof URL)) throw new Error(textOf(back.html));
  return { ...asked, tokens: await redeem(asked, back) };
}

test("people find their organisation's provider by its name or a proved address, sign in and let a client in", async () => {
  const tenant = await anOwnedTenant();
  const domain = `${tenant.id}.example`;
  const view = await setProvider(tenant, {
    ...(await anAuth0()),
    slug: `s-${tenant.id}`.slice(0, 40),
    domains: [domain],
  });
  expect(view).toMatchObject({ delivered: true, domains: [{ domain, isVerified: false }] });
  const sub = await aPerson([], { email: `ada-${crypto.randomUUID()}@${domain}` });

  // An address of a domain that is not proved leads nowhere, and the page says the same of any other text.
  const browser = new Browser();
  const asked = await anAuthorization();
  const choice = await browser.page(asked.url);
  expect(textOf(choice.html)).toContain("Your work e-mail or your organisation's name");
  expect(choice.html).not.toContain(view.slug);
  const unknown = [`ada@${domain}`, "no-such-organisation", "no-one@nowhere.example", "<script>"].map((typed) =>
    typeOrganisation(browser, choice, typed),
  );
  const pages = await Promise.all(unknown);
  for (const page of pages) {
    expect(page.status).toBe(200);
    expect(textOf(page.html)).toContain("No organisation signs in under this name or address.");
    expect(textOf(page.html)).toBe(textOf(pages[0]?.html ?? ""));
  }
  expect((await proveDomains(tenant, view)).status).toBe(200);

  for (const typed of [view.slug, `Anyone@${domain.toUpperCase()}`]) {
    const person = new Browser();
    const own = await anAuthorization();
    const form = await typeOrganisation(person, await person.page(own.url), typed);
    expect(form.url.href).toMatch(new RegExp(`^${system.issuerUrl}/auth0/authorize`));
    expect(form.url.searchParams.get("code_challenge_method")).toBe("S256");
    const consent = await person.submit(form, { sub });
    if (consent instanceof URL) throw new Error("the browser left");
    // An address in the domain makes a member without an invitation.
    const back = await person.submit(consent, { decision: "allow" });
    if (!(back instanceof URL)) throw new Error(textOf(back.html));
    const { access_token: access } = await redeem(own, back);
    expect(access.startsWith(`tgo_${tenant.id}.`)).toBe(true);
    expect((await callTool(access, "get_usage")).isError).toBeFalsy();
  }
  expect(await membersOf(tenant.id)).toContainEqual(expect.objectContaining({ role: "member", isBound: true }));

  // A person of the provider without an address of the organisation needs an invitation.
  const guest = new Browser();
  await signInAt(view.slug, await aPerson([]), guest);
  const refused = await guest.page((await anAuthorization()).url);
  expect([refused.status, textOf(refused.html)]).toEqual([403, expect.stringContaining("Ask an administrator")]);
});

test("a tenant's provider makes its people members of no other tenant, also if it verifies their addresses", async () => {
  const [own, other] = [await anOwnedTenant(), await anOwnedTenant()];
  const { slug, id } = await setProvider(own, await anAuth0());
  // The victim: a member of the other tenant who was added and has not signed in, and an invitation for the same address.
  const email = `victim-${crypto.randomUUID()}@people.example`;
  for (const path of [`/tenants/${other.id}/members`]) await operator("POST", path, { email, role: "owner" });
  const invitation = await mailedToken(email);
  const sub = await aPerson([other.id], { email, emailVerified: true });
  const { browser, page } = await signInAt(slug, sub);
  expect(textOf(page.html)).toContain(`You are signed in as ${email}`);
  expect(textOf(page.html)).toContain("You are a member of no organisation here.");
  expect((await membersOf(other.id)).find((member) => member.email === email)).toMatchObject({ isBound: false });

  // Nor by the invitation's link, as a page and as a request.
  const shown = await browser.page(`${system.publicUrl}/invitation?token=${invitation}`);
  const accepted = await browser.submit(shown, { token: invitation });
  if (accepted instanceof URL) throw new Error("the browser left");
  expect([accepted.status, textOf(accepted.html)]).toEqual([409, expect.stringContaining("another organisation")]);
  const cookie = `__Host-tollgate-session=${browser.session}`;
  const request = await fetch(`${system.publicUrl}/api/invitations/accept`, {
    method: "POST",
    headers: { cookie, origin: system.publicUrl, "content-type": "application/json" },
    body: JSON.stringify({ token: invitation }),
  });
  expect(request.status).toBe(409);
  expect((await membersOf(other.id)).find((member) => member.email === email)).toMatchObject({ isBound: false });
  // The database holds the same by itself.
  await expect(
    controlRows(`UPDATE members SET issuer = $1, subject = 's' WHERE tenant_id = $2 AND email = $3`, [
      `provider:${own.id}:${id}`,
      other.id,
      email,
    ]),
  ).rejects.toThrow("members_of_own_provider");
  // A session of the provider opens no other tenant.
  for (const path of [`/api/tenants/${other.id}/usage`, `/api/tenants/${own.id}/usage`])
    expect((await fetch(`${system.publicUrl}${path}`, { headers: { cookie } })).status).toBe(404);
});

test("a tenant that names the operator's issuer has its own people there, and the operator's sign-in stays as it is", async () => {
  const [tenant, other] = [await anOwnedTenant(), await anOwnedTenant()];
  const { slug } = await setProvider(tenant, { ...(await theSameIssuer()), domains: [`${tenant.id}.example`] });
  const sub = await aPerson([other.id], { email: `both-${crypto.randomUUID()}@people.example` });

  // The same person, by the operator's client: a member of the other tenant, to which the organisation is linked.
  const configured = new Browser();
  const choice = await configured.page(`${system.publicUrl}/sign-in`);
  const link = /<a class="button" href="(?<href>[^"]*)">\s*Local sign-in/.exec(choice.html)?.groups?.["href"] ?? "";
  const form = await configured.page(new URL(link.replaceAll("&amp;", "&"), system.publicUrl).href);
  const page = await configured.submit(form, { sub });
  if (page instanceof URL) throw new Error("the browser left");
  expect((await letIn(configured)).tokens.access_token.startsWith(`tgo_${other.id}.`)).toBe(true);

  // By the tenant's client: no member of either, although issuer and subject are the same.
  const { browser, page: own } = await signInAt(slug, sub);
  expect(textOf(own.html)).toContain("You are a member of no organisation here.");
  expect((await browser.page((await anAuthorization()).url)).status).toBe(403);
  // The address that the tenant speaks for is a member of the tenant alone.
  const mine = await aPerson([other.id], { email: `own-${crypto.randomUUID()}@people.example` });
  await send("POST", `/api/tenants/${tenant.id}/invitations`, tenant.ownerToken, {
    email: (await personOf(mine)).email,
    role: "developer",
  });
  const signedIn = await signInAt(slug, mine);
  expect(textOf(signedIn.page.html)).toMatch(/A tenant: developer/);
  expect((await letIn(signedIn.browser)).tokens.access_token.startsWith(`tgo_${tenant.id}.`)).toBe(true);
  // Another organisation's session is no session of this one.
  const session = configured.session;
  const again = await configured.page(`${system.publicUrl}/sign-in?organisation=${slug}`);
  expect(textOf(again.html)).toContain("You are a member of no organisation here.");
  expect(configured.session).not.toBe(session);
});

async function personOf(sub: string): Promise<{ email: string }> {
  const { people } = (await (await fetch(`${system.issuerUrl}/people`)).json()) as {
    people: { sub: string; email: string }[];
  };
  const person = people.find((each) => each.sub === sub);
  if (person === undefined) throw new Error("no such person");
  return person;
}

test("the removal of a provider ends its sessions and grants at once, and the next provider finds the same members", async () => {
  const tenant = await anOwnedTenant();
  const { person } = await aMember(tenant, "developer");
  const { slug } = await setProvider(tenant, await anAuth0());
  const sub = await aPerson([], { email: person.email });
  // The provider says who has an address of the tenant, also of a member who has signed in elsewhere.
  const { browser } = await signInAt(slug, sub);
  const client = await letIn(browser);
  const before = await membersOf(tenant.id);
  const members = (list: Member[]): unknown => list.map(({ id, role, email }) => ({ id, role, email }));
  expect((await callTool(client.tokens.access_token, "get_usage")).isError).toBeFalsy();

  // An unfinished sign-in and a code of before.
  const unfinished = new Browser();
  const form = await unfinished.page(`${system.publicUrl}/sign-in?organisation=${slug}`);
  const asked = await anAuthorization();
  const back = await browser.submit(await browser.page(asked.url), { decision: "allow" });
  if (!(back instanceof URL)) throw new Error(textOf(back.html));

  const removed = await send("DELETE", providerPath(tenant), tenant.ownerToken);
  expect(await removed.json()).toMatchObject({ removed: true, delivered: true });
  await expect(callTool(client.tokens.access_token, "get_usage")).rejects.toThrow("401");
  expect(await isSignedIn(browser.session)).toBe(false);
  const refreshed = await token({
    ...{ grant_type: "refresh_token", refresh_token: client.tokens.refresh_token, client_id: client.clientId },
  });
  expect(refreshed.status).toBe(400);
  await expect(redeem(asked, back)).rejects.toThrow("400");
  const late = await unfinished.submit(form, { sub });
  if (late instanceof URL) throw new Error("the browser left");
  expect([late.status, textOf(late.html)]).toEqual([403, expect.stringContaining("has changed where it signs in")]);
  expect((await send("GET", providerPath(tenant), tenant.ownerToken)).status).toBe(404);
  const rows = await controlRows(`SELECT client_secret FROM providers WHERE tenant_id = $1`, [tenant.id]);
  expect(rows).toEqual([{ client_secret: null }]);

  await setProvider(tenant, { ...(await theSameIssuer()), slug });
  await new Promise((resolve) => setTimeout(resolve, 1_000)); // tokens of the second of the removal do not count
  const next = await signInAt(slug, sub);
  expect(members(await membersOf(tenant.id))).toEqual(members(before));
  expect((await callTool((await letIn(next.browser)).tokens.access_token, "get_usage")).isError).toBeFalsy();
  // What rested on the former provider stays ended.
  await expect(callTool(client.tokens.access_token, "get_usage")).rejects.toThrow("401");
});

test("a removed member does not come back by the tenant's provider, nor by its next one", async () => {
  const tenant = await anOwnedTenant();
  const domain = `${tenant.id}.example`;
  const first = { ...(await anAuth0()), domains: [domain] };
  const view = await setProvider(tenant, first);
  await proveDomains(tenant, view);
  const sub = await aPerson([], { email: `left-${crypto.randomUUID()}@${domain}` });
  await signInAt(view.slug, sub);
  const member = (await membersOf(tenant.id)).find(({ email }) => email?.startsWith("left-"));
  expect((await operator("DELETE", `/tenants/${tenant.id}/members/${member?.id}`)).status).toBe(200);
  for (const settings of [first, { ...(await theSameIssuer()), domains: [domain] }]) {
    await setProvider(tenant, settings);
    const { page } = await signInAt(view.slug, sub);
    expect(textOf(page.html)).toContain("You are a member of no organisation here.");
  }
});

test("an owner stays who can sign in without the provider, and the operator can remove it in any case", async () => {
  const tenant = await anOwnedTenant();
  const settings = await anAuth0();
  const { slug } = await setProvider(tenant, settings);
  const sub = await aPerson([], { email: tenant.owner.email });
  const { browser } = await signInAt(slug, sub);
  const headers = {
    ...{ cookie: `__Host-tollgate-session=${browser.session}`, origin: system.publicUrl },
    "content-type": "application/json",
  };
  const url = `${system.publicUrl}${providerPath(tenant)}`;
  const body = JSON.stringify({ ...settings, clientId: "another" });
  for (const request of [
    { method: "DELETE", headers },
    { method: "PUT", headers, body },
  ]) {
    const refused = await fetch(url, request);
    expect(refused.status).toBe(409);
    expect(await refused.json()).toMatchObject({ detail: expect.stringContaining("ask support") });
  }
  // What keeps its people can change.
  expect((await fetch(url, { method: "PUT", headers, body: JSON.stringify(settings) })).status).toBe(200);
  expect((await operator("DELETE", `/tenants/${tenant.id}/provider`)).status).toBe(200);
});

test("a client secret goes to its issuer alone, and is in no answer, audit row or readable row", async () => {
  const tenant = await anOwnedTenant();
  const secret = `planted-client-secret-${crypto.randomUUID()}`;
  const settings = { ...(await anAuth0()), clientSecret: secret };
  await setProvider(tenant, settings);
  const answers: string[] = [];
  const put = async (more: Record<string, unknown>): Promise<number> => {
    const answer = await send("PUT", providerPath(tenant), tenant.ownerToken, { ...settings, ...more });
    answers.push(await answer.text());
    return answer.status;
  };
  const { clientSecret: _, ...withoutSecret } = settings;
  // Kept for the same issuer and client, asked for again at any other.
  expect((await send("PUT", providerPath(tenant), tenant.ownerToken, withoutSecret)).status).toBe(200);
  for (const more of [{ issuer: system.issuerUrl, kind: "oidc" }, { clientId: "another" }]) {
    const refused = await send("PUT", providerPath(tenant), tenant.ownerToken, { ...withoutSecret, ...more });
    answers.push(await refused.clone().text());
    expect(refused.status).toBe(400);
    expect(await refused.json()).toMatchObject({ detail: expect.stringContaining("clientSecret") });
  }
  expect(await put({ issuer: "https://169.254.169.254/" })).toBe(400);
  expect(await put({ clientSecret: { a: secret } })).toBe(400);
  // The provider refuses the secret, which is not its client's.
  const sub = await aPerson([]);
  const { page } = await signInAt(tenant.id, sub);
  expect(page.status).toBe(403);
  for (const path of ["/provider", "/audit"])
    answers.push(await (await send("GET", `/api/tenants/${tenant.id}${path}`, tenant.ownerToken)).text());
  answers.push(await (await operator("GET", `/tenants/${tenant.id}/provider`)).text());
  answers.push(await (await operator("GET", `/tenants/${tenant.id}/export`)).text());
  expect(answers.join("\n")).not.toContain(secret);
  const stored = async (): Promise<string> =>
    String(
      (await controlRows(`SELECT client_secret FROM providers WHERE tenant_id = $1`, [tenant.id]))[0]?.[
        "client_secret"
      ],
    );
  const before = await stored();
  expect(before).toMatch(/^v1\./);
  await fetch(`${system.publicUrl}/test/rotate`);
  expect((await stored()).split(".")[1]).not.toBe(before.split(".")[1]);
  const rows = await controlRows(`SELECT to_jsonb(a)::text AS row FROM audit_events a WHERE tenant_id = $1`, [
    tenant.id,
  ]);
  expect(rows.map(({ row }) => row).join("\n")).not.toContain(secret);
  expect(rows.map(({ row }) => row).join("\n")).toContain("saveOwnProvider");
});

test("a name at the sign-in and a proved domain have one tenant", async () => {
  const [first, second] = [await anOwnedTenant(), await anOwnedTenant()];
  const domain = `${first.id}.example`;
  const view = await setProvider(first, { ...(await anAuth0()), slug: "the-first-one", domains: [domain] });
  onTestFinished(async () => {
    await operator("DELETE", `/tenants/${second.id}/provider`);
  });
  for (const slug of [view.slug, first.id]) {
    const taken = await send("PUT", providerPath(second), second.ownerToken, { ...(await anAuth0()), slug });
    expect(taken.status, await taken.clone().text()).toBe(409);
  }
  const claimed = await setProvider(second, { ...(await anAuth0()), domains: [domain] });
  // Each has a record of its own: what the first one publishes proves nothing for the second.
  expect((await proveDomains(first, view)).status).toBe(200);
  const unproved = await send("POST", `${providerPath(second)}/domains`, second.ownerToken);
  expect(await unproved.json()).toMatchObject({ domains: [{ isVerified: false }] });
  expect((await proveDomains(second, claimed)).status).toBe(409);
  expect(
    (await typeOrganisation(new Browser(), await new Browser().page(`${system.publicUrl}/sign-in`), `a@${domain}`)).url
      .origin,
  ).toBe(system.issuerUrl);
});

test("admins see the provider and do not set it, and others do neither", async () => {
  const tenant = await anOwnedTenant();
  const settings = await anAuth0();
  await setProvider(tenant, settings);
  for (const [role, reads] of [
    ["admin", 200],
    ["developer", 403],
  ] as const) {
    const { token: member } = await aMember(tenant, role);
    expect((await send("GET", providerPath(tenant), member)).status).toBe(reads);
    for (const method of ["PUT", "DELETE"])
      expect((await send(method, providerPath(tenant), member, method === "PUT" ? settings : undefined)).status).toBe(
        403,
      );
    expect((await send("POST", `${providerPath(tenant)}/domains`, member)).status).toBe(403);
  }
});
