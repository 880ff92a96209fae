// The public pages and a buyer's way with a real browser: the steps renew themselves under the content policy, the key can be
// copied, and each page fits a phone and can be used by everyone. `newPage` fails a test whose page has reported an error.
import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { newPage, shows } from "../support/browser.ts";
import { callTool, system } from "../support/flow.ts";
import { faultsOf } from "../support/page-faults.ts";

/** A narrow phone, in CSS pixels. */
const PHONE = { width: 360, height: 780 };

/** Fills the order form of a plan and sends it. Ends at the payment page. */
async function order(page: Page, plan: string): Promise<void> {
  await page.goto(`${system.publicUrl}/sign-up?plan=${plan}`);
  await page.getByLabel("Organisation").fill("Acme <Robotics>");
  await page.getByLabel("Your e-mail address").fill(`buyer-${crypto.randomUUID()}@pages.example`);
  await page.getByRole("button", { name: "Continue" }).click();
  await page.getByRole("heading", { name: "Simulated Stripe" }).waitFor();
}

test.each([
  ["/", "Tools your agents can use today"],
  ["/sign-up?plan=starter", "Subscribe to Starter"],
  ["/sign-up?plan=unknown", "This request cannot be answered"],
  ["/docs", "Documentation"],
  ["/docs/members", "Members"],
  ["/docs/architecture", "Architecture"],
  ["/status", "Status"],
  ["/checkout/no-such-tenant", "Page not found"],
])("%s fits a phone, and can be read and used by everyone", async (path, heading) => {
  const page = await newPage({ viewport: PHONE });
  await page.goto(system.publicUrl + path);
  await shows(page, heading);
  expect(await faultsOf(page)).toEqual([]);
});

test("a buyer pays, sees the steps renew themselves, makes the first key, and an agent uses it", async () => {
  const page = await newPage({ viewport: PHONE });
  await order(page, "starter");
  // The page waits for the payment, without a load of its own.
  const { id: tenantId } = await paidLater(page);
  await shows(page, "Waiting for your payment");
  expect(await faultsOf(page)).toEqual([]);
  await page.evaluate(`document.documentElement.dataset.sameDocument = "yes"`);
  await pay(tenantId);
  await shows(page, "Your account is ready");
  expect(await page.evaluate("document.documentElement.dataset.sameDocument")).toBe("yes");
  expect(new URL(page.url()).search).toBe("");
  // The script also serves what htmx has brought.
  await page.getByRole("button", { name: "Copy" }).first().waitFor();
  expect(await faultsOf(page)).toEqual([]);

  await page.getByRole("button", { name: "Get your first key" }).click();
  await shows(page, "Your first API key");
  const copy = page.getByRole("button", { name: "Copy" }).first();
  await copy.waitFor();
  const apiKey = (await page.locator("figure pre").first().textContent()) ?? "";
  expect((await callTool(apiKey, "search_products", { query: "lamp" })).isError).toBeFalsy();
  await page.locator("details").evaluateAll((all) => all.forEach((each) => each.setAttribute("open", "")));
  expect(await faultsOf(page)).toEqual([]);
});

/** Payment pages by tenant, so that a test can pay in the moment that it chooses. */
const paymentPages = new Map<string, string>();

/** Opens the page after Checkout before the payment, as a buyer who pays later by bank transfer does. */
async function paidLater(page: Page): Promise<{ id: string }> {
  const paymentUrl = page.url();
  const [cookie] = (await page.context().cookies(system.publicUrl)).filter(({ name }) => name.endsWith("-orders"));
  const id = /^tgs_(?<id>[a-z0-9-]+)\./.exec(cookie?.value ?? "")?.groups?.["id"] ?? "";
  paymentPages.set(id, paymentUrl);
  await page.goto(`${system.publicUrl}/checkout/${id}`);
  return { id };
}

async function pay(tenantId: string): Promise<void> {
  const paid = await fetch(paymentPages.get(tenantId) ?? "", { method: "POST", redirect: "manual" });
  expect(paid.status).toBe(303);
}
