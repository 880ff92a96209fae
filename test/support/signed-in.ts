// Members who are signed in with a browser: the first owner of a tenant, and what a page of Tollgate sends for a member.
import { expect } from "vitest";
import { aTenant, operator, system } from "./flow.ts";
import { textOf } from "./html.ts";
import type { Page } from "./plain-browser.ts";
import { Browser, aPerson } from "./sign-in.ts";

/** The address of a person at the local provider. */
export const emailOf = (sub: string): string => `${sub}@example.com`;

/** The link of the newest mail to the address. */
async function mailedLink(email: string): Promise<string> {
  const listed = await fetch(`${system.mailboxUrl}/mails?to=${encodeURIComponent(email)}`);
  const { mails } = (await listed.json()) as { mails: { text: string }[] };
  const link = /http\S+\/invitation\?token=\S+/.exec(mails[0]?.text ?? "")?.[0];
  if (link === undefined) throw new Error(`no invitation was mailed to ${email}`);
  return link;
}

/** A request of a page of Tollgate, with the browser's session. */
export function ask(
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
export async function anOwnedTenant(
  overrides?: Parameters<typeof aTenant>[0],
): Promise<{ id: string; browser: Browser }> {
  const { id } = await aTenant(overrides);
  return { id, browser: await anOwnerOf(id) };
}

/** The browser of a new member, who has accepted the operator's invitation. */
export async function anOwnerOf(tenantId: string, role: "owner" | "member" | "billing" = "owner"): Promise<Browser> {
  const sub = await aPerson([]);
  expect((await operator("POST", `/tenants/${tenantId}/members`, { email: emailOf(sub), role })).status).toBe(201);
  const browser = new Browser();
  const page = await browser.page(await mailedLink(emailOf(sub)));
  const welcome = await browser.signIn(linkOf(page), { sub });
  // The address is proved, so the sign-in has accepted the invitation already.
  expect(textOf(welcome.html)).toContain(`as ${role}`);
  return browser;
}

/** Where the page's button to sign in leads. */
function linkOf({ html, url }: Page): string {
  const href = /<a class="button" href="(?<href>\/sign-in[^"]*)"/.exec(html)?.groups?.["href"];
  if (href === undefined) throw new Error(`no sign-in: ${textOf(html)}`);
  return new URL(href.replaceAll("&amp;", "&"), url).href;
}
