// Routes for a tenant's usage and for dead letters. A tenant can check its invoice down to the single call: sums come with
// their meter reports, and each report with its calls. A dead letter is a usage message that could not be written to the
// ledger. Replaying it is harmless: the ledger stores each row once.
import * as z from "zod";
import { type Page, receiptsStore } from "./receipts-store.ts";
import { DAY_MS } from "../core/time.ts";
import { type Period, addUp, addUpBy, dayOf, daysFrom, monthOf } from "./invoice.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import {
  BadRequest,
  Flag,
  type HttpContext,
  type NumberedPageQuery,
  type PageQuery,
  Problem,
  type Route,
  decodeCursor,
  encodeCursor,
  noStore,
  numberedPageQuery,
  pageOf,
  pageQuery,
  route,
  tenantOf,
} from "../http.ts";
import type { ControlDatabase } from "../control/context.ts";
import { isolated } from "../control/failures-store.ts";
import { ledgerStore } from "../control/ledger-store.ts";
import { type DeadLetter, deadLettersStore } from "./dead-letters/dead-letters-store.ts";
import { bodyOfText } from "./queue-message.ts";
import { once } from "../identity/idempotency.ts";
import { alertsStore } from "./alerts-store.ts";
import { renewWebhookSecret, replayAlert } from "./alerts.ts";

/** Most items on a page of usage: 1,000 calls are about 150 KB of JSON. */
const MAX_PAGE = 1_000;
/** A quarter. One statement sums it well within the time limit of the control database. */
const MAX_DAYS = 92;

/** The characters of ids and instants. */
const Name = z.string().regex(/^[\w.:-]+$/, "is not an id of this API");

export const UsageQuery = z.strictObject({
  period: z
    .string()
    .regex(/^20\d{2}-(0[1-9]|1[0-2])$/, "must be a month such as 2026-11")
    .optional(),
  /** Days in UTC, both included. */
  from: z.iso.date().optional(),
  to: z.iso.date().optional(),
  /** The id of a report or a carry-forward, or `unreported`. The answer lists its calls. */
  report: Name.max(100).optional(),
  /** The `next` of the previous page. */
  after: Name.max(64).optional(),
  limit: z.coerce.number().int().min(1).max(MAX_PAGE).default(MAX_PAGE),
});
type UsageQuery = z.infer<typeof UsageQuery>;

/** Dead letters on a page. Each may be as large as a queue message, 128 KB. */
const DEAD_LETTERS = 100;

const Named = z.strictObject({ ids: z.array(z.string().min(1).max(200)).min(1).max(DEAD_LETTERS) });
export const ReplayRequest = z.union([Named, z.strictObject({ all: z.literal(true) })]);
export const DismissRequest = Named;
/** `?all=true` also lists the letters that were replayed or dismissed. */
export const DeadLettersQuery = pageQuery(DEAD_LETTERS).extend({ all: Flag });

/** Makes a new secret for the webhooks that the tenant gets, and shows it once. */
async function makeWebhookSecret(c: HttpContext): Promise<Response> {
  return c.json(await renewWebhookSecret(c.get("context"), tenantOf(c)), 201, noStore);
}

const AlertsQuery = numberedPageQuery(100);

/** Lists what the tenant was alerted of, newest first. */
async function listAlerts(
  c: HttpContext,
  { query: { after, limit } }: { query: NumberedPageQuery },
): Promise<Response> {
  const alerts = await alertsStore(c.get("context").control).list(tenantOf(c), { before: after, limit: limit + 1 });
  return c.json(
    pageOf("alerts", alerts, limit, ({ id }) => id),
    200,
    noStore,
  );
}

/** Sends an alert again. 200: it was taken. 202: it was not, and further attempts follow. */
async function replay(c: HttpContext): Promise<Response> {
  const id = Number(c.req.param("alertId"));
  const alert = Number.isSafeInteger(id) ? await replayAlert(c.get("context"), tenantOf(c), id, Date.now()) : undefined;
  if (alert === undefined) throw new Problem("not_found", "The account has no such alert.");
  return c.json({ alert }, alert.sentAt === null ? 202 : 200, noStore);
}

// oxfmt-ignore
export const alertRoutes: readonly Route[] = [
  route("POST /api/tenants/:tenantId/webhook-secret", "tenant_admin", once<{ body: undefined }>(makeWebhookSecret), { permission: "keys:manage" }),
  route("GET /api/tenants/:tenantId/alerts", "tenant_admin", listAlerts, { query: AlertsQuery, permission: "account:read" }),
  route("POST /api/tenants/:tenantId/alerts/:alertId/replay", "tenant_admin", replay, { permission: "account:write" }),
];

export async function showUsage(c: HttpContext, { query }: { query: UsageQuery }): Promise<Response> {
  const tenantId = tenantOf(c);
  const { control } = c.get("context");
  const page = { after: query.after ?? null, limit: query.limit };
  const found =
    query.report === undefined
      ? await usageOf(control, tenantId, periodOf(query), page)
      : await callsOfReport(control, tenantId, query.report, page, query);
  if (found === undefined) throw new Problem("not_found", "There is no such tenant, or it has no such report.");
  return c.json({ tenantId, ...found }, 200, noStore);
}

/** Lists dead letters, the oldest first. */
export async function listDeadLetters(
  c: HttpContext,
  { query }: { query: z.infer<typeof DeadLettersQuery> },
): Promise<Response> {
  const letters = await deadLettersStore(c.get("context").control).list(query.limit + 1, query);
  const deadLetters = letters.map(({ body, ...letter }) => ({ ...letter, body: bodyOfText(body) }));
  return c.json(pageOf("deadLetters", deadLetters, query.limit, ({ id }) => id));
}

/** Sends dead letters to the queue again: the named ones, or a page of those that wait. `left` counts those that still wait. */
export async function replayDeadLetters(
  c: HttpContext,
  { body: request }: { body: z.infer<typeof ReplayRequest> },
): Promise<Response> {
  const store = deadLettersStore(c.get("context").control);
  const letters =
    "ids" in request ? await store.byId(request.ids) : await store.list(DEAD_LETTERS, { after: "", all: false });
  const replayed: string[] = [];
  // One message at a time, because each may have the queue's largest size. Recorded after the send: a crash in between
  // sends the message twice, which is harmless. A letter that the queue does not take holds back no other.
  const alone = { part: "dead_letters", idOf: ({ id }: DeadLetter) => id, atOnce: 1 };
  await isolated(c.get("context").control, letters, alone, async ({ id, body }) => {
    await c.env.USAGE.send(bodyOfText(body));
    await store.replayed([id]);
    replayed.push(id);
  });
  return c.json({ replayed, left: await store.waiting() });
}

/** Dismisses dead letters that can never be stored. They stay on record and no longer count as waiting. */
export async function dismissDeadLetters(
  c: HttpContext,
  { body: { ids } }: { body: z.infer<typeof DismissRequest> },
): Promise<Response> {
  return c.json({ dismissed: await deadLettersStore(c.get("context").control).dismissed(ids) });
}

/** Conflicts on a page: about 60 KB of JSON. */
const CONFLICTS = 200;
export const ConflictsQuery = pageQuery(CONFLICTS);

export const ConflictsRequest = z.strictObject({
  callIds: z.array(z.string().min(1).max(200)).min(1).max(CONFLICTS),
});

/** Lists the calls that reached the ledger with two payloads, until the operator acknowledges them. */
export async function listConflicts(
  c: HttpContext,
  { query: { after, limit } }: { query: PageQuery },
): Promise<Response> {
  const cursor = decodeCursor(after, 3);
  const [seenAt = "", callId = "", digest = ""] = cursor ?? [];
  const last = cursor && { seenAt, callId, digest };
  const conflicts = await ledgerStore(c.get("context").control).conflicts(limit + 1, last);
  return c.json(pageOf("conflicts", conflicts, limit, (each) => encodeCursor([each.seenAt, each.callId, each.digest])));
}

export async function acknowledgeConflicts(
  c: HttpContext,
  { body: { callIds } }: { body: z.infer<typeof ConflictsRequest> },
): Promise<Response> {
  return c.json({ acknowledged: await ledgerStore(c.get("context").control).acknowledgeConflicts(callIds) });
}

/** A tenant's usage of a period with a page of its reports, as the API answers it. `undefined`: there is no such tenant. */
export async function usageOf(control: ControlDatabase, tenantId: TenantId, period: Period, page: Page) {
  if (page.after !== null && !z.iso.datetime().safeParse(page.after).success)
    throw new BadRequest("after: must be the `next` of the previous page");
  const found = await receiptsStore(control).usage(tenantId, period, page);
  if (found === undefined) return undefined;
  const { cells, reports, carryForwards } = found;
  const byDay = addUpBy(cells, ({ day }) => day);
  const byTool = addUpBy(cells, ({ tool }) => tool);
  return {
    from: dayOf(period.startMs),
    to: dayOf(period.endMs - DAY_MS),
    total: addUp(cells),
    unreported: addUp(cells.filter(({ reported }) => !reported)),
    days: Array.from(byDay, ([day, sum]) => ({ day, ...sum })),
    tools: Array.from(byTool, ([tool, sum]) => ({ tool, ...sum })),
    reports,
    carryForwards,
    next: reports.length === page.limit ? (reports.at(-1)?.minute ?? null) : null,
  };
}

/**
 * A page of the calls of a report or carry-forward or, for `unreported`, of those of the query's period that are in none yet, as the
 * API answers it. `undefined`: the tenant has no such report.
 */
export async function callsOfReport(
  control: ControlDatabase,
  tenantId: TenantId,
  report: string,
  page: Page,
  query: Pick<UsageQuery, "period" | "from" | "to">,
) {
  const receipts = receiptsStore(control);
  const found =
    report === "unreported"
      ? await receipts.unreportedCalls(tenantId, periodOf(query), page)
      : await receipts.callsOfReport(tenantId, report, page);
  if (found === undefined) return undefined;
  return { ...found, next: found.calls.length === page.limit ? (found.calls.at(-1)?.id ?? null) : null };
}

/** The period that the query names. Without one, the current month. */
export function periodOf({ period, from, to }: Pick<UsageQuery, "period" | "from" | "to">): Period {
  if (from === undefined && to === undefined) return monthOf(period ?? dayOf(Date.now()).slice(0, 7));
  if (from === undefined || to === undefined || period !== undefined)
    throw new BadRequest("Name a `period`, or both `from` and `to`.");
  const days = daysFrom(from, to);
  const count = (days.endMs - days.startMs) / DAY_MS;
  if (count < 1 || count > MAX_DAYS) throw new BadRequest(`to: must be at most ${MAX_DAYS} days after \`from\``);
  return days;
}
