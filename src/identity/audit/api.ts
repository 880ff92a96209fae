// Routes of the audit log: a tenant's admins read their own chain, operators read all of them. A tenant sees that the operator acted,
// not which person from which address.
import * as z from "zod";
import type { ControlDatabase } from "../../adapters/neon.ts";
import type { TenantId } from "../../core/tenant/tenant.ts";
import { TenantId as TenantIdSchema } from "../../core/tenant/tenant.ts";
import {
  BadRequest,
  type HttpContext,
  type Page,
  type PageQuery,
  decodeCursor,
  encodeCursor,
  numberedPageQuery,
  pageOf,
  pageQuery,
  tenantOf,
} from "../../http.ts";
import { type AuditRow, asTenantSees, auditOutcomes } from "./audit.ts";
import { auditStore } from "./audit-store.ts";
import { crossingsStore } from "./crossings-store.ts";

const Text = z.string().min(1).max(200).optional();
const Instant = z.iso.datetime({ offset: true }).optional();

/** The query of the list: rows of 100 events are some 60 KB of JSON. */
export const AuditQuery = numberedPageQuery(100).extend({
  /** The actor's id or kind. */
  actor: Text,
  action: Text,
  outcome: z.enum(auditOutcomes).optional(),
  /** The first instant, and the one after the last. */
  from: Instant,
  to: Instant,
  requestId: Text,
});
export type AuditQuery = z.infer<typeof AuditQuery>;
/** `tenant`: only the chain of this tenant. */
export const AllAuditQuery = AuditQuery.extend({ tenant: TenantIdSchema.optional() });

export const CrossingsQuery = pageQuery(100);

/** An event as clients see it. */
export function auditAnswer(row: AuditRow) {
  const { seq: _, atMs, recordedAtMs, actorKind: kind, actorId: id, actorName: name, onBehalfOf, ...fields } = row;
  const [at, recordedAt] = [new Date(atMs).toISOString(), new Date(recordedAtMs).toISOString()];
  return { ...fields, at, recordedAt, actor: { kind, id, name, onBehalfOf } };
}

export async function listOwnAudit(c: HttpContext, { query }: { query: AuditQuery }): Promise<Response> {
  return c.json(await ownEvents(c.get("context").control, tenantOf(c), query));
}

/** Events of a tenant, as its people see them. */
export function ownEvents(control: ControlDatabase, tenantId: TenantId, query: AuditQuery): Promise<EventsPage> {
  return eventsOf(control, query, tenantId, asTenantSees);
}

export async function listAudit(
  c: HttpContext,
  { query: { tenant, ...query } }: { query: z.infer<typeof AllAuditQuery> },
): Promise<Response> {
  return c.json(await eventsOf(c.get("context").control, query, tenant, undefined));
}

type EventsPage = Page<"events", ReturnType<typeof auditAnswer>>;

export async function eventsOf(
  control: ControlDatabase,
  { after, limit, ...filter }: AuditQuery,
  tenantId: TenantId | undefined,
  view: ((row: AuditRow) => AuditRow) | undefined,
): Promise<EventsPage> {
  if (filter.from !== undefined && filter.to !== undefined && Date.parse(filter.from) >= Date.parse(filter.to))
    throw new BadRequest("from: must be before `to`");
  const seesOperators = view === undefined;
  const rows = await auditStore(control).list({
    ...filter,
    ...{ tenantId, seesOperators, before: after, limit: limit + 1 },
  });
  const page = pageOf("events", rows, limit, ({ seq }) => seq);
  return { ...page, events: page.events.map((row) => auditAnswer(view?.(row) ?? row)) };
}

/** Attempts at other tenants' resources, by tenant and day. */
export async function listCrossings(
  c: HttpContext,
  { query: { after, limit } }: { query: PageQuery },
): Promise<Response> {
  const [lastAt = "", tenantId = "", day = ""] = decodeCursor(after, 3) ?? [];
  if (after !== "" && !z.iso.date().safeParse(day).success)
    throw new BadRequest("after: must be the `next` of the previous page.");
  const rows = await crossingsStore(c.get("context").control).list(
    limit + 1,
    after === "" ? undefined : { lastAt, tenantId, day },
  );
  return c.json(pageOf("crossings", rows, limit, (row) => encodeCursor([row.lastAt, row.tenantId, row.day])));
}
