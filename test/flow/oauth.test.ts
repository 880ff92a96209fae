// Clients without a key: they find the OAuth server, a browser opens, the person signs in at their provider and lets the client in
// for one tenant, and the client's calls work until they are refused for a reason.
import { Client as Client2, StreamableHTTPClientTransport as Transport2 } from "@modelcontextprotocol/client";
import { beforeAll, expect, test } from "vitest";
import { type TestTenant, aTenant, callTool, modernMeta, operator, postMcp, system, until } from "../support/flow.ts";
import { textOf } from "../support/html.ts";
import { formsOf } from "../support/plain-browser.ts";
import {
  Browser,
  ClientMemory,
  aPerson,
  anAuthorization,
  isSignedIn,
  redeem,
  signedInClient,
  token,
} from "../support/sign-in.ts";

let acme: TestTenant;
let bolt: TestTenant;
beforeAll(async () => {
  [acme, bolt] = await Promise.all([aTenant(), aTenant()]);
});

const usage = {
  jsonrpc: "2.0",
  id: 1,
  method: "tools/call",
  params: { name: "get_usage", arguments: {}, _meta: modernMeta },
};
const grantsOf = async (tenantId: string) => {
  const response = await operator("GET", `/tenants/${tenantId}/grants`);
  return ((await response.json()) as { grants: { id: string; clientName: string; lastUsedAt: string | null }[] })
    .grants;
};

test("a client of the first SDK signs in, calls, refreshes, and is refused on the call after its revocation", async () => {
  const sub = await aPerson([acme.id]);
  const { memory, client } = await signedInClient({ sub });
  await using connected = client;
  const answer = await connected.callTool({ name: "get_usage", arguments: {} });
  expect(answer.isError).toBeFalsy();
  const issued = memory.tokensNow;
  if (issued?.refresh_token === undefined) throw new Error("no refresh token");
  expect(issued.access_token).toMatch(new RegExp(`^tgo_${acme.id}\\.`));

  // Two processes of the client refresh at once; both can go on.
  const { client_id: clientId } = memory.clientInformationNow as { client_id: string };
  const refresh = (refreshToken: string) =>
    token({ grant_type: "refresh_token", refresh_token: refreshToken, client_id: clientId });
  const both = await Promise.all([refresh(issued.refresh_token), refresh(issued.refresh_token)]);
  const renewed = await Promise.all(
    both.map(async (each) => (await each.json()) as { access_token: string; refresh_token: string }),
  );
  expect(both.map(({ status }) => status)).toEqual([200, 200]);
  for (const { access_token: access, refresh_token: next } of renewed) {
    expect((await callTool(access, "get_usage")).isError).toBeFalsy();
    expect(next).toBe(renewed[0]?.refresh_token);
  }

  const [grant] = (await grantsOf(acme.id)).filter(({ clientName }) => clientName === "A flow test");
  expect(grant?.lastUsedAt).not.toBeNull();
  expect((await operator("DELETE", `/tenants/${acme.id}/grants/${grant?.id}`)).status).toBe(200);
  for (const access of [issued.access_token, renewed[0]?.access_token]) {
    const refused = await postMcp(access, usage);
    expect(refused.status).toBe(401);
    expect(refused.headers.get("www-authenticate")).toContain("oauth-protected-resource");
  }
  expect((await refresh(renewed[0]?.refresh_token ?? "")).status).toBe(400);
  expect((await operator("DELETE", `/tenants/${acme.id}/grants/${grant?.id}`)).status).toBe(404);
});

test.each(["by registration", "by its own document"])("a client of the second SDK signs in, %s", async (how) => {
  const documentUrl = "https://agent.example/client.json";
  const isDocument = how === "by its own document";
  const memory = new ClientMemory(isDocument ? documentUrl : undefined);
  if (isDocument)
    await fetch(`${system.publicUrl}/test/document?url=${documentUrl}`, {
      method: "POST",
      body: JSON.stringify({ ...memory.clientMetadata, client_id: documentUrl, client_name: "Agent" }),
    });
  const url = new URL(`${system.publicUrl}/mcp`);
  const authProvider = memory as never;
  const transport = new Transport2(url, { authProvider });
  const newClient = () => new Client2({ name: "flow-test", version: "2" });
  await expect(newClient().connect(transport)).rejects.toThrow();
  const browser = new Browser();
  const consent = await browser.signIn(memory.opened?.href ?? "", { sub: await aPerson([bolt.id]) });
  if (isDocument) {
    expect(memory.opened?.searchParams.get("client_id")).toBe(documentUrl);
    expect(textOf(consent.html)).toContain("Agent (published by agent.example)");
  } else expect(textOf(consent.html)).toContain("unverified");
  const back = await browser.submit(consent, { decision: "allow" });
  if (!(back instanceof URL)) throw new Error(textOf(back.html));
  expect(back.searchParams.get("iss")).toBe(system.publicUrl);
  await transport.finishAuth(back.searchParams);
  const client = newClient();
  await client.connect(new Transport2(url, { authProvider }));
  const answer = await client.callTool({ name: "get_usage", arguments: {} });
  expect(answer.isError).toBeFalsy();
  await client.close();
});

test("the consent page names the client, where the code goes, the person, the organisation and what the client may do", async () => {
  const sub = await aPerson([acme.id], { name: "Ann <Acme>", email: "ann.consent@example.com" });
  const { url } = await anAuthorization();
  const page = await new Browser().signIn(url, { sub });
  const text = textOf(page.html);
  for (const words of [
    "A <client>",
    "unverified",
    "127.0.0.1",
    "ann.consent@example.com",
    "A tenant",
    "program on this computer",
  ])
    expect(text).toContain(words);
  expect(page.html).not.toContain("<client>");
  expect(page.headers.get("content-security-policy")).toMatch(
    /default-src 'none'.*form-action 'self'.*frame-ancestors 'none'/,
  );
  expect(page.headers.get("cache-control")).toBe("no-store");
  // With `no-referrer` browsers would hide the origin of the form.
  expect(page.headers.get("referrer-policy")).toBe("same-origin");
  const remote = await anAuthorization("https://client.example/callback");
  const browser = new Browser();
  const remotePage = await browser.signIn(remote.url, { sub });
  expect(textOf(remotePage.html)).toContain("client.example");
  expect(textOf(remotePage.html)).not.toContain("program on this computer");
});

test("a member of two organisations chooses one, and the client gets that one and never the other", async () => {
  const sub = await aPerson([acme.id, bolt.id]);
  const browser = new Browser();
  // The local provider speaks for one organisation at a time; signing in for each makes the person a member of both.
  for (const organisation of [acme.id, bolt.id])
    await browser
      .page(`${system.publicUrl}/sign-in?prompt=select_account`)
      .then((page) => browser.submit(page, { sub, organisation }));
  for (const tenant of [acme, bolt]) {
    const asked = await anAuthorization();
    const consent = await browser.page(asked.url);
    expect(
      formsOf(consent.html)[0]
        ?.choices.filter(([name]) => name === "tenant")
        .map(([, id]) => id)
        .toSorted(),
    ).toEqual([acme.id, bolt.id].toSorted());
    const back = await browser.submit(consent, { decision: "allow", tenant: tenant.id });
    if (!(back instanceof URL)) throw new Error(textOf(back.html));
    const { access_token: access } = await redeem(asked, back);
    expect(access.startsWith(`tgo_${tenant.id}.`)).toBe(true);
    expect((await callTool(access, "get_usage")).data).toMatchObject({});
  }
  // A tenant that the person is no member of cannot be put into the form.
  const stranger = await aTenant();
  const consent = await browser.page((await anAuthorization()).url);
  const hidden = Object.fromEntries(formsOf(consent.html)[0]?.fields ?? []);
  const forged = await browser.page(`${system.publicUrl}/oauth/consent`, {
    method: "POST",
    headers: { origin: system.publicUrl },
    body: new URLSearchParams({ ...hidden, decision: "allow", tenant: stranger.id }),
  });
  expect([forged.status, await grantsOf(stranger.id)]).toEqual([400, []]);
});

test("a consent that is submitted twice leads to the client twice, with one grant", async () => {
  const sub = await aPerson([bolt.id]);
  const browser = new Browser();
  const asked = await anAuthorization();
  const consent = await browser.signIn(asked.url, { sub });
  const before = (await grantsOf(bolt.id)).length;
  const backs = await Promise.all([
    browser.submit(consent, { decision: "allow" }),
    browser.submit(consent, { decision: "allow" }),
  ]);
  const later = await browser.submit(consent, { decision: "allow" });
  const urls = [...backs, later].map((back) => (back instanceof URL ? back.href : textOf(back.html)));
  expect(new Set(urls).size).toBe(1);
  await redeem(asked, new URL(urls[0] ?? ""));
  expect((await grantsOf(bolt.id)).length).toBe(before + 1);
});

test("a person who refuses sends the client away, and one without an organisation reads what to do", async () => {
  const browser = new Browser();
  const sub = await aPerson([acme.id]);
  const consent = await browser.signIn((await anAuthorization()).url, { sub });
  const back = await browser.submit(consent, { decision: "deny" });
  if (!(back instanceof URL)) throw new Error(textOf(back.html));
  expect([back.searchParams.get("error"), back.searchParams.get("state"), back.searchParams.get("iss")]).toEqual([
    ...["access_denied", "s1"],
    system.publicUrl,
  ]);
  const nowhere = await new Browser().signIn((await anAuthorization()).url, { sub: await aPerson([]) });
  expect(nowhere.status).toBe(403);
  expect(textOf(nowhere.html)).toContain("Ask an administrator");
});

test("a request with another redirect is answered with a page that does not show it, and the browser stays", async () => {
  const url = new URL((await anAuthorization()).url);
  url.searchParams.set("redirect_uri", "https://evil.example/callback");
  const page = await new Browser().page(url.href);
  expect(page.status).toBe(400);
  expect(page.headers.get("content-type")).toContain("text/html");
  expect(page.html).not.toContain("evil.example");
});

test("a grant survives the end of its tenant's object, and a used refresh token does not", async () => {
  const sub = await aPerson([acme.id]);
  const asked = await anAuthorization();
  const first = await redeem(asked, await new Browser().letIn(asked.url, { sub }));
  const kill = () => fetch(`${system.publicUrl}/test/end?tenant=${acme.id}`);
  const refresh = (refreshToken: string) =>
    token({ grant_type: "refresh_token", refresh_token: refreshToken, client_id: asked.clientId });
  await kill();
  expect((await callTool(first.access_token, "get_usage")).isError).toBeFalsy();
  const second = (await (await refresh(first.refresh_token)).json()) as typeof first;
  await kill();
  // The answer of the second refresh may be lost: the first token still works.
  const again = (await (await refresh(first.refresh_token)).json()) as typeof first;
  expect((await callTool(again.access_token, "get_usage")).isError).toBeFalsy();
  expect((await refresh(again.refresh_token)).status).toBe(200);
  expect((await refresh(first.refresh_token)).status).toBe(400);
  expect((await refresh(second.refresh_token)).status).toBe(400);
});

test("signing out ends the session, and clients keep their access", async () => {
  const browser = new Browser();
  const sub = await aPerson([acme.id]);
  const asked = await anAuthorization();
  const { access_token: access } = await redeem(asked, await browser.letIn(asked.url, { sub }));
  const sessions = await operator("GET", `/tenants/${acme.id}/sessions`);
  const listed = (await sessions.json()) as { sessions: { id: string; email: string }[] };
  const own = listed.sessions.filter(({ email }) => email === `${sub}@example.com`);
  expect(own).toHaveLength(1);
  expect((await operator("DELETE", `/tenants/${bolt.id}/sessions/${own[0]?.id}`)).status).toBe(404);
  const session = browser.session;
  const page = await browser.page(`${system.publicUrl}/sign-in`);
  expect(textOf(page.html)).toContain("You are signed in as");
  await browser.submit(page, {});
  expect(browser.session).toBe("");
  // The cookie that was kept elsewhere opens nothing.
  expect(await isSignedIn(session)).toBe(false);
  // An admin ends a session as the person does.
  const again = await browser.page(`${system.publicUrl}/sign-in?prompt=select_account`);
  await browser.submit(again, { sub });
  const left = (await (await operator("GET", `/tenants/${acme.id}/sessions`)).json()) as typeof listed;
  const mine = left.sessions.filter(({ email }) => email === `${sub}@example.com`);
  expect(mine).toHaveLength(1);
  expect((await operator("DELETE", `/tenants/${acme.id}/sessions/${mine[0]?.id}`)).status).toBe(200);
  expect(await isSignedIn(browser.session)).toBe(false);
  expect((await callTool(access, "get_usage")).isError).toBeFalsy();
});

interface AuditRow {
  action: string;
  actor: { kind: string; id: string | null };
  outcome: string;
  detail: Record<string, unknown>;
  target: string | null;
}
const eventsOf = async (query: string): Promise<AuditRow[]> =>
  ((await (await operator("GET", `/audit?${query}`)).json()) as { events: AuditRow[] }).events;

test("a sign-in is recorded for each tenant that it opens, and a person who turns a client away is named", async () => {
  const found = async (query: string, is: (row: AuditRow) => boolean): Promise<AuditRow> => {
    let row: AuditRow | undefined;
    await until(async () => (row = (await eventsOf(query)).find(is)) !== undefined, query);
    if (row === undefined) throw new Error(query);
    return row;
  };
  const sub = await aPerson([acme.id]);
  const browser = new Browser();
  const consent = await browser.signIn((await anAuthorization()).url, { sub });
  const signIn = await found(`action=sign_in&tenant=${acme.id}`, ({ actor }) => actor.kind === "member");
  expect(signIn).toMatchObject({ outcome: "succeeded", detail: { role: "member", for: "client" } });
  await browser.submit(consent, { decision: "deny" });
  const denied = await found("actor=person", ({ detail }) => detail["decision"] === "denied");
  expect(denied.actor.id).toMatch(/^p_[0-9a-f]{24}$/);
  expect(JSON.stringify([signIn, denied])).not.toContain(sub);
  const before = (await eventsOf("action=sign_in&actor=person")).length;
  await new Browser().signIn((await anAuthorization()).url, { sub: await aPerson([]) });
  await until(async () => (await eventsOf("action=sign_in&actor=person")).length > before, "a sign-in of no member");
});
