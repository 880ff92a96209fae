// Usage as a file of CSV: its sums are those of the page, the API and the ledger, also at the edge of a month, and no name in it is a
// formula. The page compares its sums with the time before.
import { expect, test } from "vitest";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { DAY_MS } from "../../src/core/time.ts";
import { used } from "../support/billing.ts";
import { aTenant, callTool, controlRows, operator, system, until } from "../support/flow.ts";
import { figureOf, numberOf, plain, textOf } from "../support/html.ts";
import type { Browser } from "../support/sign-in.ts";
import { anOwnerOf, ask } from "../support/signed-in.ts";

/** A fold covers a minute, and the machine may be busy. */
const FOLDED_WITHIN_MS = 100_000;

const htmlOf = async (browser: Browser, id: string, path: string): Promise<string> => {
  const page = await browser.page(`${system.publicUrl}/app/${id}${path}`);
  expect(page.status, textOf(page.html)).toBe(200);
  return page.html;
};

/** The rows of the file, by column. The cells of these tests have no commas. */
async function csvOf(browser: Browser, id: string, path: string): Promise<Record<string, string>[]> {
  const answer = await ask(browser, "GET", `/app/${id}${path}`);
  expect(answer.status, await answer.clone().text()).toBe(200);
  expect(answer.headers.get("content-type")).toMatch(/^text\/csv/);
  expect(answer.headers.get("content-disposition")).toMatch(/^attachment; filename="[\w-]+\.csv"$/);
  expect(answer.headers.get("cache-control")).toBe("no-store");
  const text = await answer.text();
  expect(text.endsWith("\r\n")).toBe(true);
  const [head = [], ...rows] = text
    .slice(0, -2)
    .split("\r\n")
    .map((line) => line.split(","));
  return rows.map((row) => Object.fromEntries(row.map((cell, index) => [head[index] ?? index, cell])));
}
const sum = (rows: Record<string, string>[], column: string): number =>
  rows.reduce((all, row) => all + Number(row[column]), 0);
/** The file that a link of the page leads to, below the account. */
function linkTo(html: string, id: string, text: string): string {
  const found = [...html.matchAll(/<a href="(?<href>[^"]*)"[^>]*>(?<text>[^<]*)<\/a>/g)].find(
    ({ groups }) => groups?.["text"] === text,
  );
  return plain(found?.groups?.["href"] ?? "no link").replace(`/app/${id}`, "");
}

test("the files' sums are the page's, the API's and the ledger's, and a name is no formula", async () => {
  const limits = { unitsPerHour: 100, unitsPerMonth: 1_000, callsPerMinute: null, callsInFlight: 100 };
  const tenant = await aTenant({ limits });
  const browser = await anOwnerOf(tenant.id);
  const formula = `=HYPERLINK("https://evil.example")`;
  const made = await operator("POST", `/tenants/${tenant.id}/keys`, { name: formula });
  const { apiKey } = (await made.json()) as { apiKey: string };
  await Promise.all([
    ...Array.from({ length: 5 }, () => callTool(tenant.apiKey, "search_products", { query: "" })),
    ...Array.from({ length: 2 }, () => callTool(apiKey, "search_products", { query: "" })),
    callTool(apiKey, "read_document", { path: "there/is/none.txt" }),
  ]);
  const { id } = tenant;
  const api = async (path: string) =>
    (await (await ask(browser, "GET", `/api/tenants/${id}${path}`)).json()) as {
      total: { calls: number; units: number };
    };
  await until(
    async () => (await api("/metrics")).total.calls >= 8 && (await api("/usage")).total.calls >= 7,
    "the ledger and the metrics have all calls",
    FOLDED_WITHIN_MS,
  );
  const [ledger] = await controlRows<{ units: number }>(
    `SELECT sum(units)::int AS units FROM ledger WHERE tenant_id = $1`,
    [id],
  );
  expect(ledger?.units).toBe(7);
  for (const range of ["", "?last=24h"]) {
    const html = await htmlOf(browser, id, `/usage${range}`);
    const page = { units: numberOf(figureOf(html, "Units charged")), calls: numberOf(figureOf(html, "Calls")) };
    expect([range, page]).toEqual([range, { units: 7, calls: 8 }]);
    const byTime = await csvOf(browser, id, linkTo(html, id, `Download by ${range === "" ? "day" : "hour"} (CSV)`));
    const byTool = await csvOf(browser, id, linkTo(html, id, "Download this table (CSV)"));
    for (const rows of [byTime, byTool]) expect({ units: sum(rows, "units"), calls: sum(rows, "calls") }).toEqual(page);
    expect([sum(byTime, "ok"), sum(byTime, "failed")]).toEqual([7, 1]);
    expect(byTool.map(({ tool }) => tool)).toEqual(["read_document", "search_products"]);
  }
  // A filter is in the file, too.
  const filtered = await htmlOf(browser, id, "/usage?tool=read_document");
  expect(await csvOf(browser, id, linkTo(filtered, id, "Download by day (CSV)"))).toEqual([
    expect.objectContaining({ calls: "1", failed: "1", units: "0" }),
  ]);
  for (const path of ["/usage.csv?rows=groups&by=caller", "/calls.csv"]) {
    const text = await (await ask(browser, "GET", `/app/${id}${path}`)).text();
    expect(text, path).toContain(`"'=HYPERLINK(""https://evil.example"")"`);
  }
  const calls = await csvOf(
    browser,
    id,
    linkTo(
      await htmlOf(browser, id, "/calls?tool=search_products"),
      id,
      "Download these and the next calls, up to 1,000 (CSV)",
    ),
  );
  expect([calls.length, sum(calls, "units")]).toEqual([7, 7]);
});

test("usage at the edge of a month is in the same month on the page, in the file, in the API and in the ledger", async () => {
  const { id } = await aTenant();
  const browser = await anOwnerOf(id);
  const edgeMs = Date.UTC(new Date().getUTCFullYear(), new Date().getUTCMonth(), 1);
  const tenant = { id: TenantId.parse(id), customerId: "" };
  await used(tenant, [70, 7], edgeMs - 1);
  await used(tenant, [4, 2], edgeMs);
  const day = (atMs: number): string => new Date(atMs).toISOString().slice(0, 10);
  const lastMs = edgeMs - 1;
  const months = [
    { from: `${day(lastMs).slice(0, 7)}-01`, to: day(lastMs), units: 77, calls: 2, days: [day(lastMs)] },
    { from: day(edgeMs), to: day(Date.now()), units: 6, calls: 2, days: [day(edgeMs)] },
  ];
  for (const { from, to, units, calls, days } of months) {
    const month = from.slice(0, 7);
    const html = await htmlOf(browser, id, `/usage?from=${from}&to=${to}`);
    expect([month, numberOf(figureOf(html, "Units charged"))]).toEqual([month, units]);
    const rows = await csvOf(browser, id, `/usage.csv?from=${from}&to=${to}`);
    // Two days or fewer are by hour, of the metrics, which have no such calls.
    if (Date.parse(to) - Date.parse(from) > DAY_MS)
      expect([sum(rows, "units"), rows.map((row) => row["from"]?.slice(0, 10))]).toEqual([units, days]);
    const answer = await ask(browser, "GET", `/api/tenants/${id}/usage?period=${month}`);
    expect(await answer.json()).toMatchObject({ total: { units, calls }, days: [{ day: days[0], units, calls }] });
    const [ledger] = await controlRows<{ units: number }>(
      `SELECT sum(units)::int AS units FROM ledger WHERE tenant_id = $1 AND at >= $2::date AND at < ($2::date + interval '1 month')`,
      [id, from],
    );
    expect(ledger?.units).toBe(units);
  }
  // Without a subscription the billing period is the month, and the month before is compared with the time before it.
  const html = await htmlOf(browser, id, "/usage");
  for (const [index, text] of ["Previous billing period", "This billing period"].entries())
    expect(linkTo(html, id, text)).toBe(`/usage?by=tool&from=${months[index]?.from}&to=${months[index]?.to}`);
});

test("the page says how each sum differs from the same time before, in words", async () => {
  const { id } = await aTenant();
  const browser = await anOwnerOf(id);
  const tenant = { id: TenantId.parse(id), customerId: "" };
  const day = (daysAgo: number): string => new Date(Date.now() - daysAgo * DAY_MS).toISOString().slice(0, 10);
  const noon = (daysAgo: number): number => Date.parse(`${day(daysAgo)}T12:00:00Z`);
  await used(tenant, [1_250], noon(3));
  await used(tenant, [1_000], noon(6));
  const html = await htmlOf(browser, id, `/usage?from=${day(4)}&to=${day(2)}`);
  expect(textOf(html)).toContain("250 more than the 1,000 before");
  expect(textOf(html)).toContain(`Compared with the same time before: from ${day(7)} 00:00 to ${day(4)} 00:00`);
  expect(html).toContain('<svg class="arrow"');
  const back = await htmlOf(browser, id, `/usage?from=${day(2)}&to=${day(1)}`);
  expect(textOf(back)).toContain("1,250 fewer than the 1,250 before");
  const none = await htmlOf(browser, id, "/usage?last=24h");
  expect(textOf(none)).toContain("Units charged 0 The same as before");
});
