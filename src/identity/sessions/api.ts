// Routes for the sign-in sessions of a tenant's members. A person has one session for each browser, for all of their tenants.
import type { ControlDatabase } from "../../adapters/neon.ts";
import type { TenantId } from "../../core/tenant/tenant.ts";
import { type HttpContext, type Page, type PageQuery, Problem, pageOf, tenantOf } from "../../http.ts";
import { type SessionSummary, sessionsStore } from "./sessions-store.ts";

export async function listSessions(c: HttpContext, { query }: { query: PageQuery }): Promise<Response> {
  return c.json(await pageOfSessions(c.get("context").control, tenantOf(c), query));
}

/** The sessions of the tenant's members. */
export async function pageOfSessions(
  control: ControlDatabase,
  tenantId: TenantId,
  query: PageQuery,
): Promise<Page<"sessions", SessionSummary>> {
  const sessions = await sessionsStore(control).list(tenantId, query, Date.now());
  return pageOf("sessions", sessions, query.limit, ({ id }) => id);
}

/** Ends a session: the browser is refused from the next request on. Clients that the person has let in stay. */
export async function endSession(c: HttpContext): Promise<Response> {
  const id = c.req.param("sessionId") ?? "";
  if (!(await sessionsStore(c.get("context").control).endInTenant(tenantOf(c), id, Date.now())))
    throw new Problem("not_found", "No member of the tenant has such a session.");
  return c.json({ ended: true });
}
