// An account that the operator has made buys its first plan: the price before the payment, the payment at Stripe, and what is in
// force after it, to the unit. Cancelled, nothing has changed.
import { expect, test } from "vitest";
import { type TestTenant, aTenant, callTool, controlRows, operator, system } from "../support/flow.ts";
import { textOf } from "../support/html.ts";
import type { Page } from "../support/plain-browser.ts";
import type { Browser } from "../support/sign-in.ts";
import { anOwnerOf } from "../support/signed-in.ts";
import { rowOf, stripeGet, untilRow } from "../support/subscribers.ts";

const pageOf = (browser: Browser, id: string, path: string): Promise<Page> =>
  browser.page(`${system.publicUrl}/app/${id}${path}`);

/** Presses the button on the page with the price. Returns Stripe's page. */
async function toPayment(browser: Browser, id: string, plan: string): Promise<URL> {
  const priced = await pageOf(browser, id, `/plan/buy?plan=${plan}`);
  const to = await browser.submit(priced, { plan });
  if (!(to instanceof URL)) throw new Error(`no payment page: ${textOf(to.html)}`);
  expect(to.origin).toBe(new URL(system.stripeUrl).origin);
  return to;
}

/** Pays, and returns where Stripe sends the browser. */
async function pay(page: URL): Promise<string> {
  const paid = await fetch(page, { method: "POST", redirect: "manual" });
  expect(paid.status).toBe(303);
  return paid.headers.get("location") ?? "";
}

async function aFreeAccount(): Promise<TestTenant & { browser: Browser }> {
  const tenant = await aTenant({ name: "Made by the operator" });
  return { ...tenant, browser: await anOwnerOf(tenant.id) };
}

test("the price is said before the payment, Stripe takes no more, and the plan and its limits are in force on the return", async () => {
  const { id, apiKey, browser } = await aFreeAccount();
  const plan = await pageOf(browser, id, "/plan");
  expect(plan.html).toContain(`/app/${id}/plan/buy?plan=starter"`);
  expect(textOf(plan.html)).not.toContain("is changed by support");
  const priced = textOf((await pageOf(browser, id, "/plan/buy?plan=pro")).html);
  const said = Number(/Now \$(?<amount>[\d.]+)/.exec(priced)?.groups?.["amount"]);
  expect(priced).toContain("Then $49.00 a month, and units beyond the included ones");
  const before = await callTool(apiKey, "search_products", { query: "" });
  expect(before.headers.get("ratelimit")).toContain('"hour";r=99');

  const back = await pay(await toPayment(browser, id, "pro"));
  expect(back).toBe(`${system.publicUrl}/app/${id}/plan?checkout=paid`);
  const returned = textOf((await browser.page(back)).html);
  expect(returned).toContain("The account has the plan Pro now. Its limits are in force.");
  expect(returned).toMatch(/Pro \$49 a month/);
  // In force with the page, without waiting for an event.
  const { customer, delivered, ...row } = await rowOf(id);
  expect(row).toMatchObject({ plan: "pro", state: "active", subscription: expect.stringMatching(/^sub_/) });
  expect(delivered).toBe(true);
  const after = await callTool(apiKey, "search_products", { query: "" });
  // The hour's unit of before still counts.
  expect(after.headers.get("ratelimit")).toContain('"hour";r=9998');
  const [{ limits } = { limits: {} }] = await controlRows<{ limits: Record<string, number> }>(
    `SELECT limits FROM tenants WHERE id = $1`,
    [id],
  );
  expect(limits).toMatchObject({ unitsPerHour: 10_000, callsPerMinute: 600, callsInFlight: 32 });
  const { data: invoices } = await stripeGet<{ data: { amount_paid: number }[] }>(`/invoices?customer=${customer}`);
  const paid = invoices.reduce((sum, { amount_paid: cents }) => sum + cents, 0) / 100;
  expect(paid).toBeLessThanOrEqual(said);
  expect(paid).toBeGreaterThan(said - 0.05);
  // It has a subscription now, so its plan is changed and none is sold.
  const changed = await pageOf(browser, id, "/plan");
  expect(changed.html).toContain(`/app/${id}/plan/change?plan=starter"`);
  expect(changed.html).not.toContain("/plan/buy");
  const again = await pageOf(browser, id, "/plan/buy?plan=starter");
  expect(textOf(again.html)).toContain("The account has a subscription already.");
  expect(again.html).not.toContain(`action="/app/${id}/checkout"`);
});

test("who leaves the payment page reads that nothing was charged, and nothing has changed", async () => {
  const { id, browser } = await aFreeAccount();
  const { customer, ...before } = await rowOf(id);
  const payment = await toPayment(browser, id, "starter");
  const cancel = /href="(?<url>[^"]+)">Cancel and go back/.exec(await (await fetch(payment)).text())?.groups?.["url"];
  const page = await browser.page(cancel?.replaceAll("&amp;", "&") ?? "");
  expect(textOf(page.html)).toContain(
    "You have left the payment page. Nothing was charged, and the plan has not changed.",
  );
  expect(page.html).toContain(`/app/${id}/plan/buy?plan=starter"`);
  expect(await rowOf(id)).toMatchObject(before);
  expect((await stripeGet<{ data: unknown[] }>(`/invoices?customer=${customer}`)).data).toEqual([]);
  // The page that was left still sells, once.
  await pay(payment);
  await untilRow(id, { plan: "starter", state: "active" });
  const late = await pageOf(browser, id, "/plan?checkout=cancelled");
  expect(textOf(late.html)).not.toContain("Nothing was charged");
});

test("who returns before Stripe has the payment reads that it is not confirmed yet", async () => {
  const { id, browser } = await aFreeAccount();
  const page = await pageOf(browser, id, "/plan?checkout=paid");
  expect(textOf(page.html)).toContain("Stripe has not confirmed the payment yet.");
  expect((await rowOf(id)).plan).toBe("free");
  expect((await pageOf(browser, id, "/plan?checkout=other")).status).toBe(400);
});

test("an account at its limit is led to the price of a larger plan, and one by contract to support", async () => {
  const { id, browser } = await aFreeAccount();
  const limit = await pageOf(browser, id, "/limit");
  expect(limit.html).toContain(`/app/${id}/plan/buy?plan=starter"`);
  expect(limit.html).not.toContain(`<input type="hidden" name="plan"`);
  expect((await operator("POST", `/tenants/${id}/plan`, { plan: "enterprise", strategy: "shared" })).status).toBe(200);
  const plan = await pageOf(browser, id, "/plan");
  expect(textOf(plan.html)).toContain("In its present state the plan of this account is changed by support");
  expect(plan.html).not.toContain("/plan/buy");
  const refused = await browser.page(`${system.publicUrl}/app/${id}/checkout`, {
    ...{ method: "POST", body: "plan=starter" },
    headers: { "content-type": "application/x-www-form-urlencoded", origin: system.publicUrl },
  });
  expect([refused.status, textOf(refused.html)]).toEqual([
    409,
    expect.stringContaining("The account is served by contract."),
  ]);
});
