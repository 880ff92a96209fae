// A tenant can check its invoice: each receipt of its agents is one call in one meter report, and their sum is Stripe's
// count. The operator's comparison names the place where numbers differ.
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { childEnvironment } from "../../dev/child-environment.ts";
import type { Call, CarryForward, Report } from "../../src/metering/receipts-store.ts";
import type { Receipt } from "../../src/core/call.ts";
import {
  type TestTenant,
  aCustomer,
  aTenant,
  anAgent,
  callTool,
  controlRows,
  fireCron,
  operator,
  setClock,
  simulator,
  stripeApi,
  system,
  until,
} from "../support/flow.ts";

const unlimited = { unitsPerHour: null, unitsPerMonth: null, callsPerMinute: null, callsInFlight: 128 };
/** Usage is frozen when it is a minute old. */
const FROZEN_AFTER_MS = 61_000;
const program = join(import.meta.dirname, "../../cli/verify-invoice.ts");
const preload = join(import.meta.dirname, "../../cli/register-app.ts");

interface UsageAnswer {
  total: { units: number; calls: number };
  unreported: { units: number; calls: number };
  days: { day: string; units: number; calls: number }[];
  tools: { tool: string; units: number; calls: number }[];
  reports: Report[];
  carryForwards: CarryForward[];
  next: string | null;
}

test("a tenant finds exactly the receipts its agents got, each in one report, and their sum is Stripe's", async () => {
  const tenant = await aTenant({ plan: "pro", limits: unlimited });
  const adminKey = await anAdminKey(tenant.id);
  const receipts = await callsOfEveryKind(tenant);
  await inLedger(tenant.id, receipts.length);
  await fireCron("*/5 * * * *", Date.now() + FROZEN_AFTER_MS);

  // Later calls: one gets its own report, the other is in no report yet.
  receipts.push(await charged(tenant.apiKey, "generate_report"));
  await inLedger(tenant.id, receipts.length);
  const late = await charged(tenant.apiKey, "search_products", { query: "" });
  const first = await usage(tenant.id, adminKey);
  expect(first.total.calls).toBeGreaterThanOrEqual(receipts.length);
  await inLedger(tenant.id, receipts.length + 1);
  expect(ids(await pagesOf(tenant.id, adminKey, "unreported", 1))).toEqual(ids([...receipts.slice(-1), late]));
  await fireCron("*/5 * * * *", Date.now() + FROZEN_AFTER_MS + 31_000);
  receipts.push(late);

  const { total, unreported, days, tools, reports } = await usage(tenant.id, adminKey);
  expect(reports.length).toBeGreaterThanOrEqual(2);
  expect(unreported).toEqual({ units: 0, calls: 0 });
  const seen: (Call & { report: string })[] = [];
  for (const report of reports) {
    const calls = await pagesOf(tenant.id, adminKey, report.id, 4);
    expect({ units: units(calls), calls: calls.length }).toEqual({ units: report.units, calls: report.calls });
    expect(report.confirmedAt).not.toBeNull();
    expect(report.confirmedBy).toBe("accepted");
    seen.push(...calls.map((call) => ({ ...call, report: report.id })));
  }
  const byId = (a: { id: string }, b: { id: string }): number => (a.id < b.id ? -1 : 1);
  expect(seen.map(({ id, units: cost }) => ({ id, units: cost })).toSorted(byId)).toEqual(receipts.toSorted(byId));
  expect(total).toEqual({ units: units(receipts), calls: receipts.length });
  for (const parts of [days, tools]) expect(units(parts)).toBe(total.units);
  expect(tools).toContainEqual({ tool: "generate_report", units: 40, calls: 2 });
  expect(tools.map(({ tool }) => tool)).not.toContain("get_usage");
  expect(await countedByStripe(tenant.id)).toBe(total.units);

  // Reports are paged, too.
  const paged: Report[] = [];
  for (let after: string | null = ""; after !== null;) {
    const page: UsageAnswer = await usage(tenant.id, adminKey, { limit: "1", ...(after !== "" && { after }) });
    expect(page.total).toEqual(total);
    paged.push(...page.reports);
    after = page.next;
  }
  expect(paged).toEqual(reports);
  // The operator reads the same numbers.
  const asOperator = await operator("GET", `/tenants/${tenant.id}/usage?${recently()}`);
  expect(await asOperator.json()).toEqual(await usage(tenant.id, adminKey));

  const equal = await verifyInvoice(tenant.id);
  expect(equal.stderr).toBe("");
  expect(equal.stdout).toContain("All is equal.");
  expect(equal.stdout).toMatch(
    new RegExp(`^total +${total.calls} +${total.units} +${total.units} +0 +${total.units} +0$`, "m"),
  );
  expect(equal.code).toBe(0);

  // Another program sends Stripe a meter event in the minute of a report.
  const [report] = reports;
  if (report === undefined) throw new Error("there are reports");
  const timestamp = String(Date.parse(report.minute) / 1000);
  const customer = await customerOf(tenant.id);
  await stripeApi("/billing/meter_events", {
    event_name: "mcp_units",
    timestamp,
    "payload[stripe_customer_id]": customer,
    "payload[value]": "3",
  });
  const different = await verifyInvoice(tenant.id);
  expect(different.code).toBe(1);
  expect(different.stdout).not.toContain("All is equal.");
  const day = report.minute.slice(0, 10);
  expect(different.stdout).toContain(`${day}: the first different minute ${report.minute} has report ${report.id}`);
  expect(different.stdout).toContain(`with ${report.units} units; Stripe counted ${report.units + 3} units.`);

  // A count that cannot be read does not pass as equal.
  await simulator("/faults", { rules: [{ kind: "error-500-before", method: "GET", path: "/v1/billing/meters" }] });
  try {
    expect((await verifyInvoice(tenant.id)).code).toBe(2);
  } finally {
    await simulator("/faults", { rules: [] });
  }
  expect((await verifyInvoice("nobody")).code).toBe(2);
});

test("the comparison finds a ledger call that its report lacks, and names the report", async () => {
  const tenant = await aTenant({ plan: "pro", limits: unlimited });
  await charged(tenant.apiKey, "search_products", { query: "" });
  await inLedger(tenant.id, 1);
  const open = await verifyInvoice(tenant.id);
  expect(open.code).toBe(1);
  expect(open.stdout).toContain("1 units in 1 calls are in no report yet.");
  await fireCron("*/5 * * * *", Date.now() + FROZEN_AFTER_MS);
  expect((await verifyInvoice(tenant.id)).code).toBe(0);
  const [{ id: reportId } = { id: "" }] = await controlRows<{ id: string }>(
    `INSERT INTO ledger (call_id, tenant_id, object, epoch, n, tool, units, at, report_id)
     SELECT 'by hand', tenant_id, object, 'by hand', n, tool, 2, at, report_id FROM ledger WHERE tenant_id = $1
     RETURNING report_id AS id`,
    [tenant.id],
  );
  const different = await verifyInvoice(tenant.id);
  expect(different.code).toBe(1);
  expect(different.stdout).toContain(`report ${reportId} has 1 units in 1 calls; its calls have 3 units in 2 calls.`);
});

test("a call that arrives after its invoice is in a carry-forward, and the sums are still equal", async () => {
  const tenant = await aTenant({ plan: "pro", limits: unlimited });
  const receipts = [await charged(tenant.apiKey, "search_products", { query: "" })];
  await inLedger(tenant.id, 1);
  await fireCron("*/5 * * * *", Date.now() + FROZEN_AFTER_MS);
  await controlRows(
    `INSERT INTO billing_periods (invoice_id, tenant_id, starts_at, ends_at, plan, included_units, unit_amount_cents, invoiced_units, finalized_at)
     VALUES ('in_' || $1, $1, now() - interval '1 day', now() + interval '1 day', 'pro', 50000, 0.1, 1, now())`,
    [tenant.id],
  );
  const late = [
    await charged(tenant.apiKey, "generate_report"),
    await charged(tenant.apiKey, "search_products", { query: "" }),
  ];
  await inLedger(tenant.id, 3);
  await fireCron("*/5 * * * *", Date.now() + 2 * FROZEN_AFTER_MS);

  const adminKey = await anAdminKey(tenant.id);
  const { total, unreported, reports, carryForwards } = await usage(tenant.id, adminKey);
  expect([total.units, unreported.units, units(reports), units(carryForwards)]).toEqual([22, 0, 1, 21]);
  const [carried] = carryForwards;
  const behind = [];
  for (const each of [...reports, ...carryForwards])
    behind.push(await pagesOf(tenant.id, adminKey, each.id, 1).then((calls) => ids(calls)));
  expect(behind).toEqual([ids(receipts), ids(late)]);
  const other = await aTenant({ plan: "pro" });
  expect((await operator("GET", `/tenants/${other.id}/usage?report=${carried?.id}`)).status).toBe(404);
  const equal = await verifyInvoice(tenant.id);
  expect(equal.stdout).toMatch(/^total +3 +22 +1 +21 +1 +0$/m);
  expect(equal.code).toBe(0);
});

test("an invoice is compared with the calls of its own period, to the unit", async () => {
  const customer = await aCustomer({ plan: "pro" });
  // Some minutes later, so that the calls follow the minute in which the subscription began.
  const laterMs = 120_000;
  await setClock(customer.id, laterMs);
  const receipts = [
    await charged(customer.apiKey, "search_products", { query: "" }),
    await charged(customer.apiKey, "generate_report"),
  ];
  await inLedger(customer.id, receipts.length);
  await fireCron("*/5 * * * *", Date.now() + laterMs + FROZEN_AFTER_MS);
  const [row] = await controlRows<{ subscription: string }>(
    `SELECT stripe_subscription_id AS subscription FROM tenants WHERE id = $1`,
    [customer.id],
  );
  await simulator("/clock", { offsetMs: 2 * laterMs });
  try {
    const ended = await fetch(`${system.stripeUrl}/v1/subscriptions/${row?.subscription}?invoice_now=true`, {
      method: "DELETE",
      headers: { authorization: `Bearer ${system.stripeSecretKey}` },
    });
    expect(ended.status).toBe(200);
  } finally {
    await simulator("/clock", { offsetMs: 0 });
  }
  const equal = await verifyInvoice(customer.id);
  expect(equal.stdout).toMatch(/^Invoice in_\w+ \((open|paid)\), .*: 21 units, 0\.00 USD: equal\.$/m);
  expect(equal.code).toBe(0);

  // A call of that period that arrives after the invoice.
  await controlRows(
    `INSERT INTO ledger (call_id, tenant_id, object, epoch, n, tool, units, at)
     SELECT 'late ' || call_id, tenant_id, object, 'by hand', n, tool, 5, at FROM ledger WHERE tenant_id = $1 AND units = 1`,
    [customer.id],
  );
  const different = await verifyInvoice(customer.id);
  expect(different.code).toBe(1);
  expect(different.stdout).toMatch(
    /^Invoice .*: 21 units, 0\.00 USD: DIFFERENT: the calls of that time have 26 units\.$/m,
  );
});

test("only a valid administrator key of the same tenant reads its usage", async () => {
  const [tenant, other] = await Promise.all([aTenant({ plan: "pro" }), aTenant({ plan: "pro" })]);
  const [adminKey, othersKey] = await Promise.all([anAdminKey(tenant.id), anAdminKey(other.id)]);
  await charged(tenant.apiKey, "search_products", { query: "" });
  await inLedger(tenant.id, 1);
  await fireCron("*/5 * * * *", Date.now() + FROZEN_AFTER_MS);
  const { reports } = await usage(tenant.id, adminKey);
  const status = async (tenantId: string, key: string | undefined, query = ""): Promise<number> =>
    (await getUsage(tenantId, key, query)).status;

  expect(await status(tenant.id, adminKey)).toBe(200);
  expect(await status(tenant.id, othersKey)).toBe(404);
  expect(await status(tenant.id, tenant.apiKey)).toBe(403);
  expect(await status(tenant.id, undefined)).toBe(401);
  // The report of another tenant is not found.
  expect(await status(tenant.id, adminKey, `report=${reports[0]?.id}`)).toBe(200);
  expect(await status(other.id, othersKey, `report=${reports[0]?.id}`)).toBe(404);
  expect((await operator("GET", `/tenants/${other.id}/usage?report=${reports[0]?.id}`)).status).toBe(404);
  expect((await operator("GET", "/tenants/nobody/usage")).status).toBe(404);
  // A suspended tenant still reads its usage. A revoked key stops reading at once.
  expect((await operator("POST", `/tenants/${tenant.id}/suspend`)).status).toBe(200);
  expect(await status(tenant.id, adminKey)).toBe(200);
  const { keys } = (await (await operator("GET", `/tenants/${tenant.id}`)).json()) as {
    keys: { id: string; name: string }[];
  };
  const own = keys.find(({ name }) => name === "administrator");
  await operator("DELETE", `/tenants/${tenant.id}/keys/${own?.id}`);
  expect(await status(tenant.id, adminKey)).toBe(401);
});

let anyTenant: ReturnType<typeof aTenant> | undefined;
test.each([
  "period=2026-13",
  "period=0001-01",
  "period=2026-11&from=2026-11-01&to=2026-11-02",
  "from=2026-11-01",
  "from=2026-11-02&to=2026-11-01",
  "from=2026-01-01&to=2026-12-31",
  "from=2026-02-30&to=2026-03-01",
  "report=%00",
  "report=unreported&after=%00",
  "after=yesterday",
  "limit=0",
  "limit=1001",
  "month=2026-11",
])("an invalid query is refused: %s", async (query) => {
  const { id } = await (anyTenant ??= aTenant());
  const response = await operator("GET", `/tenants/${id}/usage?${query}`);
  expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([400, "bad_request"]);
});

/** Calls of several tools in both revisions, charged and not. Returns the receipts. */
async function callsOfEveryKind(tenant: TestTenant): Promise<Receipt[]> {
  const { apiKey } = tenant;
  const receipts: Receipt[] = [];
  for (let n = 0; n < 5; n += 1) receipts.push(await charged(apiKey, "search_products", { query: "", limit: 1 }));
  receipts.push(await charged(apiKey, "write_document", { path: "a.txt", text: "a" }));
  receipts.push(await charged(apiKey, "read_document", { path: "a.txt" }));
  receipts.push(await charged(apiKey, "generate_report"));
  // Not charged: free of charge, failed, refused.
  for (const [tool, args] of [
    ["get_usage", {}],
    ["read_document", { path: "there/is/none.txt" }],
    ["search_products", { limit: -1 }],
  ] as const)
    expect((await callTool(apiKey, tool, args)).receipt).toBeUndefined();
  const limited = await aTenant({ limits: { unitsPerHour: 1 } });
  await charged(limited.apiKey, "search_products", { query: "" });
  const refused = await callTool(limited.apiKey, "search_products", { query: "" });
  expect([refused.refusal?.code, refused.receipt]).toEqual(["window_exhausted", undefined]);

  await using agent = await anAgent(apiKey);
  const answer = await agent.callTool({ name: "list_documents", arguments: {} });
  receipts.push(answer._meta?.["tollgate/receipt"] as Receipt);
  return receipts;
}

async function charged(apiKey: string, tool: string, args: Record<string, unknown> = {}): Promise<Receipt> {
  const { receipt, text } = await callTool(apiKey, tool, args);
  if (receipt === undefined) throw new Error(`${tool} gave no receipt: ${text}`);
  return receipt;
}

async function anAdminKey(tenantId: string): Promise<string> {
  const key = await operator("POST", `/tenants/${tenantId}/keys`, { name: "administrator", scopes: ["tenant:admin"] });
  return ((await key.json()) as { apiKey: string }).apiKey;
}

function getUsage(tenantId: string, key: string | undefined, query: string): Promise<Response> {
  return fetch(`${system.publicUrl}/api/tenants/${tenantId}/usage?${query}`, {
    headers: key === undefined ? {} : { authorization: `Bearer ${key}` },
  });
}

async function usage(tenantId: string, key: string, more: Record<string, string> = {}): Promise<UsageAnswer> {
  const response = await getUsage(tenantId, key, recently(more));
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  return (await response.json()) as UsageAnswer;
}

/** All calls of a report, or of none (`unreported`), read in pages of `limit`. */
async function pagesOf(tenantId: string, key: string, report: string, limit: number): Promise<Call[]> {
  const calls: Call[] = [];
  for (let after: string | null = ""; after !== null;) {
    const query = recently({ report, limit: String(limit), ...(after !== "" && { after }) });
    const response = await getUsage(tenantId, key, query);
    const page = (await response.json()) as { calls: Call[]; next: string | null };
    expect(page.calls.length).toBeLessThanOrEqual(limit);
    calls.push(...page.calls);
    after = page.next;
  }
  return calls;
}

/** Yesterday and today: a test may run across midnight. */
function recentDays(): { from: string; to: string } {
  const day = (atMs: number): string => new Date(atMs).toISOString().slice(0, 10);
  return { from: day(Date.now() - 86_400_000), to: day(Date.now()) };
}

function recently(more: Record<string, string> = {}): string {
  return new URLSearchParams({ ...recentDays(), ...more }).toString();
}

function units(parts: readonly { units: number }[]): number {
  return parts.reduce((sum, part) => sum + part.units, 0);
}

function ids(parts: readonly { id: string }[]): string[] {
  return parts.map(({ id }) => id).toSorted();
}

async function inLedger(tenantId: string, calls: number): Promise<void> {
  await until(async () => {
    const rows = await controlRows(`SELECT FROM ledger WHERE tenant_id = $1`, [tenantId]);
    return rows.length === calls;
  }, `${calls} calls of ${tenantId} are in the ledger`);
}

async function customerOf(tenantId: string): Promise<string> {
  const [row] = await controlRows<{ customer: string }>(
    `SELECT stripe_customer_id AS customer FROM tenants WHERE id = $1`,
    [tenantId],
  );
  return row?.customer ?? "";
}

async function countedByStripe(tenantId: string): Promise<number | undefined> {
  const totals = (await simulator("/meter-totals")) as Record<string, Record<string, number>>;
  return totals[await customerOf(tenantId)]?.["mcp_units"];
}

/** Runs the program as an operator does, in a folder without .dev.vars. */
async function verifyInvoice(tenantId: string): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const { from, to } = recentDays();
  const cwd = await mkdtemp(join(tmpdir(), "tollgate-verify-"));
  try {
    const child = spawn(
      process.execPath,
      ["--import", preload, program, "--tenant", tenantId, "--from", from, "--to", to],
      {
        cwd,
        env: childEnvironment({
          CONTROL_DATABASE_URL: system.serviceUrl,
          NEON_FETCH_ENDPOINT: `${system.proxyUrl}/sql`,
          STRIPE_SECRET_KEY: system.stripeSecretKey,
          STRIPE_API_BASE: system.stripeUrl,
        }),
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
    const code = await new Promise<number | null>((done, fail) => child.once("error", fail).once("close", done));
    return { code, stdout, stderr };
  } finally {
    await rm(cwd, { recursive: true });
  }
}
