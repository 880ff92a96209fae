// Writes the audit log, in one place around the table of routes.
// An act of an identified caller is noted before it begins (`audit_intents`) and recorded after its answer. The note is gone in
// the transaction that records the event. So an act is never lost: when the Worker dies, or the control database stays away
// after the act, the sweep finds the note and records the act with the outcome `unknown`.
// Invariants: a request is recorded once, by its id. A record that fails never fails the request, and delays no answer. The MCP
// endpoint is not recorded here.
import type { MiddlewareHandler } from "hono";
import { createMiddleware } from "hono/factory";
import type { Context } from "../../control/context.ts";
import { anonymous } from "../../core/actor.ts";
import { BoundedMap } from "../../core/concurrency/bounded-map.ts";
import { TenantId } from "../../core/tenant/tenant.ts";
import { HOUR_MS, MINUTE_MS } from "../../core/time.ts";
import type { HttpContext, HttpEnv } from "../../http.ts";
import { describeError, log } from "../../log.ts";
import {
  type AuditEvent,
  type RecordedRoute,
  type Recording,
  actorFields,
  acts,
  changedNothing,
  detailOfAnswer,
  isNoise,
  outcomeOf,
  recordingOf,
  targetOf,
  tenantOfAnswer,
} from "./audit.ts";
import { appendTogether } from "./append.ts";
import { auditStore } from "./audit-store.ts";
import { crossingsStore } from "./crossings-store.ts";
import { sourceOf } from "../address-rate.ts";

/** Waits before each attempt to record. The platform gives work after an answer 30 seconds. Then the note is left. */
const WAITS_MS = [0, 300, 2_000, 8_000];
/** Refused operator tokens that one isolate records in a minute. The chain takes few more; all are in the log. */
const REFUSED_TOKENS_PER_MINUTE = 10;

/** Notes the act that begins now. Only for callers who are identified. A failure is logged, and the act goes its way. */
export async function intend(c: HttpContext, route: RecordedRoute, action: string): Promise<void> {
  if (!isRecorded(c, recordingOf(route)) || c.get("actor").kind === "anonymous") return;
  const context = c.get("context");
  c.set("audit", { ...c.get("audit"), intended: true });
  try {
    await auditStore(context.control).intend(eventOf(c, action));
  } catch (error) {
    log("warn", "audit_intent_not_stored", { action, error: describeError(error) });
  }
}

/** Records what the route's requests do. Goes in front of the guards, so that it sees their refusals. */
export function recorder(route: RecordedRoute, action: string): MiddlewareHandler<HttpEnv> {
  const recording = recordingOf(route);
  return createMiddleware<HttpEnv>(async (c, next) => {
    const atMs = Date.now();
    c.set("audit", { atMs });
    await next();
    try {
      for (const work of recordsOf(c, route, action, recording)) c.executionCtx.waitUntil(work);
    } catch (error) {
      log("error", "audit_not_recorded", { action, error: describeError(error) });
    }
  });
}

/** What is to be recorded of a request that has its answer. */
function recordsOf(c: HttpContext, route: RecordedRoute, action: string, recording: Recording): Promise<void>[] {
  const context = c.get("context");
  const { crossing, intended = false } = c.get("audit") ?? {};
  const actor = c.get("actor");
  const code = c.get("code");
  const event = eventOf(c, action);
  const refusal = { ...event, outcome: "refused", status: c.res.status, code: code ?? null } as const;
  if (crossing !== undefined) {
    const { tenantId, kind, id, target } = crossing;
    const actorOf = { actorKind: kind, actorId: id, actorName: null, onBehalfOf: null };
    const detail = { route: c.req.routePath };
    return [countCrossing(context, { ...refusal, ...actorOf, action: acts.crossTenant, tenantId, target, detail })];
  }
  if (route.access === "operator" && actor.kind === "anonymous" && c.res.status === 401 && code !== "token_missing") {
    const isOver = isOverRate(event.atMs);
    const anonymously = { ...actorFields(anonymous), tenantId: null, target: null, detail: { route: c.req.routePath } };
    return isOver ? [] : [keep(context, { ...refusal, ...anonymously, action: acts.refusedOperatorToken })];
  }
  const works = actsOf(c, event).map((act) => keep(context, act));
  const tokenUse = usedOperatorToken(c, event);
  if (tokenUse !== undefined) works.push(keep(context, tokenUse));
  const setup = usedSetupToken(event, route);
  if (setup !== undefined) works.push(keep(context, setup));
  const succeeded = c.res.status < 400;
  const isWanted = recording === "changes" ? succeeded : intended || (actor.kind !== "anonymous" && !isNoise(code));
  if (!isRecorded(c, recording) || !isWanted) return works;
  const answer = succeeded && isJson(c.res) ? c.res.clone() : undefined;
  const replayed = c.res.headers.get("idempotent-replayed") === "true";
  works.push(
    recordRequest(
      c,
      { ...event, outcome: outcomeOf(c.res.status), status: c.res.status, code: code ?? null },
      { answer, replayed },
    ),
  );
  return works;
}

/** Completes the event with what the answer names, and stores it. */
async function recordRequest(
  c: HttpContext,
  event: AuditEvent,
  { answer, replayed }: { answer: Response | undefined; replayed: boolean },
): Promise<void> {
  const context = c.get("context");
  const { note } = c.get("audit") ?? {};
  const params = c.req.param();
  const body: unknown = await answer?.json().catch(() => undefined);
  if (changedNothing(body)) return;
  const { tenantId } = params as { tenantId?: string };
  await keep(context, {
    ...event,
    tenantId: event.tenantId ?? tenantOfAnswer(body) ?? null,
    target: targetOf({
      ...{ params, answer: body, noted: note?.target },
      ...{ succeeded: event.outcome === "succeeded", isOwnTenant: "tenantId" in c.get("actor") },
    }),
    detail: { ...event.detail, ...detailOfAnswer(body, tenantId), ...(replayed && { replayed }) },
  });
}

/** Stores an event. Tries again for some seconds; then the sweep does what can be done. Never throws. */
async function keep(context: Context, event: AuditEvent): Promise<void> {
  let failure: unknown;
  for (const waitMs of WAITS_MS) {
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    try {
      await appendTogether(context.control, event);
      return;
    } catch (error) {
      failure = error;
    }
  }
  // The line has what the row would have had: no secret and no content.
  const { detail, ...fields } = event;
  log("error", "audit_event_not_stored", { ...fields, detail: JSON.stringify(detail), error: describeError(failure) });
}

/** Counts an attempt at another tenant's resource, and records it. The counter has all; the chain takes some a minute. */
async function countCrossing(context: Context, event: AuditEvent & { tenantId: string }): Promise<void> {
  let target: string | null = null;
  try {
    const counted = await crossingsStore(context.control).count(event.tenantId, event.target);
    // The id of no tenant: the token of an order that was not paid.
    if (counted === undefined) return;
    ({ target } = counted);
  } catch (error) {
    log("warn", "cross_tenant_not_counted", { tenantId: event.tenantId, error: describeError(error) });
  }
  await keep(context, { ...event, target });
}

/** The acts of the request that have rows of their own. */
function actsOf(c: HttpContext, event: AuditEvent): AuditEvent[] {
  const { acts: noted = [] } = c.get("audit") ?? {};
  const kept = noted.filter(({ action }) => action !== acts.refusedOperatorToken || !isOverRate(event.atMs));
  return kept.map(({ actor, action, tenantId, outcome, detail }, index) => {
    const { detail: ofActor, ...who } = actorFields(actor);
    const id = `${event.id}-${action}-${index}`;
    return {
      ...event,
      ...who,
      ...{ id, action, tenantId, outcome, target: null, status: c.res.status, detail: { ...ofActor, ...detail } },
    };
  });
}

/** What is known about a request before its answer. */
function eventOf(c: HttpContext, action: string): AuditEvent {
  const { atMs = Date.now(), note } = c.get("audit") ?? {};
  const { detail, ...actor } = actorFields(c.get("actor"));
  const params = c.req.param();
  const fields = c.get("fields");
  const tenantId = TenantId.safeParse((params as { tenantId?: string }).tenantId).data;
  const requestId = c.get("requestId");
  return {
    ...actor,
    id: requestId,
    requestId,
    tenantId: note?.tenantId ?? tenantId ?? null,
    atMs,
    action,
    target: targetOf({ params, noted: note?.target, succeeded: false, isOwnTenant: "tenantId" in c.get("actor") }),
    outcome: "unknown",
    status: null,
    code: null,
    address: addressOf(c),
    detail: {
      ...detail,
      ...note?.detail,
      ...(c.req.method === "PATCH" && fields !== undefined && { fields: fields.join(",") }),
    },
  };
}

/** The request's source; `null` where the platform does not say. Another text than an address is not kept. */
function addressOf(c: HttpContext): string | null {
  const source = sourceOf(c.req.header("cf-connecting-ip") ?? "");
  return /^[0-9a-f:.]{2,45}$/.test(source) ? source : null;
}

/** HEAD reads no data. */
function isRecorded(c: HttpContext, recording: Recording): boolean {
  return recording !== "never" && c.req.method !== "HEAD";
}

function isJson(response: Response): boolean {
  return response.headers.get("content-type")?.startsWith("application/json") === true;
}

/** How many refused operator tokens this isolate has recorded since when. */
const refusedTokens = { sinceMs: 0, count: 0 };
function isOverRate(nowMs: number): boolean {
  if (nowMs - refusedTokens.sinceMs >= MINUTE_MS) Object.assign(refusedTokens, { sinceMs: nowMs, count: 0 });
  refusedTokens.count += 1;
  return refusedTokens.count > REFUSED_TOKENS_PER_MINUTE;
}

/** Events that are stored once, which this isolate has stored. */
const stored = new BoundedMap<string, true>(1_000);
function firstOf(id: string, event: AuditEvent): AuditEvent | undefined {
  if (stored.get(id) === true) return undefined;
  stored.set(id, true);
  return { ...event, id, outcome: "succeeded" };
}

/** A use of the operator token where it is for emergencies. Once an hour: what it does is recorded by itself. */
function usedOperatorToken(c: HttpContext, event: AuditEvent): AuditEvent | undefined {
  const actor = c.get("actor");
  if (c.env.OPERATOR_TOKEN_USE === "normal" || actor.kind !== "operator" || actor.through !== "token") return undefined;
  const hour = new Date(Math.floor(event.atMs / HOUR_MS) * HOUR_MS).toISOString().slice(0, 13);
  const detail = { route: c.req.routePath };
  return firstOf(`operator-token-${hour}`, {
    ...event,
    action: acts.usedOperatorToken,
    tenantId: null,
    target: null,
    detail,
  });
}

/** The first read with an order's set-up token. What it changes is recorded as a request of its route. */
function usedSetupToken(event: AuditEvent, { access }: RecordedRoute): AuditEvent | undefined {
  if (event.actorKind !== "buyer" || access !== "status") return undefined;
  return firstOf(`setup-token-${event.tenantId ?? ""}`, { ...event, action: acts.usedSetupToken });
}
