// The answers of the routes for metrics and calls, as the API reference describes them, and what all lists answer.
import * as z from "zod";
import { callEnds } from "../core/call.ts";
import { metricSteps } from "../metering/metrics/metrics-store.ts";

export const Instant = z.iso.datetime();

/** The answer of a list: its items under the list's name, and the `after` of the next page. */
export const listOf = (name: string, item: z.ZodType): z.ZodObject =>
  z.object({ [name]: z.array(item), next: z.string().nullable() });

const Figures = z.object({
  ...{ calls: z.int(), ok: z.int(), failed: z.int(), refused: z.int(), repeated: z.int(), units: z.int() },
  ...{ ms: z.int(), dbMs: z.int(), p50Ms: z.number().nullable(), p95Ms: z.number().nullable() },
  /** Calls by bucket of `latencyBoundsMs`; the last bucket has no bound. */
  latency: z.array(z.int()),
});
/** A caller by kind and id. `other` and `fallback` have no id. */
const CallerName = z.object({ kind: z.string(), id: z.string().nullable() });
/** A point has the group that `by` names: `tool`, `caller` with its `name`, or `outcome` with its `code`. */
const MetricPoint = Figures.extend({
  ...{
    at: Instant,
    tool: z.string().optional(),
    caller: CallerName.optional(),
    name: z.string().nullable().optional(),
  },
  ...{ outcome: z.enum(callEnds).optional(), code: z.string().nullable().optional() },
});
export const Metrics = listOf("points", MetricPoint).extend({
  ...{ tenantId: z.string(), from: Instant, to: Instant, step: z.enum(metricSteps), by: z.string().nullable() },
  ...{ latencyBoundsMs: z.array(z.int()), total: Figures },
});
const ListedCall = z.object({
  ...{
    id: z.string(),
    at: Instant,
    tool: z.string(),
    units: z.int(),
    outcome: z.enum(callEnds),
    code: z.string().nullable(),
  },
  ...{ caller: CallerName.nullable(), ms: z.int().nullable(), dbMs: z.int().nullable() },
  ...{ inLedger: z.boolean(), reportId: z.string().nullable() },
});
/** `recentKnown`: false while the tenant's object does not answer. Failed and refused calls are listed from `recentSince` on. */
const RecentlyKnown = { tenantId: z.string(), recentKnown: z.boolean(), recentSince: Instant.nullable() };
export const Calls = listOf("calls", ListedCall).extend(RecentlyKnown);
export const CallAnswer = z.object({
  call: ListedCall,
  report: z.looseObject({ id: z.string() }).nullable(),
  ...RecentlyKnown,
});
