// Members with a browser: their session manages the account as their role permits, a removed member's clients and pages are refused
// on the next request, and an invitation is accepted with a button.
import { expect, test } from "vitest";
import { aTenant, callTool, operator, system } from "../support/flow.ts";
import { Browser, aPerson, anAuthorization, redeem, textOf } from "../support/sign-in.ts";

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

/** The link of the newest mail to this address, in the local mailbox. */
async function mailedUrl(email: string): Promise<string> {
  const response = await fetch(`${system.mailboxUrl}/mails?to=${encodeURIComponent(email)}`);
  const { mails } = (await response.json()) as { mails: { text: string }[] };
  return /(?<url>http\S+\/invitation\?token=\S+)/.exec(mails[0]?.text ?? "")?.groups?.["url"] ?? "";
}
