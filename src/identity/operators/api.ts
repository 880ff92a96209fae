// Routes for impersonations: an operator starts one for a tenant, lists those that run, and ends one. And for the sessions of the
// operator's people in browsers.
import type * as z from "zod";
import {
  type HttpContext,
  type PageQuery,
  Problem,
  decodeCursor,
  encodeCursor,
  noStore,
  noSuchTenant,
  noteAct,
  pageOf,
  tenantOf,
} from "../../http.ts";
import { log } from "../../log.ts";
import { type ImpersonationRequest, startImpersonation } from "./impersonation.ts";
import { OPERATOR_IDLE_MS } from "./operator-sessions.ts";
import { operatorSessionsStore } from "./operator-sessions-store.ts";
import { type Impersonation, operatorsStore } from "./operators-store.ts";

/** Starts an impersonation. The answer shows its credential once. */
export async function impersonate(
  c: HttpContext,
  { body }: { body: z.infer<typeof ImpersonationRequest> },
): Promise<Response> {
  const { token, ...impersonation } = await beginImpersonation(c, body);
  return c.json({ ...impersonation, token }, 201, noStore);
}

/** Starts an impersonation of the path's tenant by the operator who sends the request. */
export async function beginImpersonation(c: HttpContext, { reason }: z.infer<typeof ImpersonationRequest>) {
  const tenantId = tenantOf(c);
  const actor = c.get("actor");
  if (actor.kind !== "operator") throw new Problem("token_invalid");
  const started = await startImpersonation(c.get("context"), tenantId, actor, reason, Date.now());
  if (started === undefined) throw noSuchTenant();
  noteAct(c, { target: started.id });
  log("warn", "impersonation_started", { tenantId, impersonation: started.id, operator: actor.id, reason });
  return started;
}

/** The running impersonations of the path's tenant, or of all tenants. */
export async function listImpersonations(
  c: HttpContext,
  { query: { after, limit } }: { query: PageQuery },
): Promise<Response> {
  const tenantId = c.req.param("tenantId") === undefined ? undefined : tenantOf(c);
  const [createdAt = "", id = ""] = decodeCursor(after, 2) ?? [];
  const before = after === "" ? undefined : { createdAt, id };
  const store = operatorsStore(c.get("context").control);
  const rows = await store.runningImpersonations({ tenantId, before, limit: limit + 1 });
  return c.json(pageOf("impersonations", rows, limit, (each) => encodeCursor([each.createdAt, each.id])));
}

/** Ends an impersonation: its credential is refused from the next request on. */
export async function endImpersonation(c: HttpContext): Promise<Response> {
  return c.json(await finishImpersonation(c, c.req.param("impersonationId") ?? ""));
}

/** Ends an impersonation of the path's tenant. */
export async function finishImpersonation(c: HttpContext, id: string): Promise<Impersonation> {
  const tenantId = tenantOf(c);
  const ended = await operatorsStore(c.get("context").control).endImpersonation(tenantId, id);
  if (ended === undefined) throw new Problem("not_found", "The tenant has no such impersonation.");
  log("info", "impersonation_ended", { tenantId, impersonation: id });
  return ended;
}

/** The operators who are signed in to pages. */
export async function listOperatorSessions(c: HttpContext, { query }: { query: PageQuery }): Promise<Response> {
  const nowMs = Date.now();
  const store = operatorSessionsStore(c.get("context").control);
  const sessions = await store.list(query, nowMs, nowMs - OPERATOR_IDLE_MS);
  return c.json(pageOf("sessions", sessions, query.limit, ({ id }) => id));
}

/** Ends a session of an operator: the browser is refused from the next request on. */
export async function endOperatorSession(c: HttpContext): Promise<Response> {
  const nowMs = Date.now();
  const id = c.req.param("sessionId") ?? "";
  const store = operatorSessionsStore(c.get("context").control);
  if (!(await store.endById(id, nowMs, nowMs - OPERATOR_IDLE_MS)))
    throw new Problem("not_found", "No operator has such a session.");
  return c.json({ ended: true });
}
