// Routes for a tenant's metrics and its last calls. Metrics come from folds (fold.ts), about a minute late. Calls come from the
// ledger, which has every charged call, and from the tenant's object, which remembers the last calls, failed ones too.
import * as z from "zod";
import { withTimeout } from "../../adapters/timeout.ts";
import { type QuotaStatus, callEnds } from "../../core/call.ts";
import type { ControlDatabase } from "../../control/context.ts";
import type { TenantConfig, TenantId } from "../../core/tenant/tenant.ts";
import { DAY_MS, HOUR_MS } from "../../core/time.ts";
import {
  BadRequest,
  type HttpContext,
  Problem,
  decodeCursor,
  encodeCursor,
  noStore,
  pageOf,
  pageQuery,
  tenantOf,
} from "../../http.ts";
import { describeError, log } from "../../log.ts";
import { receiptsStore } from "../receipts-store.ts";
import { LATENCY_BOUNDS_MS, type RecentCall, percentile } from "./fold.ts";
import { type ListedCall, beforeCursor, mergeCalls } from "./last-calls.ts";
import {
  type Figures,
  type MetricGroup,
  type Point,
  metricGroups,
  metricSteps,
  metricsStore,
} from "./metrics-store.ts";

/** How long rows of metrics are kept: a year and the month before, to compare with. */
export const METRICS_KEPT_MS = 400 * DAY_MS;
/** The longest range of a question by hour, and by anything else. */
const MAX_RANGE_MS = { hour: 31 * DAY_MS, day: METRICS_KEPT_MS, total: METRICS_KEPT_MS };
/** The range of a question that names none. */
const DEFAULT_RANGE_MS = { hour: DAY_MS, day: 30 * DAY_MS, total: 30 * DAY_MS };
/** Longer than an object takes to wake. A page must not wait for one that is away. */
const OBJECT_WITHIN_MS = 3_000;

const Moment = z.union([z.iso.date(), z.iso.datetime({ offset: true })]);
const Name = z.string().min(1).max(90).optional();

export const MetricsQuery = pageQuery(500).extend({
  /** A day or an instant (UTC); the hour that it is in counts as a whole. */
  from: Moment.optional(),
  /** A day, which is included, or an instant, which is not. */
  to: Moment.optional(),
  step: z.enum(metricSteps).default("day"),
  by: z.enum(metricGroups).optional(),
  /** Only the calls of this tool, of this caller (`key:ID`, `member:ID`, `user:SUBJECT`), or with this outcome. */
  tool: Name,
  caller: Name,
  outcome: z.enum(callEnds).optional(),
});
export type MetricsQuery = z.infer<typeof MetricsQuery>;

/** A page of calls is about 25 KB of JSON. */
export const CallsQuery = pageQuery(100).extend({
  tool: Name,
  /** An API key's id. Only calls that the object remembers have one. */
  key: z
    .string()
    .regex(/^[\w-]{1,64}$/, "is not an id of an API key")
    .optional(),
  outcome: z.enum(callEnds).optional(),
});

export async function showMetrics(c: HttpContext, { query }: { query: MetricsQuery }): Promise<Response> {
  return c.json(await metricsOf(c.get("context").control, tenantOf(c), query), 200, noStore);
}

/** A tenant's figures over time or by group, as the API answers them. */
export async function metricsOf(control: ControlDatabase, tenantId: TenantId, query: MetricsQuery) {
  const { step, by, tool, caller, outcome, after, limit } = query;
  const range = rangeOf(query, Date.now());
  const [at = "", key = ""] = decodeCursor(after, 2) ?? [];
  const { points, total } = await metricsStore(control).series(
    tenantId,
    { ...range, step, by, tool, caller, outcome },
    { after: after === "" ? undefined : { at, key }, limit: limit + 1 },
  );
  const page = pageOf("points", points, limit, (point) => encodeCursor([point.at, point.key]));
  return {
    tenantId,
    from: new Date(range.fromMs).toISOString(),
    to: new Date(range.toMs).toISOString(),
    ...{ step, by: by ?? null, latencyBoundsMs: LATENCY_BOUNDS_MS },
    total: shown(total ?? nothing),
    ...{ points: page.points.map((point) => ({ at: point.at, ...groupOf(point, by), ...shown(point) })) },
    next: page.next,
  };
}

const nothing: Figures = {
  ...{ calls: 0, ok: 0, failed: 0, refused: 0, repeated: 0, units: 0, ms: 0, dbMs: 0 },
  latency: LATENCY_BOUNDS_MS.map(() => 0).concat(0),
};

function shown({ calls, ok, failed, refused, repeated, units, ms, dbMs, latency }: Figures) {
  const [p50Ms, p95Ms] = [percentile(latency, 0.5), percentile(latency, 0.95)];
  return { calls, ok, failed, refused, repeated, units, ms, dbMs, p50Ms, p95Ms, latency };
}

/** Which group a point is of. Without a group it says nothing. */
interface PointGroup {
  tool?: string;
  caller?: CallerParts;
  /** The name of the API key or member. */
  name?: string | null;
  outcome?: string;
  code?: string | null;
}

function groupOf({ key, name }: Point, by: MetricGroup | undefined): PointGroup {
  if (by === undefined) return {};
  if (by === "tool") return { tool: key };
  if (by === "caller") return { caller: callerOf(key), name };
  const [outcome = "", code = null] = key.split(":");
  return { outcome, code };
}

export interface CallerParts {
  kind: string;
  id: string | null;
}

/** A caller's name in parts. */
function callerOf(name: string): CallerParts {
  const end = name.indexOf(":");
  return end === -1 ? { kind: name.replace("~", ""), id: null } : { kind: name.slice(0, end), id: name.slice(end + 1) };
}

function rangeOf({ from, to, step }: MetricsQuery, nowMs: number): { fromMs: number; toMs: number } {
  const isDay = (text: string): boolean => text.length === "2026-11-28".length;
  const end = to === undefined ? nowMs : Date.parse(to) + (isDay(to) ? DAY_MS : 0);
  const start = from === undefined ? end - DEFAULT_RANGE_MS[step] : Date.parse(from);
  const hour = (ms: number, round: (hours: number) => number): number => round(ms / HOUR_MS) * HOUR_MS;
  const fromMs = step === "day" ? Math.floor(start / DAY_MS) * DAY_MS : hour(start, Math.floor);
  const toMs = hour(end, Math.ceil);
  if (!(fromMs < toMs)) throw new BadRequest("from: must be before `to`");
  if (toMs - fromMs > MAX_RANGE_MS[step] + DAY_MS)
    throw new BadRequest(`to: must be at most ${MAX_RANGE_MS[step] / DAY_MS} days after \`from\` with this step`);
  return { fromMs, toMs };
}

// ---- calls

export async function listCalls(c: HttpContext, { query }: { query: z.infer<typeof CallsQuery> }): Promise<Response> {
  return c.json(await callsOf(c, query), 200, noStore);
}

/** The last calls of the path's tenant, as the API answers them. */
export async function callsOf(
  c: HttpContext,
  { after, limit, tool, key, outcome }: z.infer<typeof CallsQuery>,
  control = c.get("context").control,
) {
  const tenantId = tenantOf(c);
  const [at = "", id = ""] = decodeCursor(after, 2) ?? [];
  const before = after === "" ? undefined : { at, id };
  // The ledger has charged calls only, and no keys.
  const isInLedger = key === undefined && (outcome === undefined || outcome === "ok");
  const receipts = receiptsStore(control);
  const [charged, recent] = await Promise.all([
    isInLedger ? receipts.calls(tenantId, { before, tool: tool ?? null, limit: limit + 1 }) : [],
    recentCalls(c, tenantId),
  ]);
  const fits = (call: RecentCall): boolean =>
    (tool === undefined || call.tool === tool) &&
    (key === undefined || call.caller === `key:${key}`) &&
    (outcome === undefined || call.outcome === outcome) &&
    (before === undefined || beforeCursor(call, before));
  const merged = mergeCalls(charged, (recent ?? []).filter(fits));
  const page = pageOf("calls", merged, limit, (call) => encodeCursor([call.at, call.id]));
  return { tenantId, ...page, calls: page.calls.map(callAnswer), ...knownOf(recent) };
}

export async function showCall(c: HttpContext): Promise<Response> {
  return c.json(await callOf(c), 200, noStore);
}

/** The call of the path's tenant that has the path's receipt, as the API answers it. Throws `not_found`. */
export async function callOf(c: HttpContext, control = c.get("context").control) {
  const tenantId = tenantOf(c);
  const receipt = c.req.param("receipt") ?? "";
  const [charged, recent] = await Promise.all([
    receiptsStore(control).call(tenantId, receipt),
    recentCalls(c, tenantId),
  ]);
  const remembered = recent?.filter(({ id }) => id === receipt) ?? [];
  const merged = mergeCalls(charged === undefined ? [] : [charged], remembered);
  // A later call with the same id was answered from the first one.
  const call = merged.find(({ inLedger }) => inLedger) ?? merged.at(-1);
  if (call === undefined)
    throw new Problem("not_found", "The account has no such call, or it was not charged and is forgotten.");
  return { tenantId, call: callAnswer(call), report: charged?.report ?? null, ...knownOf(recent) };
}

function callAnswer({ caller, ...call }: ListedCall) {
  return { ...call, caller: caller === null ? null : callerOf(caller) };
}

/** `recentSince`: calls that failed or were refused are listed from then on. */
function knownOf(recent: readonly RecentCall[] | undefined) {
  const firstMs = recent === undefined || recent.length === 0 ? undefined : Math.min(...recent.map(({ atMs }) => atMs));
  return {
    recentKnown: recent !== undefined,
    recentSince: firstMs === undefined ? null : new Date(firstMs).toISOString(),
  };
}

/** What the tenant's object remembers; `undefined` while it does not answer. */
function recentCalls(c: HttpContext, tenantId: TenantId): Promise<RecentCall[] | undefined> {
  return fromObject("recent_calls_unknown", tenantId, () => c.get("context").tenantObject(tenantId).recentCalls());
}

/** How much of its limits the tenant uses at this moment; `undefined` while its object does not answer. */
export function quotaOf(
  c: HttpContext,
  { id, limits }: Pick<TenantConfig, "id" | "limits">,
): Promise<QuotaStatus | undefined> {
  return fromObject("quota_unknown", id, () => c.get("context").tenantObject(id).quota(limits));
}

async function fromObject<Answer>(
  event: string,
  tenantId: TenantId,
  ask: () => Promise<Answer>,
): Promise<Answer | undefined> {
  try {
    return await withTimeout(OBJECT_WITHIN_MS, ask());
  } catch (error) {
    log("warn", event, { tenantId, error: describeError(error) });
    return undefined;
  }
}
