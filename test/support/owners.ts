// The owner of a tenant with a real browser, which is signed in.
import type { Page } from "playwright-core";
import { expect } from "vitest";
import { choosePerson } from "./browser.ts";
import { operator, system } from "./flow.ts";
import { mailedToken } from "./people.ts";
import { aPerson } from "./sign-in.ts";
import { emailOf } from "./signed-in.ts";

/** Opens the link of the newest mail to the person, and signs in with the page's browser. The address is proved, so this accepts. */
export async function signInByMail(page: Page, sub: string): Promise<void> {
  await page.goto(`${system.publicUrl}/invitation?token=${await mailedToken(emailOf(sub))}`);
  await page.getByRole("link", { name: "Sign in to accept" }).click();
  await choosePerson(page, { sub });
}

/** Makes a person the tenant's first owner, who signs in with the page's browser. */
export async function signInAsOwner(
  page: Page,
  tenantId: string,
  person: Record<string, unknown> = {},
): Promise<{ email: string }> {
  const sub = await aPerson([], person);
  const email = emailOf(sub);
  expect((await operator("POST", `/tenants/${tenantId}/members`, { email })).status).toBe(201);
  await signInByMail(page, sub);
  return { email };
}
