// A customer's people and their pages with a real browser: keys, members, plan, settings and data, in each state of the account.
// `newPage` fails a test whose page has reported an error: a script that failed, a dialog, anything that the content policy has
// refused.
import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { confirmed, newPage, shows } from "../support/browser.ts";
import { aTenant, callTool, operator, system } from "../support/flow.ts";
import { signInAsOwner, signInByMail } from "../support/owners.ts";
import { faultsOf } from "../support/page-faults.ts";
import { textOf } from "../support/html.ts";
import { aPerson } from "../support/sign-in.ts";
import { emailOf } from "../support/signed-in.ts";
import { aSubscriber, rowOf, stripeGet, untilRow } from "../support/subscribers.ts";

/** A narrow phone, in CSS pixels. */
const PHONE = { width: 360, height: 780 };
/** A name that would be markup, if a page did not write it as text. */
const HOSTILE = `<img src=x onerror=alert(1)>"'&amp;`;

const open = (page: Page, id: string, path: string) => page.goto(`${system.publicUrl}/app/${id}${path}`);
const press = (page: Page, name: string): Promise<void> => page.getByRole("button", { name, exact: true }).click();
const contentOf = async (page: Page): Promise<string> =>
  (await page.locator("main").innerText()).replaceAll(/\s+/g, " ");
const shownKey = async (page: Page): Promise<string> => (await page.locator("figure pre").first().textContent()) ?? "";
const works = async (key: string): Promise<boolean> =>
  callTool(key, "search_products", { query: "lamp" }).then(
    () => true,
    () => false,
  );

test("an owner makes a key, an agent uses it, and it is changed, rotated and revoked", async () => {
  const { id } = await aTenant();
  const page = await newPage();
  await signInAsOwner(page, id);
  await open(page, id, "/keys");
  await page.getByRole("link", { name: "New key" }).first().click();
  await page.getByLabel("Name").fill("Nightly report");
  await page.getByLabel("Units a month").fill("none");
  await press(page, "Create key");
  // The page comes again with what was entered, and the reason at the field.
  expect(await page.getByLabel("Name").inputValue()).toBe("Nightly report");
  expect(await page.locator(".field .error").innerText()).toMatch(/^This must be a number/);
  await page.getByLabel("Units a month").fill("5,000");
  await press(page, "Create key");
  await shows(page, "Your new API key");
  const first = await shownKey(page);
  expect(await works(first)).toBe(true);

  await page.getByRole("link", { name: "All keys" }).click();
  await page.getByRole("link", { name: "Nightly report" }).click();
  expect(await contentOf(page)).toMatch(/Units this month 1 of 5,000 units/);
  await page.getByLabel("Name").fill("Weekly report");
  await press(page, "Save");
  await shows(page, "Weekly report");
  expect(await contentOf(page)).toContain("The key is changed.");
  await page.getByLabel("The old key still works for").selectOption("0");
  await press(page, "Rotate key");
  await shows(page, "Your new API key");
  const second = await shownKey(page);
  expect([await works(first), await works(second)]).toEqual([false, true]);
  await page.getByRole("link", { name: "All keys" }).click();
  await page.getByRole("link", { name: "Weekly report" }).first().click();
  await confirmed(page, () => press(page, "Revoke key"));
  await shows(page, "API keys");
  expect(await works(second)).toBe(false);

  await open(page, id, "/audit");
  const log = await contentOf(page);
  for (const act of ["Create key", "Change key", "Rotate key", "Revoke key"]) expect(log).toContain(act);
});

test("an owner invites a person, gives another role and removes them, and each is in force at once", async () => {
  const { id } = await aTenant({ name: "Acme" });
  const page = await newPage();
  await signInAsOwner(page, id);
  await open(page, id, "/members");
  const sub = await aPerson([]);
  await page.getByRole("link", { name: "Invite a member" }).click();
  await page.getByLabel("E-mail address").fill(emailOf(sub));
  await page.getByLabel("Role").selectOption("developer");
  await press(page, "Invite");
  expect(await contentOf(page)).toContain(`An invitation is on its way to ${emailOf(sub)}.`);

  const guest = await newPage();
  await signInByMail(guest, sub);
  await open(guest, id, "/keys");
  await shows(guest, "API keys");
  await page.reload();
  await page.getByLabel(`Role of ${emailOf(sub)}`).selectOption("member");
  const row = page
    .getByRole("row")
    .filter({ hasText: emailOf(sub) })
    .first();
  await row.getByRole("button", { name: "Save" }).click();
  expect(await contentOf(page)).toContain("The member has the role member now.");
  expect((await open(guest, id, "/keys"))?.status()).toBe(403);
  await open(guest, id, "/access");
  await shows(guest, "Your access");
  expect(await guest.getByRole("navigation", { name: "Account" }).innerText()).not.toContain("API keys");
  expect(await guest.getByRole("button", { name: "Leave the organisation" }).count()).toBe(1);

  await confirmed(page, () => row.getByRole("button", { name: "Remove" }).click());
  expect(await contentOf(page)).toContain("The member is removed");
  expect((await open(guest, id, "/access"))?.status()).toBe(404);
  // The last owner has no button that would be refused.
  await open(page, id, "/access");
  expect(await page.getByRole("button", { name: "Leave the organisation" }).count()).toBe(0);
});

test("an upgrade says its price before it is made, and Stripe charges no more", async () => {
  const { id } = await aSubscriber({ plan: "starter" });
  const page = await newPage();
  await signInAsOwner(page, id);
  await open(page, id, "/plan");
  await page.getByRole("link", { name: "Change to Pro" }).click();
  await shows(page, "Change to Pro");
  const said = Number(
    /Difference \$(?<amount>[\d.]+) or a little less/.exec(await contentOf(page))?.groups?.["amount"],
  );
  expect(said).toBeGreaterThan(0);
  // A page that has said less than the price of now charges nothing: it comes again with the price.
  await page.locator("input[name=seenCents]").evaluate((field) => field.setAttribute("value", "1"));
  await press(page, "Change to Pro");
  expect(await contentOf(page)).toContain("The price has risen since you opened this page");
  expect((await rowOf(id)).plan).toBe("starter");
  await press(page, "Change to Pro");
  await shows(page, "Plan");
  const { customer } = await untilRow(id, { plan: "pro" });
  const { data: items } = await stripeGet<{ data: { amount: number; proration: boolean }[] }>(
    `/invoiceitems?customer=${customer}&limit=100`,
  );
  const charged = items.filter(({ proration }) => proration).reduce((sum, { amount }) => sum + amount, 0) / 100;
  expect(charged).toBeLessThanOrEqual(said);
  expect(charged).toBeGreaterThan(said - 0.05);
  await page.reload();
  expect(await page.getByRole("heading", { level: 2 }).first().innerText()).toBe("Pro");
});

test("an account without a subscription sees the price, leaves the payment, comes back and buys", async () => {
  const { id } = await aTenant();
  const page = await newPage();
  await signInAsOwner(page, id);
  const toStripe = async (): Promise<void> => {
    await page.getByRole("link", { name: "Buy Starter" }).click();
    await shows(page, "Buy Starter");
    expect(await contentOf(page)).toMatch(/Now \$\d\.\d\d or a little less .* Then \$19\.00 a month/);
    expect(await faultsOf(page)).toEqual([]);
    await press(page, "Continue to payment");
    await shows(page, "Simulated Stripe");
  };
  await open(page, id, "/plan");
  await toStripe();
  await page.getByRole("link", { name: "Cancel and go back" }).click();
  await shows(page, "Plan");
  expect(await contentOf(page)).toContain("Nothing was charged, and the plan has not changed.");
  expect((await rowOf(id)).plan).toBe("free");
  await toStripe();
  await press(page, "Pay");
  await shows(page, "Plan");
  expect(await contentOf(page)).toContain("The account has the plan Starter now. Its limits are in force.");
  expect(await page.getByRole("heading", { level: 2 }).first().innerText()).toBe("Starter");
  expect(await page.getByRole("link", { name: "Change to Pro" }).count()).toBe(1);
});

test("a person whose settings were changed meanwhile loses nothing and undoes nothing", async () => {
  const { id } = await aTenant();
  const page = await newPage();
  await signInAsOwner(page, id);
  await open(page, id, "/settings");
  await page.getByLabel("Name in agents").fill("Ours");
  const path = `/tenants/${id}/configuration`;
  const etag = (await operator("GET", path)).headers.get("etag") ?? "";
  const theirs = await fetch(`${system.publicUrl}/admin/api${path}`, {
    method: "PATCH",
    headers: {
      ...{ authorization: `Bearer ${system.operatorToken}`, "content-type": "application/json" },
      "if-match": etag,
    },
    body: JSON.stringify({ branding: { productName: "Theirs" } }),
  });
  expect(theirs.status).toBe(200);
  const save = page.getByRole("button", { name: "Save" }).nth(1);
  await save.click();
  expect(await contentOf(page)).toContain("Another change came first.");
  expect(await contentOf(page)).toContain("Stored now: Theirs");
  expect(await page.getByLabel("Name in agents").inputValue()).toBe("Ours");
  await save.click();
  expect(await contentOf(page)).toContain("The settings are saved.");
  expect(await page.getByLabel("Name in agents").inputValue()).toBe("Ours");
});

test("people of a suspended or leaving account read why, and each page, and take the way back", async () => {
  const { id } = await aSubscriber({ plan: "starter" });
  const page = await newPage();
  await signInAsOwner(page, id);
  const reads = async (why: string): Promise<void> => {
    await open(page, id, "/plan");
    const links = await page.getByRole("navigation", { name: "Account" }).getByRole("link").all();
    const paths = await Promise.all(links.map((link) => link.getAttribute("href")));
    for (const path of paths) {
      const answer = await page.request.get(`${system.publicUrl}${path}`);
      expect(answer.status(), String(path)).toBe(200);
      expect(textOf(await answer.text()), String(path)).toContain(why);
    }
  };
  await operator("POST", `/tenants/${id}/suspend`);
  await reads("The operator has suspended the account, so agents are refused. Only the operator can resume it.");
  await operator("POST", `/tenants/${id}/resume`);

  await open(page, id, "/data");
  await page.getByLabel("Type the organisation's name").fill("Another name");
  await press(page, "Close the account");
  expect(await page.locator(".field .error").innerText()).toContain("Type the name as it is: A subscriber");
  await page.getByLabel("Type the organisation's name").fill("A subscriber");
  await press(page, "Close the account");
  await shows(page, "Data");
  await reads("The account is being closed, and agents are refused.");
  await page.getByRole("link", { name: "Bring the account back" }).first().click();
  expect(await contentOf(page)).toMatch(/The price of coming back Now \$0\.00.* Then \$19\.00 a month/);
  await press(page, "Bring the account back");
  await shows(page, "Data");
  expect(await contentOf(page)).toContain("The account is back.");
  expect((await rowOf(id)).state).toBe("active");

  await open(page, id, "/plan");
  await press(page, "Payment and invoices at Stripe");
  await page.waitForURL((url) => url.origin === new URL(system.stripeUrl).origin);
});

test("each page fits a phone, and can be read and used by everyone, also with names full of markup", async () => {
  const { id } = await aTenant({ name: HOSTILE, plan: "pro" });
  const page = await newPage({ viewport: PHONE });
  await signInAsOwner(page, id, { name: HOSTILE });
  await operator("POST", `/tenants/${id}/keys`, { name: HOSTILE });
  await open(page, id, "/keys");
  const key = await page.getByRole("link", { name: "onerror" }).last().getAttribute("href");
  const paths = ["/keys", "/keys/new", "/members", "/members/invite", "/agents", "/sessions", "/audit", "/access"];
  const more = ["/plan", "/settings", "/provider", "/data"].map((path) => `/app/${id}${path}`);
  const faults: Record<string, readonly string[]> = {};
  for (const path of [...paths.map((each) => `/app/${id}${each}`), key ?? "no key", ...more]) {
    await page.goto(`${system.publicUrl}${path}`);
    const found = await faultsOf(page);
    if (found.length > 0) faults[path] = found;
  }
  expect(faults).toEqual({});
});
