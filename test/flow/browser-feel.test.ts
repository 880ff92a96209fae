// How pages feel with a real browser: nothing moves while a page loads or renews itself, everything works with the keyboard alone,
// and no page is wider than a small or enlarged screen.
import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { crawl, linksOf } from "../../dev/crawl.ts";
import { newPage } from "../support/browser.ts";
import { aTenant, callTool, operator, system } from "../support/flow.ts";
import { signInOperator } from "../support/operators.ts";
import { signInAsOwner } from "../support/owners.ts";

const PHONE = { width: 390, height: 844 };
const DESKTOP = { width: 1_280, height: 900 };
/** A page of 1,280 pixels at a zoom of 400 % and of 200 % (WCAG 2.2, 1.4.10 and 1.4.4). */
const ENLARGED = [320, 640];
/** From this on a reader notices that parts of a page move (web.dev/cls: "good"). */
const MOST_SHIFT = 0.1;

const open = (page: Page, path: string) => page.goto(system.publicUrl + path, { waitUntil: "load" });
/** Waits until a part of the page has renewed itself. */
const renewed = (page: Page) => page.waitForResponse((answer) => answer.request().headers()["hx-request"] === "true");

/** Adds up how far parts of the page move without a person's doing. */
const watchShifts = (page: Page): Promise<unknown> =>
  page.addInitScript(`
    self.shifts = [];
    new PerformanceObserver((list) => {
      for (const { value, hadRecentInput, sources } of list.getEntries())
        if (!hadRecentInput) self.shifts.push({ value, nodes: sources.map(({ node }) => node?.nodeName + "." + node?.className) });
    }).observe({ type: "layout-shift", buffered: true });
  `);

/** The shifts so far, and which elements moved. A frame is drawn first, because the browser reports with it. */
async function shiftsOf(page: Page): Promise<{ total: number; nodes: string[] }> {
  const shifts = (await page.evaluate(
    "new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(self.shifts), 50)))",
  )) as { value: number; nodes: string[] }[];
  return { total: shifts.reduce((sum, { value }) => sum + value, 0), nodes: shifts.flatMap(({ nodes }) => nodes) };
}

async function anAccountWithCalls(page: Page): Promise<string> {
  const { id, apiKey } = await aTenant({ plan: "pro" });
  for (let call = 0; call < 3; call += 1) await callTool(apiKey, "search_products", { query: "lamp" });
  await signInAsOwner(page, id);
  return id;
}

test.each([
  ["a phone", PHONE],
  ["a desktop", DESKTOP],
])(
  "nothing moves on %s while a page loads or renews itself",
  async (_, viewport) => {
    const page = await newPage({ viewport });
    await watchShifts(page);
    const id = await anAccountWithCalls(page);
    const still = async (path: string, renewals = 0): Promise<void> => {
      await open(page, path);
      for (let renewal = 0; renewal < renewals; renewal += 1) await renewed(page);
      const { total, nodes } = await shiftsOf(page);
      expect(total, `${path}: ${nodes.join(", ")}`).toBeLessThan(MOST_SHIFT);
    };
    for (const path of ["/", "/docs", "/docs/billing", "/docs/errors", "/status", "/sign-up"]) await still(path);
    await still(`/app/${id}`, 2);
    for (const path of ["/usage", "/calls", "/keys", "/plan", "/settings"]) await still(`/app/${id}${path}`);

    const operatorPage = await newPage({ viewport });
    await watchShifts(operatorPage);
    await signInOperator(operatorPage, "admin", "/admin");
    for (const path of ["/admin", "/admin/tenants", `/admin/tenants/${id}`, "/admin/billing", "/admin/audit"]) {
      await open(operatorPage, path);
      const { total, nodes } = await shiftsOf(operatorPage);
      expect(total, `${path}: ${nodes.join(", ")}`).toBeLessThan(MOST_SHIFT);
    }
  },
  120_000,
);

test("nothing moves while the steps of a set-up renew themselves", async () => {
  const page = await newPage({ viewport: PHONE });
  await watchShifts(page);
  const made = await operator("POST", "/checkouts", { name: "A buyer", plan: "starter", email: "buyer@example.com" });
  const order = (await made.json()) as { tenantId: string; checkoutUrl: string; setupToken: string };
  await open(page, `/checkout/${order.tenantId}?token=${order.setupToken}`);
  await page.getByRole("heading", { name: "Waiting for your payment" }).waitFor();
  await (await fetch(order.checkoutUrl, { method: "POST", redirect: "manual" })).body?.cancel();
  await page.getByRole("heading", { name: "Your account is ready" }).waitFor();
  const { total, nodes } = await shiftsOf(page);
  expect(total, nodes.join(", ")).toBeLessThan(MOST_SHIFT);
}, 60_000);

test("the first press of Tab offers the way past the navigation, and takes it", async () => {
  const page = await newPage({ viewport: DESKTOP });
  const id = await anAccountWithCalls(page);
  for (const path of ["/", `/app/${id}`, `/app/${id}/keys/new`]) {
    await open(page, path);
    await page.keyboard.press("Tab");
    const skip = page.getByRole("link", { name: "Skip to the content" });
    expect(await skip.evaluate((link) => link === link.ownerDocument.activeElement), path).toBe(true);
    const box = await skip.boundingBox();
    expect([(box?.x ?? -1) >= 0, (box?.y ?? -1) >= 0, (box?.height ?? 0) > 20], path).toEqual([true, true, true]);
    await page.keyboard.press("Enter");
    await page.keyboard.press("Tab");
    expect(await page.evaluate(`document.querySelector("main").contains(document.activeElement)`), path).toBe(true);
  }
});

test("with the keyboard alone, a person sees where they are at each step through a page, and no step is out of sight", async () => {
  const page = await newPage({ viewport: DESKTOP });
  const id = await anAccountWithCalls(page);
  const unseen: string[] = [];
  for (const path of [
    "/",
    "/sign-up",
    `/app/${id}`,
    `/app/${id}/usage`,
    `/app/${id}/keys/new`,
    `/app/${id}/settings`,
  ]) {
    await open(page, path);
    // More steps than any of these pages has. The last one leaves the page.
    for (let step = 0; step < 90; step += 1) {
      await page.keyboard.press("Tab");
      const at = (await page.evaluate(`(() => {
        const at = document.activeElement;
        if (at === document.body || at === null) return null;
        const { outlineStyle, outlineWidth } = getComputedStyle(at);
        const { top, bottom, left, right } = at.getBoundingClientRect();
        return {
          name: at.outerHTML.slice(0, 80),
          isMarked: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2,
          isInSight: bottom > 0 && top < innerHeight && right > 0 && left < innerWidth,
        };
      })()`)) as { name: string; isMarked: boolean; isInSight: boolean } | null;
      if (at === null) break;
      if (!at.isMarked || !at.isInSight) unseen.push(`${path}: ${JSON.stringify(at)}`);
    }
  }
  expect(unseen).toEqual([]);
}, 90_000);

test("the person's menu opens, is walked through and closes without a mouse, and leaves the person where they were", async () => {
  const page = await newPage({ viewport: PHONE });
  const id = await anAccountWithCalls(page);
  await open(page, `/app/${id}`);
  const menu = page.locator("details.menu");
  const isOpen = (): Promise<boolean> => menu.evaluate((each) => each.hasAttribute("open"));
  await menu.locator("summary").focus();
  await page.keyboard.press("Enter");
  expect(await isOpen()).toBe(true);
  const inside = "document.activeElement.closest('details.menu > div') !== null";
  await page.keyboard.press("Tab");
  expect(await page.evaluate(inside)).toBe(true);
  const box = await menu.locator("div").boundingBox();
  expect((box?.x ?? -1) >= 0 && (box?.x ?? 0) + (box?.width ?? 0) <= PHONE.width).toBe(true);
  await page.keyboard.press("Escape");
  expect(await isOpen()).toBe(false);
  expect(await page.evaluate("document.activeElement.tagName")).toBe("SUMMARY");
  // The name is in the menu, where the header of a phone has no room for it.
  await page.keyboard.press("Space");
  expect(await menu.locator("div").innerText()).toContain("@example.com");
});

test("the section of the page is in sight of a phone's row of sections, wherever it stands in the row", async () => {
  const page = await newPage({ viewport: PHONE });
  const id = await anAccountWithCalls(page);
  for (const path of ["", "/invoices", "/audit", "/data"]) {
    await open(page, `/app/${id}${path}`);
    const box = await page.locator(".sections a[aria-current]").boundingBox();
    expect((box?.x ?? -1) >= 0 && (box?.x ?? 0) + (box?.width ?? 0) <= PHONE.width, path).toBe(true);
  }
});

/** The last elements that end beside the screen, for the message of a failed test. */
function widestOf(page: Page): Promise<string> {
  return page.evaluate(`[...document.querySelectorAll("body *")]
    .filter((each) => each.getBoundingClientRect().right > innerWidth && each.closest(".scroll, .sections, pre, .tabs") === null)
    .map((each) => each.outerHTML.slice(0, 60)).slice(-2).join(" ")`);
}

test("no page of a visitor, a customer or the operator is wider than a small or enlarged screen", async () => {
  const page = await newPage({ viewport: PHONE });
  const id = await anAccountWithCalls(page);
  const operatorPage = await newPage({ viewport: PHONE });
  await signInOperator(operatorPage, "admin", "/admin");
  const tooWide: string[] = [];
  const look = async (window: Page, path: string): Promise<string[] | undefined> => {
    const answer = await window.request.head(system.publicUrl + path, { headers: { accept: "text/html" } });
    if (answer.headers()["content-type"]?.startsWith("text/html") !== true) return undefined;
    await open(window, path);
    for (const width of ENLARGED) {
      await window.setViewportSize({ width, height: 640 });
      const hidden = Number(await window.evaluate("document.documentElement.scrollWidth - innerWidth"));
      if (hidden > 0) tooWide.push(`${path} at ${width}: ${hidden} pixels, ${await widestOf(window)}`);
    }
    return linksOf(await window.content());
  };
  const visitors = ["/", "/sign-up", "/docs", "/docs/api", "/docs/errors", "/docs/billing", "/status"];
  await crawl({ paths: visitors, open: (path) => look(page, path) });
  await crawl({ paths: [`/app/${id}`], root: `/app/${id}`, open: (path) => look(page, path) });
  await crawl({ paths: ["/admin"], root: "/admin", open: (path) => look(operatorPage, path) });
  expect(tooWide.join("\n")).toBe("");
}, 180_000);
