// Members in a browser and with a client that they let in: a proved address accepts an invitation at the sign-in, and a change of
// the role or a removal is in force on the next request.
import { expect, test } from "vitest";
import { aTenant, callTool, operator, system } from "../support/flow.ts";
import { Browser, type Page, aPerson, signedInClient, textOf } from "../support/sign-in.ts";

const emailOf = (sub: string): string => `${sub}@example.com`;

/** The link of the newest mail to the address. */
async function mailedLink(email: string): Promise<string> {
  const listed = await fetch(`${system.mailboxUrl}/mails?to=${encodeURIComponent(email)}`);
  const { mails } = (await listed.json()) as { mails: { text: string }[] };
  const link = /http\S+\/invitation\?token=\S+/.exec(mails[0]?.text ?? "")?.[0];
  if (link === undefined) throw new Error(`no invitation was mailed to ${email}`);
  return link;
}

function ask(
  browser: Browser,
  method: string,
  path: string,
  body?: unknown,
  origin = system.publicUrl,
): Promise<Response> {
  const cookies = [...browser.cookies(system.publicUrl)].map((pair) => pair.join("=")).join("; ");
  return fetch(`${system.publicUrl}${path}`, {
    method,
    headers: { cookie: cookies, origin, ...(body !== undefined && { "content-type": "application/json" }) },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
}

/** A tenant whose first owner has accepted the operator's invitation in a browser. */
async function anOwnedTenant(): Promise<{ id: string; browser: Browser }> {
  const { id } = await aTenant();
  const sub = await aPerson([]);
  expect((await operator("POST", `/tenants/${id}/members`, { email: emailOf(sub) })).status).toBe(201);
  const browser = new Browser();
  const page = await browser.page(await mailedLink(emailOf(sub)));
  const welcome = await browser.signIn(linkOf(page), { sub });
  // The address is proved, so the sign-in has accepted the invitation already.
  expect(textOf(welcome.html)).toContain("as owner");
  return { id, browser };
}

/** Where the page's button to sign in leads. */
function linkOf({ html, url }: Page): string {
  const href = /<a class="button" href="(?<href>\/sign-in[^"]*)"/.exec(html)?.groups?.["href"];
  if (href === undefined) throw new Error(`no sign-in: ${textOf(html)}`);
  return new URL(href.replaceAll("&amp;", "&"), url).href;
}

test("a member's lower role and removal are in force on the browser's and the client's next request", async () => {
  const { id, browser } = await anOwnedTenant();
  const path = `/api/tenants/${id}`;
  const sub = await aPerson([]);
  await ask(browser, "POST", `${path}/invitations`, { email: emailOf(sub), role: "admin" });
  const theirs = new Browser();
  const { memory, client } = await signedInClient({ sub }, id, theirs);
  await using connected = client;
  expect((await connected.callTool({ name: "get_usage", arguments: {} })).isError).toBeFalsy();
  expect((await ask(theirs, "GET", `${path}/usage`)).status).toBe(200);
  const listed = (await (await ask(browser, "GET", `${path}/members`)).json()) as {
    members: { id: string; email: string }[];
  };
  const memberId = listed.members.find(({ email }) => email === emailOf(sub))?.id ?? "";

  // A lower role is in force on the next call, too.
  const access = memory.tokensNow?.access_token ?? "";
  expect((await ask(browser, "PATCH", `${path}/members/${memberId}`, { role: "billing" })).status).toBe(200);
  expect((await callTool(access, "get_usage")).refusal?.code).toBe("role_missing");
  expect((await ask(theirs, "GET", `${path}/members`)).status).toBe(403);
  expect((await ask(browser, "PATCH", `${path}/members/${memberId}`, { role: "member" })).status).toBe(200);
  expect((await callTool(access, "get_usage")).isError).toBeFalsy();

  const removed = await ask(browser, "DELETE", `${path}/members/${memberId}`);
  expect(await removed.json()).toEqual({ removed: true, delivered: true });
  expect((await callTool(access, "get_usage")).refusal?.code).toBe("member_removed");
  const refused = await ask(theirs, "GET", `${path}/usage`);
  expect(refused.status).toBe(404);
  expect((await ask(theirs, "POST", `${path}/plan`, {}, "https://evil.example")).status).toBe(403);
});
