// A customer's pages about usage: every number equals the API's, the ledger's and Stripe's to the unit, also at the edge of a billing
// period, and stays readable in every state of the account.
import { afterAll, expect, test } from "vitest";
import { billAt, used } from "../support/billing.ts";
import { aTenant, callTool, controlRows, operator, simulator, stripeRead, system, until } from "../support/flow.ts";
import { figureOf, numberOf, tableOf, textOf } from "../support/html.ts";
import { type Browser } from "../support/sign-in.ts";
import { anOwnerOf, ask } from "../support/signed-in.ts";
import { aSubscriber, untilRow } from "../support/subscribers.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";

const HOUR_MS = 3_600_000;
const limits = { unitsPerHour: 35, unitsPerMonth: 1_000, callsPerMinute: null, callsInFlight: 100 };
/** A fold covers a minute, and the machine may be busy. */
const FOLDED_WITHIN_MS = 100_000;

afterAll(() => simulator("/clock", { offsetMs: 0 }));

async function htmlOf(browser: Browser, tenantId: string, path: string): Promise<string> {
  const page = await browser.page(`${system.publicUrl}/app/${tenantId}${path}`);
  expect(page.status, textOf(page.html)).toBe(200);
  expect(page.headers.get("cache-control")).toBe("no-store");
  return page.html;
}

async function api<Answer>(browser: Browser, tenantId: string, path: string): Promise<Answer> {
  const answer = await ask(browser, "GET", `/api/tenants/${tenantId}${path}`);
  expect(answer.status, await answer.clone().text()).toBe(200);
  return (await answer.json()) as Answer;
}

interface Figures {
  calls: number;
  units: number;
  failed: number;
  refused: number;
}
interface Metrics {
  total: Figures;
  points: (Figures & { tool?: string; name?: string; outcome?: string; code?: string | null })[];
}
interface Usage {
  total: { units: number; calls: number };
  days: { day: string; units: number }[];
}
interface Calls {
  calls: { id: string; tool: string; outcome: string; units: number; at: string }[];
}

test("each number of the overview, of usage and of calls is the API's and the ledger's", async () => {
  const tenant = await aTenant({ limits, name: `<b>Acme</b> & "Sons"` });
  const browser = await anOwnerOf(tenant.id);
  const hostile = `"><script>alert(1)</script>`;
  const made = await operator("POST", `/tenants/${tenant.id}/keys`, { name: hostile });
  const { apiKey } = (await made.json()) as { apiKey: string };
  await Promise.all([
    ...Array.from({ length: 10 }, () => callTool(tenant.apiKey, "search_products", { query: "" })),
    callTool(apiKey, "generate_report"),
    callTool(apiKey, "read_document", { path: "there/is/none.txt" }),
  ]);
  expect((await callTool(apiKey, "generate_report")).refusal?.code).toBe("window_exhausted");
  const metrics = (query = ""): Promise<Metrics> => api(browser, tenant.id, `/metrics${query}`);
  const isComplete = async (): Promise<boolean> => {
    const usage = await api<Usage>(browser, tenant.id, "/usage");
    return (await metrics()).total.calls >= 13 && usage.total.calls >= 11;
  };
  await until(isComplete, "the ledger and the metrics have all calls", FOLDED_WITHIN_MS);

  const usage = await api<Usage>(browser, tenant.id, "/usage");
  const [ledger] = await controlRows<{ units: number }>(
    `SELECT sum(units)::int AS units FROM ledger WHERE tenant_id = $1`,
    [tenant.id],
  );
  const { total } = await metrics();
  expect(total).toMatchObject({ calls: 13, failed: 1, refused: 1, units: ledger?.units });

  const html = await htmlOf(browser, tenant.id, "/usage");
  expect(numberOf(figureOf(html, "Units charged"))).toBe(ledger?.units);
  expect(numberOf(figureOf(html, "Units charged"))).toBe(usage.total.units);
  expect(numberOf(figureOf(html, "Calls"))).toBe(total.calls);
  expect(html).toContain("1 failed, 1 refused");
  expect(figureOf(html, "Documents now")).toBe("0 B");
  const byDay = tableOf(html, "Calls by day");
  expect(byDay).toHaveLength(30);
  const sum = (rows: Record<string, string>[], column: string): number =>
    rows.reduce((all, row) => all + numberOf(row[column]), 0);
  expect([sum(byDay, "OK"), sum(byDay, "Failed"), sum(byDay, "Refused")]).toEqual([11, 1, 1]);

  const groups = [
    ["tool", "Usage by tool", "Tool"],
    ["caller", "Usage by key and member", "Key or member"],
    ["outcome", "Usage by outcome", "Outcome"],
  ] as const;
  for (const [by, caption] of groups) {
    const { points } = await metrics(`?by=${by}&step=total`);
    const rows = tableOf(await htmlOf(browser, tenant.id, `/usage?by=${by}`), caption);
    const shown = rows.map((row) => `${numberOf(row["Calls"])} calls, ${numberOf(row["Units"])} units`);
    expect(shown.toSorted()).toEqual(points.map((each) => `${each.calls} calls, ${each.units} units`).toSorted());
  }
  // What a person has named is text, wherever it is shown.
  for (const path of ["", "/usage?by=caller", "/calls"]) {
    const page = await htmlOf(browser, tenant.id, path);
    expect(page).toContain("&lt;b&gt;Acme&lt;/b&gt; &amp; &quot;Sons&quot;");
    expect(page).not.toContain("<script>alert");
    if (path !== "") expect(page).toContain("&lt;script&gt;alert(1)&lt;/script&gt;");
  }
  const own = await htmlOf(browser, tenant.id, "/usage?tool=search_products");
  expect(numberOf(figureOf(own, "Calls"))).toBe((await metrics("?tool=search_products")).total.calls);

  const { calls } = await api<Calls>(browser, tenant.id, "/calls");
  const listed = await htmlOf(browser, tenant.id, "/calls");
  expect(tableOf(listed, "Calls").map((row) => [row["Tool"], numberOf(row["Units"])])).toEqual(
    calls.map(({ tool, units }) => [tool, units]),
  );
  for (const { id } of calls) expect(listed).toContain(`/app/${tenant.id}/calls/${id}"`);
  const failed = await htmlOf(browser, tenant.id, "/calls?tool=&key=&outcome=failed");
  expect(tableOf(failed, "Calls").map((row) => row["Tool"])).toEqual(["read_document"]);
  const charged = calls.find(({ tool, outcome }) => tool === "generate_report" && outcome === "ok");
  const one = textOf(await htmlOf(browser, tenant.id, `/calls/${charged?.id}`));
  expect(one).toContain(`Units ${charged?.units} `);

  const overview = await htmlOf(browser, tenant.id, "");
  const quota = (await callTool(tenant.apiKey, "get_usage")).data as Record<"hour" | "month", { used: number }>;
  expect(numberOf(figureOf(overview, "Units this hour"))).toBe(quota.hour.used);
  expect(numberOf(figureOf(overview, "Units this month"))).toBe(quota.month.used);
  expect(sum(tableOf(overview, "Units by day"), "This period")).toBe(usage.total.units);
  const live = await browser.page(`${system.publicUrl}/app/${tenant.id}`, { headers: { "hx-request": "true" } });
  expect(live.html).toMatch(/^<section id="limits"/);
  expect(numberOf(figureOf(live.html, "Units this month"))).toBe(quota.month.used);

  // Suspended: usage, calls and invoices stay readable, and the page says why agents are refused.
  expect((await operator("POST", `/tenants/${tenant.id}/suspend`)).status).toBeLessThan(300);
  expect(textOf(await htmlOf(browser, tenant.id, ""))).toContain("The operator has suspended the account");
  for (const path of ["/usage", "/calls", "/invoices"]) await htmlOf(browser, tenant.id, path);
});

test("each line of usage on an invoice adds up from its calls, also from those at the edge of its period", async () => {
  const tenant = await aSubscriber({ plan: "pro" });
  const browser = await anOwnerOf(tenant.id);
  const { customer, periodEndMs } = await untilRow(tenant.id, { state: "active" });
  const billed = { id: TenantId.parse(tenant.id), customerId: customer };
  await used(billed, [40_000, 17_005], periodEndMs - 1);
  await used(billed, [11], periodEndMs);
  // Before its end the period costs what its invoice will say.
  const overview = await htmlOf(browser, tenant.id, "");
  expect([figureOf(overview, "Included units"), figureOf(overview, "Cost so far")]).toEqual(["57,005", "$56.005"]);
  expect(figureOf(overview, "Spend cap")).toBe("$7.005");
  await billAt(periodEndMs + 3 * 60_000);
  await billAt(periodEndMs + 2 * HOUR_MS);
  await untilRow(tenant.id, { state: "active" });

  interface Line {
    quantity: number;
    amount: number;
    period: { start: number; end: number };
  }
  const { data: invoices } = await stripeRead<{ data: { id: string; number: string; total: number }[] }>(
    `/invoices?customer=${customer}&limit=1`,
  );
  const [invoice] = invoices;
  const { data: lines } = await stripeRead<{ data: Line[] }>(`/invoices/${invoice?.id}/lines?limit=100`);
  const usage = lines.filter(({ period }) => period.end * 1_000 === periodEndMs);
  const stripeUnits = usage.reduce((sum, { quantity }) => sum + quantity, 0);
  expect(stripeUnits).toBe(57_005);
  // Rounded to a cent, which half a cent may be in either direction.
  expect([700, 701]).toContain(usage.reduce((sum, { amount }) => sum + amount, 0));

  const list = tableOf(await htmlOf(browser, tenant.id, "/invoices"), "Invoices");
  expect(list[0]?.["Invoice"]).toBe(invoice?.number);
  expect(Math.round(numberOf(list[0]?.["Amount"]) * 100)).toBe(invoice?.total);
  const html = await htmlOf(browser, tenant.id, `/invoices/${invoice?.id}`);
  const shown = tableOf(html, "Lines");
  expect(
    shown.slice(0, -1).map((row) => [numberOf(row["Quantity"]), Math.round(numberOf(row["Amount"]) * 100)]),
  ).toEqual(lines.map(({ quantity, amount }) => [quantity, amount]));
  expect(html).toContain("Equal to the unit");
  const [day, total] = tableOf(html, "Calls and reports by day");
  expect([numberOf(day?.["Units of calls"]), numberOf(day?.["Units in reports"])]).toEqual([stripeUnits, stripeUnits]);
  expect(numberOf(total?.["Calls"])).toBe(2);

  const linkIn = (page: string, pattern: RegExp): string => (pattern.exec(page)?.[1] ?? "").replaceAll("&amp;", "&");
  const ofDay = await browser.page(system.publicUrl + linkIn(html, /href="(\/app\/[\w-]+\/reports\?[^"]+)"/));
  const reports = tableOf(ofDay.html, "Reports");
  expect(numberOf(reports.at(-1)?.["Units"])).toBe(stripeUnits);
  const report = await browser.page(system.publicUrl + linkIn(ofDay.html, /href="(\/app\/[\w-]+\/reports\/[^"]+)"/));
  const calls = tableOf(report.html, "Calls");
  expect(new Set(calls.map((call) => call["Units"]))).toEqual(new Set(["17,005", "40,000"]));
  const call = await browser.page(system.publicUrl + linkIn(report.html, /href="(\/app\/[\w-]+\/calls\/[^"]+)"/));
  expect(textOf(call.html)).toContain("Stripe has it");

  // An invoice of another customer does not exist.
  const other = await anOwnerOf((await aTenant()).id);
  expect((await other.page(`${system.publicUrl}/app/${tenant.id}/invoices/${invoice?.id}`)).status).toBe(404);
});
