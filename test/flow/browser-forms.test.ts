// Forms of an owner that are used once in an account's life, with a real browser: the organisation's own provider, and the secret of
// its webhooks. `newPage` fails a test whose page has reported an error.
import type { Page } from "playwright-core";
import { expect, onTestFinished, test } from "vitest";
import { choosePerson, confirmed, newPage, shows } from "../support/browser.ts";
import { aTenant, operator, system } from "../support/flow.ts";
import { anAuth0 } from "../support/own-providers.ts";
import { signInAsOwner } from "../support/owners.ts";
import { faultsOf } from "../support/page-faults.ts";
import { aPerson } from "../support/sign-in.ts";

const open = (page: Page, id: string, path: string) => page.goto(`${system.publicUrl}/app/${id}${path}`);
const press = (page: Page, name: string): Promise<void> => page.getByRole("button", { name, exact: true }).click();
const contentOf = async (page: Page): Promise<string> =>
  (await page.locator("main").innerText()).replaceAll(/\s+/g, " ");

test("an owner sets the organisation's own provider, a person signs in there, its domain is proved, and it is removed", async () => {
  const { id } = await aTenant();
  onTestFinished(async () => void (await operator("DELETE", `/tenants/${id}/provider`)));
  const page = await newPage();
  await signInAsOwner(page, id);
  await open(page, id, "/provider");
  const { issuer, clientId, clientSecret } = await anAuth0();
  const domain = `${id}.example`;
  const fill = async (fields: Record<string, string>): Promise<void> => {
    for (const [name, value] of Object.entries(fields)) await page.locator(`[name=${name}]`).first().fill(value);
  };
  await page.locator("select[name=kind]").selectOption("auth0");
  await fill({ issuer, clientId, clientSecret, slug: "Not a name!", domains: domain });
  await press(page, "Save");
  // The form comes again with what was entered, but the secret, and says what is wrong at its field.
  expect(await page.locator(".field .error").count()).toBeGreaterThan(0);
  expect(await page.locator("[name=issuer]").inputValue()).toBe(issuer);
  expect(await page.locator("[name=clientSecret]").inputValue()).toBe("");
  expect(await page.locator("select[name=kind]").inputValue()).toBe("auth0");
  expect(await page.content()).not.toContain(clientSecret);
  expect(await faultsOf(page)).toEqual([]);
  await fill({ slug: `forms-${id}`.slice(0, 40), clientSecret });
  await press(page, "Save");
  await shows(page, "Sign-in provider");
  expect(await contentOf(page)).toContain("The provider is saved. People can sign in there now.");
  expect(await page.content()).not.toContain(clientSecret);
  expect(await faultsOf(page)).toEqual([]);

  // The domain is open until its record is published.
  const row = page.getByRole("row").filter({ hasText: domain });
  await press(page, "Look for the records");
  expect(await contentOf(page)).toContain("Not each record is published yet.");
  const [name, value] = await row.locator("code").allInnerTexts();
  await fetch(`${system.issuerUrl}/dns/names/${name}`, {
    ...{ method: "PUT", headers: { "content-type": "application/json" }, body: JSON.stringify([value]) },
  });
  await press(page, "Look for the records");
  expect(await contentOf(page)).toContain("All domains are proved.");

  const signInUrl = (await page.locator("figure pre").first().textContent()) ?? "";
  const guest = await newPage();
  const email = `ada@${domain}`;
  const sub = await aPerson([], { email });
  await guest.goto(signInUrl);
  await choosePerson(guest, { sub });
  expect(new URL(guest.url()).origin).toBe(system.publicUrl);
  await open(page, id, "/members");
  expect(await page.getByRole("row").filter({ hasText: email }).count()).toBe(1);

  await open(page, id, "/provider");
  await confirmed(page, () => press(page, "Remove the provider"));
  expect(await contentOf(page)).toContain("The provider is removed. Its sessions and agents have ended.");
  // The guest's session has ended: the visit leads to the sign-in, at the only provider that is left.
  await guest.goto(`${system.publicUrl}/app/${id}`);
  expect(new URL(guest.url()).origin).toBe(new URL(system.issuerUrl).origin);
});

test("an owner makes a webhook secret, sees it once, and learns until when the former one counts", async () => {
  const { id } = await aTenant();
  const page = await newPage();
  await signInAsOwner(page, id);
  const make = async (): Promise<string> => {
    await open(page, id, "/settings");
    await confirmed(page, () => press(page, "Make a new secret"));
    await shows(page, "Your webhook secret");
    expect(await faultsOf(page)).toEqual([]);
    return (await page.locator("figure pre").first().textContent()) ?? "";
  };
  const first = await make();
  expect(first.length).toBeGreaterThan(20);
  expect(await contentOf(page)).not.toContain("former secret");
  await page.getByRole("link", { name: "Back to the settings" }).click();
  await shows(page, "Settings");
  expect(await page.content()).not.toContain(first);
  const second = await make();
  expect(second).not.toBe(first);
  expect(await contentOf(page)).toMatch(/also signed with the former secret until \d{4}-\d\d-\d\d \d\d:\d\d UTC/);
  await open(page, id, "/audit");
  expect(await contentOf(page)).toContain("Renew webhook secret");
  expect(await page.content()).not.toContain(second);
});
