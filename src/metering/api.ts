// What a tenant used, down to the single call, so that it can add its invoice up itself: the same for the operator and,
// with a key of its administrator, for the tenant. Sums come with the reports behind them, a report with its calls.
import { type Context, Hono } from "hono";
import * as z from "zod";
import { type Page, receiptsOf } from "./receipts-store.ts";
import { DAY_MS, type Period, addUp, addUpBy, dayOf, daysFrom, monthOf } from "./invoice.ts";
import type { TenantId } from "../core/tenant.ts";
import { BadRequest, type HttpEnv, problem, readQuery, tenantOf } from "../http.ts";
import { administeredTenant } from "../identity/require-admin.ts";

/** Items of a page: 1,000 calls are some 150 KB of JSON. */
const MAX_PAGE = 1_000;
/** A quarter: as much as one statement sums in the time that a control database may take. */
const MAX_DAYS = 92;

/** The characters of ids and instants. */
const Name = z.string().regex(/^[\w.:-]+$/, "is none that was given out");

const UsageQuery = z.strictObject({
  period: z
    .string()
    .regex(/^20\d{2}-(0[1-9]|1[0-2])$/, "must be a month such as 2026-11")
    .optional(),
  /** Days, both of them in the period. */
  from: z.iso.date().optional(),
  to: z.iso.date().optional(),
  /** The id of a report or a carry-forward, or `unreported`: its calls are listed. */
  report: Name.max(100).optional(),
  /** The `next` of the page before. */
  after: Name.max(64).optional(),
  limit: z.coerce.number().int().min(1).max(MAX_PAGE).default(MAX_PAGE),
});
type UsageQuery = z.infer<typeof UsageQuery>;

export const usageApi = new Hono<HttpEnv>();
export const ownUsageApi = new Hono<HttpEnv>();

usageApi.get("/:id/usage", (c) => answerUsage(c, tenantOf(c)));
ownUsageApi.get("/:id/usage", async (c) => answerUsage(c, await administeredTenant(c)));

async function answerUsage(c: Context<HttpEnv>, tenantId: TenantId): Promise<Response> {
  const query = readQuery(c, UsageQuery);
  const page = { after: query.after ?? null, limit: query.limit };
  const found =
    query.report === undefined
      ? await usageOf(c.env, tenantId, periodOf(query), page)
      : await callsOf(c.env, tenantId, query.report, page, query);
  if (found === undefined) return problem(c, "not_found", "There is no such tenant, or it has no such report.");
  return c.json({ tenantId, ...found }, 200, { "cache-control": "no-store" });
}

async function usageOf(env: Env, tenantId: TenantId, period: Period, page: Page) {
  if (page.after !== null && !z.iso.datetime().safeParse(page.after).success)
    throw new BadRequest("after: must be the `next` of the page before");
  const found = await receiptsOf(env).usage(tenantId, period, page);
  if (found === undefined) return undefined;
  const { cells, reports, carryForwards } = found;
  const list = (name: string, keyOf: (cell: (typeof cells)[number]) => string) =>
    [...addUpBy(cells, keyOf)].map(([key, sum]) => ({ [name]: key, ...sum }));
  return {
    from: dayOf(period.startMs),
    to: dayOf(period.endMs - DAY_MS),
    total: addUp(cells),
    unreported: addUp(cells.filter(({ reported }) => !reported)),
    days: list("day", ({ day }) => day),
    tools: list("tool", ({ tool }) => tool),
    reports,
    carryForwards,
    next: reports.length === page.limit ? (reports.at(-1)?.minute ?? null) : null,
  };
}

async function callsOf(env: Env, tenantId: TenantId, report: string, page: Page, query: UsageQuery) {
  const receipts = receiptsOf(env);
  const found =
    report === "unreported"
      ? await receipts.unreportedCalls(tenantId, periodOf(query), page)
      : await receipts.callsOfReport(tenantId, report, page);
  if (found === undefined) return undefined;
  return { ...found, next: found.calls.length === page.limit ? (found.calls.at(-1)?.id ?? null) : null };
}

/** What was asked for; without anything, the present month. */
function periodOf({ period, from, to }: UsageQuery): Period {
  if (from === undefined && to === undefined) return monthOf(period ?? dayOf(Date.now()).slice(0, 7));
  if (from === undefined || to === undefined || period !== undefined)
    throw new BadRequest("Ask for a `period`, or for the days `from` and `to`.");
  const days = daysFrom(from, to);
  const count = (days.endMs - days.startMs) / DAY_MS;
  if (count < 1 || count > MAX_DAYS) throw new BadRequest(`to: must be at most ${MAX_DAYS} days from \`from\` on`);
  return days;
}
