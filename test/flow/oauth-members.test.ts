// Members with a browser: their session manages the account as their role permits, a removed member's clients and pages are refused
// on the next request, and an invitation is accepted with a button.
import { expect, onTestFinished, test } from "vitest";
import { aTenant, callTool, modernMeta, operator, postMcp, system } from "../support/flow.ts";
import { textOf } from "../support/html.ts";
import { type Page, formsOf } from "../support/plain-browser.ts";
import { Browser, aPerson, anAuthorization, redeem } from "../support/sign-in.ts";

interface Member {
  id: string;
  email: string | null;
}

/** A request with the browser's session, as a page of Tollgate sends it. */
function withSession(browser: Browser, method: string, path: string, headers: Record<string, string> = {}) {
  const cookies = [...browser.cookies(system.publicUrl)].map((pair) => pair.join("=")).join("; ");
  return fetch(`${system.publicUrl}${path}`, {
    method,
    headers: { cookie: cookies, origin: system.publicUrl, "content-type": "application/json", ...headers },
    ...(method === "GET" || method === "DELETE" ? {} : { body: "{}" }),
  });
}

async function aMember(tenantId: string): Promise<{ browser: Browser; sub: string; member: Member }> {
  const sub = await aPerson([tenantId]);
  const browser = new Browser();
  await browser.signIn(`${system.publicUrl}/sign-in`, { sub });
  const list = (await (await operator("GET", `/tenants/${tenantId}/members`)).json()) as { members: Member[] };
  const member = list.members.find(({ email }) => email === `${sub}@example.com`);
  if (member === undefined) throw new Error("the person is no member");
  return { browser, sub, member };
}

test("a session reads what the role permits, changes only from a page of Tollgate, and finds no other tenant", async () => {
  const [tenant, other] = [await aTenant(), await aTenant()];
  const { browser } = await aMember(tenant.id);
  const status = async (method: string, path: string, headers?: Record<string, string>): Promise<number> =>
    (await withSession(browser, method, path, headers)).status;
  expect(await status("GET", `/api/tenants/${tenant.id}/usage`)).toBe(200);
  expect(await status("GET", `/api/tenants/${tenant.id}/grants`)).toBe(403);
  expect(await status("POST", `/api/tenants/${tenant.id}/remove`)).toBe(403);
  for (const origin of ["https://evil.example", "null"])
    expect(await status("POST", `/api/tenants/${tenant.id}/remove`, { origin })).toBe(403);
  expect(await status("GET", `/api/tenants/${other.id}/usage`)).toBe(404);
  // A token counts alone, and the session does not stand in for a wrong one.
  expect(await status("GET", `/api/tenants/${tenant.id}/usage`, { authorization: "Bearer made-up" })).toBe(401);
});

test("a removed member's client and pages are refused on the next request, and the client's grant ends", async () => {
  const tenant = await aTenant();
  const { browser, member } = await aMember(tenant.id);
  const asked = await anAuthorization();
  const back = await browser.submit(await browser.page(asked.url), { decision: "allow" });
  if (!(back instanceof URL)) throw new Error(textOf(back.html));
  const tokens = await redeem(asked, back);
  expect((await callTool(tokens.access_token, "get_usage")).isError).toBeFalsy();
  expect((await operator("DELETE", `/tenants/${tenant.id}/members/${member.id}`)).status).toBe(200);
  await expect(callTool(tokens.access_token, "get_usage")).rejects.toThrow(
    "Your membership of this account has ended.",
  );
  expect((await withSession(browser, "GET", `/api/tenants/${tenant.id}/usage`)).status).toBe(404);
  const refreshed = await fetch(`${system.publicUrl}/oauth/token`, {
    method: "POST",
    body: new URLSearchParams({
      ...{ grant_type: "refresh_token", refresh_token: tokens.refresh_token, client_id: asked.clientId },
    }),
  });
  expect(refreshed.status).toBe(400);
  const list = (await (await operator("GET", `/tenants/${tenant.id}/grants`)).json()) as { grants: unknown[] };
  expect(list.grants).toEqual([]);
  // Signing in again does not bring the member back.
  const page = await browser.page((await anAuthorization()).url);
  expect([page.status, textOf(page.html)]).toEqual([403, expect.stringContaining("Ask an administrator")]);
});

test("an agent's token for tools reads nothing of the account", async () => {
  const tenant = await aTenant();
  const asked = await anAuthorization();
  const back = await new Browser().letIn(asked.url, { sub: await aPerson([tenant.id]) });
  const { access_token: access } = await redeem(asked, back);
  const answer = await fetch(`${system.publicUrl}/api/tenants/${tenant.id}/usage`, {
    headers: { authorization: `Bearer ${access}` },
  });
  expect(answer.status).toBe(403);
});

test("an invited person signs in, presses a button, and is a member with that role", async () => {
  const tenant = await aTenant();
  const invited = await operator("POST", `/tenants/${tenant.id}/members`, {
    ...{ email: `owner-${crypto.randomUUID()}@example.com`, name: "An owner", role: "owner" },
  });
  const { invitation, member } = (await invited.json()) as {
    invitation: { url?: string; mail: string };
    member: Member;
  };
  const url = invitation.url ?? (await mailedUrl(member.email ?? ""));
  const browser = new Browser();
  const page = await browser.page(url);
  expect(textOf(page.html)).toContain("Sign in to accept");
  const href = /<a class="button" href="(?<href>[^"]*)">/.exec(page.html)?.groups?.["href"] ?? "";
  const after = await browser.signIn(new URL(href.replaceAll("&amp;", "&"), system.publicUrl).href, {
    sub: await aPerson([]),
  });
  expect(
    await browser.submit(
      after,
      { token: new URL(url).searchParams.get("token") ?? "" },
      { origin: "https://evil.example" },
    ),
  ).toMatchObject({ status: 403 });
  const accepted = await browser.submit(after, { token: new URL(url).searchParams.get("token") ?? "" });
  if (accepted instanceof URL) throw new Error("the browser left");
  expect(textOf(accepted.html)).toContain("as owner");
  expect((await withSession(browser, "GET", `/api/tenants/${tenant.id}/grants`)).status).toBe(200);
});

test("a tenant's pages, and the page that lets a client in for it, have the colour that it chose", async () => {
  const tenant = await aTenant();
  const { browser } = await aMember(tenant.id);
  const sheetOf = async (url: string): Promise<string | undefined> =>
    /href="(?<path>\/assets\/colour-[^"]+\.css)"/.exec((await browser.page(url)).html)?.groups?.["path"];
  const [account, consent] = [`${system.publicUrl}/app/${tenant.id}`, (await anAuthorization()).url];
  expect([await sheetOf(account), await sheetOf(consent)]).toEqual([undefined, undefined]);
  const changed = await fetch(`${system.publicUrl}/admin/api/tenants/${tenant.id}/configuration`, {
    method: "PATCH",
    headers: {
      ...{ authorization: `Bearer ${system.operatorToken}`, "content-type": "application/json", "if-match": "*" },
    },
    body: JSON.stringify({ branding: { colour: "#FACC15" } }),
  });
  expect(changed.status, await changed.text()).toBe(200);
  const sheets = [await sheetOf(account), await sheetOf(consent)];
  expect(new Set(sheets).size).toBe(1);
  expect(await (await fetch(system.publicUrl + sheets[0])).text()).toContain("--brand:#facc15;--on-brand:#10151f;");
});

test("a tenant's own host lets clients in for that tenant only, and refuses the credentials of any other", async () => {
  const [acme, bolt] = await Promise.all([aTenant(), aTenant()]);
  // The same server by another name.
  const host = system.publicUrl.replace("127.0.0.1", "localhost");
  const setting = JSON.stringify({ [new URL(host).host]: acme.id });
  await fetch(`${system.publicUrl}/test/hosts?${new URLSearchParams({ setting }).toString()}`);
  onTestFinished(async () => void (await fetch(`${system.publicUrl}/test/hosts`)));

  const refused = await postMcp(undefined, listing, {}, `${host}/mcp`);
  const metadataUrl = `${host}/.well-known/oauth-protected-resource/mcp`;
  expect([refused.status, refused.headers.get("www-authenticate")]).toEqual([
    401,
    expect.stringContaining(metadataUrl),
  ]);
  const metadata = await (await fetch(metadataUrl)).json();
  expect(metadata).toMatchObject({ resource: `${host}/mcp`, authorization_servers: [system.publicUrl] });
  const server = await (await fetch(`${host}/.well-known/oauth-authorization-server`)).json();
  expect(server).toMatchObject({ protected_resources: [`${system.publicUrl}/mcp`, `${host}/mcp`] });

  const sub = await aPerson([acme.id, bolt.id]);
  const browser = new Browser();
  for (const organisation of [acme.id, bolt.id])
    await browser
      .page(`${system.publicUrl}/sign-in?prompt=select_account`)
      .then((page) => browser.submit(page, { sub, organisation }));
  /** A client's request for a resource, and the consent page that the member of both gets. */
  const consentFor = async (resource: string) => {
    const asked = await anAuthorization();
    const url = new URL(asked.url);
    url.searchParams.set("resource", resource);
    const page = await browser.page(url.href);
    const [form] = formsOf(page.html);
    const tenants = [...(form?.fields ?? []), ...(form?.choices ?? [])].filter(([name]) => name === "tenant");
    return { asked, page, tenants: tenants.map(([, id]) => id).toSorted() };
  };
  const everywhere = await consentFor(`${system.publicUrl}/mcp`);
  expect(everywhere.tenants).toEqual([acme.id, bolt.id].toSorted());
  const here = await consentFor(`${host}/mcp`);
  expect(here.tenants).toEqual([acme.id]);
  const forged = await browser.open(...forgedConsent(here.page, bolt.id));
  expect(forged).toMatchObject({ status: 400 });

  const tokenOf = async ({ asked, page }: typeof here, tenant: string): Promise<string> => {
    const back = await browser.submit(page, { decision: "allow", tenant });
    if (!(back instanceof URL)) throw new Error(textOf(back.html));
    return (await redeem(asked, back)).access_token;
  };
  const ofHost = await tokenOf(await consentFor(`${host}/mcp`), acme.id);
  const ofBolt = await tokenOf(everywhere, bolt.id);
  const statusAt = async (origin: string, token: string): Promise<number> =>
    (await postMcp(token, listing, {}, `${origin}/mcp`)).status;
  expect(await Promise.all([ofHost, acme.apiKey, ofBolt, bolt.apiKey].map((each) => statusAt(host, each)))).toEqual([
    ...[200, 200, 401, 401],
  ]);
  for (const each of [acme.apiKey, ofBolt, bolt.apiKey]) expect(await statusAt(system.publicUrl, each)).toBe(200);
  // The account of each tenant is at the common host.
  const usage = await fetch(`${host}/api/tenants/${bolt.id}/usage`, {
    headers: { authorization: `Bearer ${bolt.apiKey}` },
    redirect: "manual",
  });
  expect([usage.status, usage.headers.get("location")]).toEqual([
    ...[308, `${system.publicUrl}/api/tenants/${bolt.id}/usage`],
  ]);
});

const listing = { jsonrpc: "2.0", id: 1, method: "tools/list", params: { _meta: modernMeta } };

/** The consent of a page, sent with another tenant than it offers. */
function forgedConsent({ html, url }: Page, tenant: string): [url: string, init: RequestInit] {
  const [form] = formsOf(html);
  const body = new URLSearchParams({ ...Object.fromEntries(form?.fields ?? []), tenant, decision: "allow" });
  const headers = { "content-type": "application/x-www-form-urlencoded", origin: url.origin };
  return [new URL(form?.action ?? "", url).href, { method: "POST", headers, body: body.toString() }];
}

/** The link of the newest mail to this address, in the local mailbox. */
async function mailedUrl(email: string): Promise<string> {
  const response = await fetch(`${system.mailboxUrl}/mails?to=${encodeURIComponent(email)}`);
  const { mails } = (await response.json()) as { mails: { text: string }[] };
  return /(?<url>http\S+\/invitation\?token=\S+)/.exec(mails[0]?.text ?? "")?.groups?.["url"] ?? "";
}
