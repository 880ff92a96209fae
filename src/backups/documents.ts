// Routes for a tenant's documents. Its people and programs read and change what its tools do: the same paths, types, sizes and
// storage (adapters/files.ts). Reading is possible in every state of the account. Changes are refused when a call would be, by the
// account's state or its limits; they are not charged.
// Invariant: a document leaves as a file to save, under a type that no browser runs.
import * as z from "zod";
import { type TenantDocuments, createDocuments } from "../adapters/files.ts";
import { stateRefusal } from "../calls/refusal.ts";
import { tenantsStore } from "../control/tenants-store.ts";
import { spendWindow } from "../core/plans/money.ts";
import type { TenantConfig } from "../core/tenant/tenant.ts";
import { refusedByState } from "../core/tenant/tenant-state.ts";
import {
  MAX_DOCUMENT_BYTES,
  MAX_PATH_BYTES,
  type PathResult,
  normalisePath,
  normalisePrefix,
  plainContentType,
  refusedContentType,
} from "../core/text/document-path.ts";
import {
  BadRequest,
  type HttpContext,
  Problem,
  type Route,
  downloadOf,
  noSuchTenant,
  noStore,
  noteAct,
  pageQuery,
  route,
  tenantOf,
} from "../http.ts";
import { quotaOf } from "../metering/metrics/api.ts";

/** A document has up to 700 bytes in a list. */
export const DocumentsQuery = pageQuery(100).extend({ prefix: z.string().max(MAX_PATH_BYTES).default("") });
export const DocumentQuery = z.object({ path: z.string() });
export type DocumentQuery = z.infer<typeof DocumentQuery>;

export const Document = z.object({
  path: z.string(),
  sizeBytes: z.int(),
  contentType: z.string(),
  updatedAt: z.iso.datetime(),
});

const UNKNOWN_TYPE = "application/octet-stream";

// oxfmt-ignore
export const documentRoutes: readonly Route[] = [
  route("GET /api/tenants/:tenantId/documents", "tenant_admin", listDocuments, { query: DocumentsQuery, permission: "documents:read" }),
  route("GET /api/tenants/:tenantId/documents/content", "tenant_admin", downloadDocument, { query: DocumentQuery, isDownload: true, permission: "documents:read" }),
  route("PUT /api/tenants/:tenantId/documents/content", "tenant_admin", saveDocument, { query: DocumentQuery, readsBody: true, maxBytes: MAX_DOCUMENT_BYTES, permission: "documents:write" }),
  route("DELETE /api/tenants/:tenantId/documents/content", "tenant_admin", deleteDocument, { query: DocumentQuery, permission: "documents:write" }),
];

async function listDocuments(
  c: HttpContext,
  { query: { prefix, after, limit } }: { query: z.infer<typeof DocumentsQuery> },
): Promise<Response> {
  const within = accepted("prefix", normalisePrefix(prefix));
  const last = after === "" ? undefined : normalisePath(after);
  if (last !== undefined && !(last.ok && last.path.startsWith(within)))
    throw new BadRequest("after: must be the `next` of the previous page, with the same prefix.");
  const { files, cursor } = await documentsOf(c).list({
    ...{ prefix: within, limit },
    ...(last?.ok === true && { cursor: last.path }),
  });
  return c.json({ documents: files, next: cursor ?? null }, 200, noStore);
}

export async function downloadDocument(c: HttpContext, { query }: { query: DocumentQuery }): Promise<Response> {
  const path = accepted("path", normalisePath(query.path));
  const found = await documentsOf(c).open(path);
  if (found === undefined) throw noSuchDocument(path);
  const { info, body } = found;
  noteAct(c, { target: path });
  const headers = downloadOf(path.split("/").at(-1) ?? path, plainContentType(info.contentType));
  return new Response(body, { headers: { ...headers, "content-length": String(info.sizeBytes) } });
}

/** Stores the body. With `If-None-Match: *`, only where there is no document yet. */
async function saveDocument(c: HttpContext, { query: { path } }: { query: DocumentQuery }): Promise<Response> {
  if (!/^(identity)?$/i.test(c.req.header("content-encoding") ?? ""))
    throw new Problem("content_type", "Send the document without Content-Encoding.");
  const condition = c.req.header("if-none-match");
  if (condition !== undefined && condition !== "*") throw new BadRequest("If-None-Match: must be *, or left out.");
  const stored = await storeDocument(c, {
    path,
    bytes: await c.req.arrayBuffer(),
    contentType: c.req.header("content-type") ?? UNKNOWN_TYPE,
    onlyNew: condition === "*",
  });
  return c.json(stored, 200, noStore);
}

async function deleteDocument(c: HttpContext, { query: { path } }: { query: DocumentQuery }): Promise<Response> {
  await dropDocument(c, path);
  return c.json({ deleted: true }, 200, noStore);
}

/** A document as it is sent. */
export interface SentDocument {
  path: string;
  bytes: ArrayBuffer;
  contentType: string;
  /** An existing document stays, and the request is refused. */
  onlyNew: boolean;
}

/** Stores a document of the path's tenant. Throws a `Problem` that says why not, with the name of the wrong field. */
export async function storeDocument(c: HttpContext, sent: SentDocument): Promise<z.infer<typeof Document>> {
  const path = accepted("path", normalisePath(sent.path));
  const { bytes, contentType, onlyNew } = sent;
  const refusedType = refusedContentType(contentType);
  if (refusedType !== undefined) throw new BadRequest(`Content-Type: ${refusedType}`);
  if (bytes.byteLength > MAX_DOCUMENT_BYTES) throw tooLarge(bytes.byteLength);
  await demandChangeable(c);
  const stored = await documentsOf(c).put(path, bytes, { contentType, onlyNew });
  if (stored === undefined)
    throw new Problem("precondition_failed", `There is a document ${path} already. It has not changed.`);
  noteAct(c, { target: path });
  return stored;
}

/** Deletes a document of the path's tenant. Throws `not_found` when there is none. */
export async function dropDocument(c: HttpContext, given: string): Promise<void> {
  const path = accepted("path", normalisePath(given));
  await demandChangeable(c);
  if (!(await documentsOf(c).delete(path))) throw noSuchDocument(path);
  noteAct(c, { target: path });
}

/** The refusal of a document of this size. */
export function tooLarge(sizeBytes: number): Problem {
  return new Problem(
    "body_too_large",
    `The document has ${sizeBytes} bytes. The limit is ${MAX_DOCUMENT_BYTES} (${MAX_DOCUMENT_BYTES / 1024} KiB). Nothing has changed.`,
  );
}

export function documentsOf(c: HttpContext): TenantDocuments {
  return createDocuments({ bucket: c.env.FILES, tenantId: tenantOf(c) });
}

async function demandChangeable(c: HttpContext): Promise<void> {
  const tenant = c.get("tenant") ?? (await tenantsStore(c.get("context").control).config(tenantOf(c)));
  if (tenant === undefined) throw noSuchTenant();
  const refused = await refusedChange(c, tenant);
  if (refused !== undefined) throw refused;
}

/** Why the tenant's documents cannot be changed now, as a call of a tool would be refused; `undefined` when they can. */
export async function refusedChange(c: HttpContext, tenant: TenantConfig): Promise<Problem | undefined> {
  const nowMs = Date.now();
  const ofState = refusedByState(tenant, nowMs);
  if (ofState !== undefined)
    return new Problem(ofState, stateRefusal(tenant, ofState, { publicUrl: c.env.PUBLIC_URL, nowMs }).message);
  const window = spendWindow(tenant, nowMs);
  const isCapped = window !== undefined && window.maxUnits !== null;
  const object = c.get("context").tenantObject(tenant.id);
  const [quota, allowance] = await Promise.all([
    quotaOf(c, tenant),
    isCapped ? object.allowance().catch(() => undefined) : undefined,
  ]);
  if (quota === undefined || (isCapped && allowance === undefined))
    return new Problem("tenant_unavailable", "The account's limits cannot be checked now. Try again shortly.");
  const isFull = ({ limit, used }: { limit: number | null; used: number }): boolean => limit !== null && used >= limit;
  const words = (limit: string): string => `${limit} Documents can be read, and changed again once calls are served.`;
  if (isFull(quota.hour)) return new Problem("window_exhausted", words("This hour's units are used up."));
  if (isFull(quota.month)) return new Problem("period_exhausted", words("This month's units are used up."));
  if (allowance !== undefined && isFull({ limit: window?.maxUnits ?? null, used: allowance.spendUnits }))
    return new Problem("spend_cap_reached", words("The spend cap of this billing period is reached."));
  return undefined;
}

function accepted(field: string, result: PathResult): string {
  if (!result.ok) throw new BadRequest(`${field}: ${result.reason}`);
  return result.path;
}

function noSuchDocument(path: string): Problem {
  return new Problem("not_found", `There is no document ${path}.`);
}
