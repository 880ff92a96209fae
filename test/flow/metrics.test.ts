// Metrics and last calls from outside: they equal the ledger to the unit, also at the edge of an hour, for fallback calls and for
// messages that come twice; failures and refusals count; a tenant reads its own only.
import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import type { Receipt } from "../../src/core/call.ts";
import { BUCKETS, type Cell } from "../../src/metering/metrics/fold.ts";
import {
  type TestTenant,
  aTenant,
  callTool,
  controlRows,
  endObject,
  fireCron,
  modernMeta,
  objectFault,
  operator,
  postMcp,
  setClock,
  system,
  toQueue,
  until,
} from "../support/flow.ts";
import { readOpenMetrics } from "../support/open-metrics.ts";

const unlimited = { unitsPerHour: null, unitsPerMonth: null, callsPerMinute: null, callsInFlight: 100 };
/** A fold covers a minute, and the machine may be busy. */
const FOLDED_WITHIN_MS = 100_000;
const HOUR_MS = 3_600_000;

interface Figures {
  calls: number;
  ok: number;
  failed: number;
  refused: number;
  repeated: number;
  units: number;
  p50Ms: number | null;
  p95Ms: number | null;
  latency: number[];
}
interface Point extends Figures {
  at: string;
  tool?: string;
  caller?: { kind: string; id: string | null };
  name?: string | null;
  outcome?: string;
  code?: string | null;
}
interface MetricsAnswer {
  total: Figures;
  points: Point[];
  next: string | null;
}
interface Listed {
  id: string;
  at: string;
  tool: string;
  units: number;
  outcome: string;
  code: string | null;
  caller: { kind: string; id: string | null } | null;
  ms: number | null;
  inLedger: boolean;
}

async function anAdminKey(tenantId: string): Promise<string> {
  const key = await operator("POST", `/tenants/${tenantId}/keys`, { name: "administrator", scopes: ["tenant:admin"] });
  return ((await key.json()) as { apiKey: string }).apiKey;
}

function ofTenant(tenantId: string, path: string, key: string): Promise<Response> {
  return fetch(`${system.publicUrl}/api/tenants/${tenantId}${path}`, { headers: { authorization: `Bearer ${key}` } });
}

async function metrics(tenantId: string, query = ""): Promise<MetricsAnswer> {
  const answer = await operator("GET", `/tenants/${tenantId}/metrics?${query}`);
  if (answer.status !== 200) throw new Error(await answer.text());
  return (await answer.json()) as MetricsAnswer;
}

async function calls(tenantId: string, query = ""): Promise<{ calls: Listed[]; next: string | null }> {
  return (await (await operator("GET", `/tenants/${tenantId}/calls?${query}`)).json()) as {
    calls: Listed[];
    next: string | null;
  };
}

/** Waits until the metrics have this many calls. */
async function folded(tenantId: string, count: number): Promise<MetricsAnswer> {
  await until(
    async () => (await metrics(tenantId)).total.calls >= count,
    `${count} calls are folded`,
    FOLDED_WITHIN_MS,
  );
  return metrics(tenantId);
}

/** Units and calls by hour and tool: in the ledger, and in the metrics of calls that were charged. */
async function bothSums(tenantId: string) {
  const sums = `units::int, calls::int`;
  const order = `ORDER BY hour, tool`;
  const ledger = await controlRows(
    `SELECT hour, tool, ${sums} FROM (SELECT date_trunc('hour', at, 'UTC') AS hour, tool, sum(units) AS units, count(*) AS calls
     FROM ledger WHERE tenant_id = $1 GROUP BY 1, 2) l ${order}`,
    [tenantId],
  );
  const folds = await controlRows(
    `SELECT hour, tool, ${sums} FROM (SELECT hour, tool, sum(units) AS units, sum(calls) AS calls FROM metrics_hourly
     WHERE tenant_id = $1 AND outcome = 'ok' GROUP BY 1, 2) m WHERE units > 0 ${order}`,
    [tenantId],
  );
  return { ledger, folds };
}

async function search(tenant: TestTenant, times: number): Promise<Receipt[]> {
  const answers = await Promise.all(
    Array.from({ length: times }, () => callTool(tenant.apiKey, "search_products", { query: "" })),
  );
  return answers.flatMap(({ receipt }) => receipt ?? []);
}

test("metrics equal the ledger to the unit, and count failures and refusals by code, by key and tool", async () => {
  const tenant = await aTenant({ limits: { ...unlimited, unitsPerHour: 35 } });
  const receipts = await search(tenant, 10);
  const [report] = await Promise.all([
    callTool(tenant.apiKey, "generate_report"),
    callTool(tenant.apiKey, "get_usage"),
    callTool(tenant.apiKey, "read_document", { path: "there/is/none.txt" }),
  ]);
  const refused = await callTool(tenant.apiKey, "generate_report");
  expect(refused.refusal?.code).toBe("window_exhausted");
  expect(receipts).toHaveLength(10);
  const { total } = await folded(tenant.id, 14);
  expect(total).toMatchObject({ calls: 14, ok: 12, failed: 1, refused: 1, repeated: 0 });
  expect(total.units).toBe(10 + (report.receipt?.units ?? 0));
  // A refused call is no work.
  expect(total.latency.reduce((sum, each) => sum + each, 0)).toBe(13);
  expect(total.p50Ms).toBeLessThanOrEqual(total.p95Ms ?? -1);
  await until(async () => (await bothSums(tenant.id)).ledger.length === 2, "the ledger has both tools");
  const { ledger, folds } = await bothSums(tenant.id);
  expect(folds).toEqual(ledger);

  const byTool = await metrics(tenant.id, "by=tool&step=total");
  expect(byTool.points.map(({ tool, calls: count }) => [tool, count])).toEqual([
    ["generate_report", 2],
    ["get_usage", 1],
    ["read_document", 1],
    ["search_products", 10],
  ]);
  const byOutcome = await metrics(tenant.id, "by=outcome&step=total");
  expect(byOutcome.points.map(({ outcome, code, calls: count }) => [outcome, code, count])).toEqual([
    ["failed", null, 1],
    ["ok", null, 12],
    ["refused", "window_exhausted", 1],
  ]);
  const byCaller = await metrics(tenant.id, "by=caller&step=hour");
  expect(byCaller.points.map(({ caller, name }) => [caller?.kind, name])).toContainEqual(["key", "test"]);
  const [first] = byCaller.points;
  const own = await metrics(tenant.id, `caller=key:${first?.caller?.id}&tool=search_products`);
  expect(own.total).toMatchObject({ calls: 10, units: 10 });
  expect((await metrics(tenant.id, "caller=key:none")).total.calls).toBe(0);

  // A page at a time.
  const walked: (string | undefined)[] = [];
  for (let after = ""; ;) {
    const page = await metrics(tenant.id, `by=tool&step=total&limit=1&after=${after}`);
    walked.push(...page.points.map(({ tool }) => tool));
    if (page.next === null) break;
    after = page.next;
  }
  expect(walked).toEqual(byTool.points.map(({ tool }) => tool));
  for (const query of ["after=made-up", "from=2026-11-28&to=2026-11-01", "step=week", "from=2020-01-01&step=hour"])
    expect((await operator("GET", `/tenants/${tenant.id}/metrics?${query}`)).status, query).toBe(400);
});

test("calls around the end of an hour count in the hour of the ledger, and after the object died once each", async () => {
  const tenant = await aTenant({ limits: unlimited });
  const now = Date.now();
  await setClock(tenant.id, HOUR_MS - (now % HOUR_MS) - 1_500);
  for (let n = 0; n < 8; n += 1) {
    await search(tenant, 2);
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  await until(
    async () => callsIn((await bothSums(tenant.id)).folds) === 16,
    "the folds have 16 calls",
    FOLDED_WITHIN_MS,
  );
  await endObject(tenant.id);
  await search(tenant, 3);
  await until(
    async () => callsIn((await bothSums(tenant.id)).folds) === 19,
    "the folds have 19 calls",
    FOLDED_WITHIN_MS,
  );
  await until(async () => callsIn((await bothSums(tenant.id)).ledger) === 19, "the ledger has 19 calls");
  const { ledger, folds } = await bothSums(tenant.id);
  expect(ledger).toHaveLength(2);
  expect(folds).toEqual(ledger);
});

function callsIn(rows: readonly Record<string, unknown>[]): number {
  return rows.reduce((sum, { calls: count }) => sum + Number(count), 0);
}

test("a fallback call counts once, and so does one that the object has charged before its answer was lost", async () => {
  const tenant = await aTenant({ plan: "pro", limits: unlimited });
  await search(tenant, 1);
  await objectFault(tenant.id, "away");
  const away = await search(tenant, 2);
  await objectFault(tenant.id, "answers-lost");
  const lost = await search(tenant, 1);
  await objectFault(tenant.id);
  expect([away.length, lost.length]).toEqual([2, 1]);
  await until(
    async () => {
      await fireCron("* * * * *"); // notifies the object of the fallback calls
      return callsIn((await bothSums(tenant.id)).folds) >= 4;
    },
    "the folds have four calls",
    FOLDED_WITHIN_MS,
  );
  const { ledger, folds } = await bothSums(tenant.id);
  expect(callsIn(ledger)).toBe(4);
  expect(folds).toEqual(ledger);
});

const cell: Cell = {
  ...{ hourMs: Math.floor(Date.now() / HOUR_MS) * HOUR_MS, tool: "t", caller: "key:k1", outcome: "ok", code: "" },
  ...{ calls: 2, units: 3, ms: 20, dbMs: 8, latency: Array.from({ length: BUCKETS }, (_, n) => (n === 2 ? 2 : 0)) },
};

test("a message that comes twice, late or together with newer folds is added once, and never to a tenant that is gone", async () => {
  const { id } = await aTenant();
  const before = (await metrics(id, "step=total")).total.calls;
  const epoch = crypto.randomUUID();
  const send = (tenantId: string, ...numbers: number[]) =>
    toQueue("queue", { kind: "metrics", tenantId, epoch, folds: numbers.map((n) => ({ n, cells: [cell] })) });
  await Promise.all([send(id, 7), send(id, 7), send(id, 7)]);
  await send(id, 7, 8);
  await until(async () => (await metrics(id)).total.calls === before + 4, "both folds are added");
  await send(id, 7);
  await send(id, 9);
  await until(async () => (await metrics(id)).total.calls >= before + 6, "the third fold is added");
  await new Promise((resolve) => setTimeout(resolve, 2_500));
  expect((await metrics(id, "tool=t")).total).toMatchObject({ calls: 6, units: 9, p50Ms: 7.5 });

  const gone = `gone-${crypto.randomUUID().slice(0, 8)}`;
  await controlRows(
    `INSERT INTO tenants (id, name, plan, strategy, state, limits) SELECT $1, '', plan, strategy, 'gone', limits FROM tenants WHERE id = $2`,
    [gone, id],
  );
  await send(gone, 1);
  await send(id, 10);
  await until(async () => (await metrics(id, "tool=t")).total.calls === 8, "a later message is added");
  expect(await controlRows(`SELECT 1 FROM metrics_hourly WHERE tenant_id = $1`, [gone])).toEqual([]);
  await controlRows(`DELETE FROM tenants WHERE id = $1`, [gone]);
  // A message that nothing can read is no dead letter.
  await toQueue("queue", { kind: "metrics", tenantId: id });
});

test("the sweep deletes metrics after 400 days and keeps younger ones", async () => {
  const { id } = await aTenant();
  const days = [399, 401];
  await controlRows(
    `INSERT INTO metrics_hourly SELECT $1, date_trunc('hour', now() - d * interval '1 day'), 't', 'key:k1', 'ok', '', 1, 1, 1, 1, $3
     FROM unnest($2::int[]) d`,
    [id, days, cell.latency],
  );
  await fireCron("* * * * *");
  const left = await controlRows<{ days: number }>(
    `SELECT round(extract(epoch FROM now() - hour) / 86400)::int AS days FROM metrics_hourly WHERE tenant_id = $1 AND tool = 't'`,
    [id],
  );
  expect(left).toEqual([{ days: 399 }]);
});

test("the last calls have receipts, keys and outcomes, in pages, and one is found by its receipt", async () => {
  const tenant = await aTenant({ limits: { ...unlimited, unitsPerHour: 5 } });
  const adminKey = await anAdminKey(tenant.id);
  const receipts = await search(tenant, 5);
  await callTool(tenant.apiKey, "read_document", { path: "there/is/none.txt" });
  await callTool(tenant.apiKey, "search_products", { query: "" });
  const all = await calls(tenant.id);
  expect(all.calls.map(({ outcome, code }) => [outcome, code])).toEqual([
    ["refused", "window_exhausted"],
    ["refused", "window_exhausted"],
    ...Array.from({ length: 5 }, () => ["ok", null]),
  ]);
  expect(all.calls.every(({ caller }) => caller?.kind === "key")).toBe(true);
  const ids = all.calls.slice(2).map(({ id }) => id);
  expect(ids.toSorted()).toEqual(receipts.map(({ id }) => id).toSorted());
  // The tenant reads the same, in pages of two.
  const walked: Listed[] = [];
  for (let after = ""; ;) {
    const answer = await ofTenant(tenant.id, `/calls?limit=2&after=${after}`, adminKey);
    const page = (await answer.json()) as { calls: Listed[]; next: string | null };
    walked.push(...page.calls);
    if (page.next === null) break;
    after = page.next;
  }
  expect(walked.map(({ id }) => id)).toEqual(all.calls.map(({ id }) => id));
  expect((await calls(tenant.id, "outcome=refused")).calls).toHaveLength(2);
  expect((await calls(tenant.id, "tool=read_document")).calls).toHaveLength(1);
  expect((await calls(tenant.id, `key=${all.calls[0]?.caller?.id}&outcome=ok`)).calls).toHaveLength(5);
  expect((await calls(tenant.id, "key=none")).calls).toEqual([]);

  const [receipt] = receipts;
  await until(
    async () => (await callOf(tenant.id, receipt?.id ?? "", adminKey)).call.inLedger,
    "the ledger has the call",
  );
  const { call } = await callOf(tenant.id, receipt?.id ?? "", adminKey);
  expect(call).toMatchObject({
    id: receipt?.id,
    tool: "search_products",
    units: 1,
    outcome: "ok",
    caller: { kind: "key" },
  });
  // Once the object has forgotten its memory, the ledger still has the charged calls.
  await objectFault(tenant.id, "away");
  const known = (await (await ofTenant(tenant.id, "/calls", adminKey)).json()) as {
    calls: Listed[];
    recentKnown: boolean;
  };
  await objectFault(tenant.id);
  expect([known.recentKnown, known.calls.length, known.calls[0]?.ms]).toEqual([false, 5, null]);

  const other = await aTenant();
  const othersKey = await anAdminKey(other.id);
  expect((await ofTenant(other.id, `/calls/${receipt?.id}`, othersKey)).status).toBe(404);
  expect((await ofTenant(tenant.id, `/calls/${receipt?.id}`, othersKey)).status).toBe(404);
  for (const path of ["/calls", "/metrics"]) {
    expect((await ofTenant(tenant.id, path, tenant.apiKey)).status, path).toBe(403);
    expect((await ofTenant(tenant.id, path, othersKey)).status, path).toBe(404);
  }
});

async function callOf(tenantId: string, id: string, key: string): Promise<{ call: Listed }> {
  const answer = await ofTenant(tenantId, `/calls/${id}`, key);
  if (answer.status !== 200) throw new Error(await answer.text());
  return (await answer.json()) as { call: Listed };
}

test("the deployment's OpenMetrics are well-formed, grow with the calls, and an operator's token opens them", async () => {
  const tenant = await aTenant({ plan: "pro", limits: unlimited });
  const read = async () => readOpenMetrics(await (await operator("GET", "/metrics")).text());
  const searches = (families: Awaited<ReturnType<typeof read>>): number =>
    families
      .get("tollgate_calls")
      ?.samples.filter(({ labels }) => labels["tool"] === "search_products" && labels["plan"] === "pro")
      .reduce((sum, { value }) => sum + value, 0) ?? 0;
  const before = searches(await read());
  await search(tenant, 4);
  await until(async () => searches(await read()) >= before + 4, "the counter has grown", FOLDED_WITHIN_MS);
  const families = await read();
  expect(families.get("tollgate_indicator")?.samples.map(({ labels }) => labels["name"])).toContain("deadLetters");
  expect(families.get("tollgate_tenants")?.samples.length).toBeGreaterThan(0);
  const { headers } = await operator("GET", "/metrics");
  expect(headers.get("content-type")).toBe("application/openmetrics-text; version=1.0.0; charset=utf-8");
  expect((await operator("GET", "/metrics", undefined, tenant.apiKey)).status).toBe(401);
  expect(JSON.stringify([...families.values()])).not.toContain(tenant.id);
});

test("a call writes one line with its parts and the client's trace", async () => {
  const tenant = await aTenant({ limits: unlimited });
  const traceId = "4bf92f3577b34da6a3ce929d0e0e4736";
  const params = { name: "search_products", arguments: { query: "" }, _meta: modernMeta };
  const body = { jsonrpc: "2.0", id: 1, method: "tools/call", params };
  const answer = await postMcp(tenant.apiKey, body, { traceparent: `00-${traceId}-00f067aa0ba902b7-01` });
  const { result } = (await answer.json()) as { result: { _meta: Record<string, { id: string }> } };
  const receipt = result._meta["tollgate/receipt"]?.id;
  const lines = await linesOf(
    (line) => line["event"] === "call" && line["tenantId"] === tenant.id && line["receipt"] === receipt,
  );
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatchObject({
    ...{ requestId: answer.headers.get("x-request-id"), traceId, receipt, plan: "free", tier: "shared" },
    ...{ tool: "search_products", by: "key", outcome: "ok", units: 1, ms: expect.any(Number) },
    ...{
      admissionMs: expect.any(Number),
      toolMs: expect.any(Number),
      sqlMs: expect.any(Number),
      fetches: 0,
      fetchMs: 0,
      settleMs: expect.any(Number),
    },
  });
  for (const event of ["cron_run", "queue_batch"]) {
    if (event === "cron_run") await fireCron("* * * * *");
    expect((await linesOf((line) => line["event"] === event)).length, event).toBeGreaterThan(0);
  }
});

/** Lines of the Worker's log that fit. */
async function linesOf(fits: (line: Record<string, unknown>) => boolean): Promise<Record<string, unknown>[]> {
  const found: Record<string, unknown>[] = [];
  await until(async () => {
    found.length = 0;
    for (const text of (await readFile(system.logFile, "utf8")).split("\n")) {
      const start = text.indexOf('{"level"');
      if (start === -1) continue;
      const line = JSON.parse(text.slice(start, text.lastIndexOf("}") + 1)) as Record<string, unknown>;
      if (fits(line)) found.push(line);
    }
    return found.length > 0;
  }, "the log has the line");
  return found;
}
