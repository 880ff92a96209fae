// A buyer's way over the pages, in a browser without script: plans, order, payment, the steps of the set-up, the first key, the
// owner's invitation.
import { expect, test } from "vitest";
import { callTool, system, until } from "../support/flow.ts";
import { mailedToken } from "../support/people.ts";
import { textOf } from "../support/html.ts";
import { type Page, formsOf } from "../support/plain-browser.ts";
import { Browser } from "../support/sign-in.ts";

const post = (fields: Record<string, string>, origin = system.publicUrl): RequestInit => ({
  method: "POST",
  headers: { "content-type": "application/x-www-form-urlencoded", origin },
  body: new URLSearchParams(fields).toString(),
});

/** Orders a plan on the pages, and pays. Returns where Stripe sends the browser. */
async function orderAndPay(browser: Browser, order: { plan: string; name: string; email: string }): Promise<URL> {
  const checkout = await browser.open(`${system.publicUrl}/sign-up`, post(order));
  if (!(checkout instanceof URL)) throw new Error(`no payment page: ${textOf(checkout.html)}`);
  expect(checkout.origin).not.toBe(system.publicUrl);
  const paid = await fetch(checkout, { method: "POST", redirect: "manual" });
  expect(paid.status).toBe(303);
  return new URL(paid.headers.get("location") ?? "");
}

async function untilReady(browser: Browser, url: string): Promise<Page> {
  let page = await browser.page(url);
  await until(async () => {
    page = await browser.page(url);
    return textOf(page.html).includes("Your account is ready");
  }, "the account is ready");
  return page;
}

test("a buyer orders a plan, pays, sees the steps, gets the first key once, and the key works", async () => {
  const browser = new Browser();
  const email = `buyer-${crypto.randomUUID()}@pages.example`;
  const home = await browser.page(`${system.publicUrl}/`);
  expect(home.html).toContain('href="/sign-up?plan=starter"');
  const form = await browser.page(`${system.publicUrl}/sign-up?plan=starter`);
  expect(formsOf(form.html)).toMatchObject([{ action: "/sign-up", method: "post", fields: [["plan", "starter"]] }]);

  const back = await orderAndPay(browser, { plan: "starter", name: "Page buyer", email });
  expect(back.origin + back.pathname).toMatch(new RegExp(`^${system.publicUrl}/checkout/[a-z0-9-]+$`));
  const first = await browser.page(back.href);
  // The token has left the address, and nothing keeps the page.
  expect(first.url.search).toBe("");
  expect(first.headers.get("cache-control")).toBe("no-store");
  expect(textOf(first.html)).toContain("Payment received");
  const url = `${system.publicUrl}${back.pathname}`;
  const ready = await untilReady(browser, url);
  expect(ready.html).not.toContain("hx-trigger");
  const part = await browser.page(url, { headers: { "hx-request": "true" } });
  expect(part.html).toMatch(/^<div id="progress"/);

  const [keyForm] = formsOf(ready.html).filter(({ action }) => action.endsWith("/key"));
  const fields = Object.fromEntries(keyForm?.fields ?? []);
  const keyOf = (page: Page): string | undefined => /tgk_[\w.-]+/.exec(textOf(page.html))?.[0];
  const foreign = await browser.page(`${url}/key`, post(fields, "https://evil.example"));
  expect(foreign.status).toBe(403);
  const shown = await browser.page(`${url}/key`, post(fields));
  expect(shown.headers.get("cache-control")).toBe("no-store");
  const apiKey = keyOf(shown) ?? "";
  expect((await callTool(apiKey, "search_products", { query: "lamp" })).isError).toBeFalsy();
  for (const client of [
    "Claude Code",
    "Cursor",
    "VS Code",
    "Claude Desktop",
    "TypeScript",
    "Python",
    "curl",
    "ChatGPT",
  ])
    expect(textOf(shown.html)).toContain(client);
  // A second click sends the same form. Another form makes no second key.
  expect(keyOf(await browser.page(`${url}/key`, post(fields)))).toBe(apiKey);
  const again = await browser.page(`${url}/key`, post({ form: "another-form" }));
  expect([again.status, keyOf(again)]).toEqual([409, undefined]);

  const invited = await browser.page(`${url}/owner`, post({}));
  expect(textOf(invited.html)).toContain(email);
  expect(await mailedToken(email)).toMatch(/^tgi_/);
});

test("the account's id alone shows nothing, the link after Checkout shows the steps, and only the order's browser makes the key", async () => {
  const buyer = new Browser();
  const order = { plan: "free", name: "Only mine", email: `mine-${crypto.randomUUID()}@pages.example` };
  const back = await orderAndPay(buyer, order);
  const url = `${system.publicUrl}${back.pathname}`;
  await untilReady(buyer, back.href);

  const stranger = new Browser();
  const unknown = await stranger.page(`${system.publicUrl}/checkout/no-such-tenant`);
  const known = await stranger.page(url);
  const withoutId = ({ html }: Page): string => html.replace(/<span class="code">[\w-]+<\/span>/, "");
  expect([known.status, withoutId(known)]).toEqual([404, withoutId(unknown)]);
  expect((await stranger.page(`${url}/key`, post({ form: "a-form" }))).status).toBe(401);

  const watcher = new Browser();
  const watched = await watcher.page(back.href);
  expect(textOf(watched.html)).toContain("Your account is ready");
  expect(watched.html).not.toMatch(/\/key"|\/owner"/);
  expect((await watcher.page(`${url}/key`, post({ form: "a-form" }))).status).toBe(401);

  // The set-up token of another order opens nothing here.
  const other = new Browser();
  await orderAndPay(other, { ...order, name: "Other" });
  expect((await other.page(url)).status).toBe(404);
});

test("an order form with mistakes comes back with what was entered, as text, and orders nothing", async () => {
  const browser = new Browser();
  const name = `"><script>alert(1)</script>`;
  const refused = await browser.page(`${system.publicUrl}/sign-up`, post({ plan: "free", name, email: "no address" }));
  expect(refused.status).toBe(400);
  expect(refused.html).toContain("&lt;script&gt;");
  expect(refused.html).not.toContain("<script>alert");
  expect(textOf(refused.html)).toContain("Enter an address such as");
  expect(refused.headers.getSetCookie()).toEqual([]);
  const foreign = await browser.page(
    `${system.publicUrl}/sign-up`,
    post({ plan: "free", name: "A", email: "a@pages.example" }, "https://evil.example"),
  );
  expect(foreign.status).toBe(403);
});
