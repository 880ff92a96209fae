// An operator's person who signs in to the operator's pages: with a real browser, and with one that has no script.
import type { Page } from "playwright-core";
import type { Page as PlainPage } from "./plain-browser.ts";
import { OPERATOR_SCOPE } from "../../dev/issuer/people.ts";
import { choosePerson } from "./browser.ts";
import { system } from "./flow.ts";
import { Browser, aPerson } from "./sign-in.ts";

/** Signs a new person with this role in. Ends at `path`. Without a role, at the refusal. Returns the person's subject. */
export async function signInOperator(page: Page, role: string | undefined, path = "/admin/access"): Promise<string> {
  const roles = role === undefined ? [] : [role];
  const sub = await aPerson([], { name: `An operator (${role})`, roles, permissions: [OPERATOR_SCOPE] });
  await page.goto(`${system.publicUrl}${path}`);
  await page.getByRole("link", { name: /^Sign in with / }).click();
  await choosePerson(page, { sub });
  return sub;
}

/** The browser without script of a new person with this role, who is signed in. */
export async function anOperator(role = "admin"): Promise<Browser> {
  const browser = new Browser();
  const sub = await aPerson([], { name: `An operator (${role})`, roles: [role], permissions: [OPERATOR_SCOPE] });
  await browser.signIn(`${system.publicUrl}/admin/sign-in/issuer`, { sub });
  return browser;
}

/** Sends a form's fields to the page at this path. */
export function sendForm(browser: Browser, path: string, fields: Record<string, string>): Promise<PlainPage> {
  return browser.page(system.publicUrl + path, {
    method: "POST",
    headers: { origin: system.publicUrl },
    body: new URLSearchParams(fields),
  });
}
