// An operator's person who signs in to the operator's pages with a real browser.
import type { Page } from "playwright-core";
import { OPERATOR_SCOPE } from "../../dev/issuer/people.ts";
import { choosePerson } from "./browser.ts";
import { system } from "./flow.ts";
import { aPerson } from "./sign-in.ts";

/** Signs a new person with this role in. Ends at `path`. Without a role, at the refusal. Returns the person's subject. */
export async function signInOperator(page: Page, role: string | undefined, path = "/admin/access"): Promise<string> {
  const roles = role === undefined ? [] : [role];
  const sub = await aPerson([], { name: `An operator (${role})`, roles, permissions: [OPERATOR_SCOPE] });
  await page.goto(`${system.publicUrl}${path}`);
  await page.getByRole("link", { name: /^Sign in with / }).click();
  await choosePerson(page, { sub });
  return sub;
}
