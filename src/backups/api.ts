// Routes for backups, exports, restores and imports of a tenant. The operator may use all of them. The tenant's admin may
// export, also while the tenant is suspended or leaving.
import * as z from "zod";
import { type Upload, abandonUpload, putFile } from "./bucket.ts";
import { ImportProgress } from "./import.ts";
import { RestoreProgress } from "./restore.ts";
import { type Job, type JobKind, jobsStore } from "./jobs-store.ts";
import type { Context } from "../control/context.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { TenantRequest, createTenant, refusedRegion } from "../control/new-tenant.ts";
import type { Creation } from "../control/idempotent-requests-store.ts";
import {
  BadRequest,
  Flag,
  type HttpContext,
  type NumberedPageQuery,
  Problem,
  isJson,
  noStore,
  numberedPageQuery,
  pageOf,
  readJson,
  tenantOf,
} from "../http.ts";

/** An instant to the microsecond, as PostgreSQL has it. */
const Instant = z.iso.datetime({ offset: true });
const FileName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$/);
export const BackupRequest = z.strictObject({ at: Instant.optional() });
export const RestoreRequest = z.union([
  z.strictObject({ backup: FileName, into: TenantRequest.optional() }),
  z.strictObject({ at: Instant, into: TenantRequest.optional() }),
]);
export const ImportRequest = z.strictObject({
  /** A file in the bucket of backups. */
  importFrom: z.string().min(1).max(1_000),
  overwrite: z.boolean().default(false),
});

/** The query of a list of jobs. */
export const JobsQuery = numberedPageQuery(100);

/** `?overwrite=true`, when the body is the file. A JSON body has its own `overwrite`. */
export const ImportQuery = z.strictObject({ overwrite: Flag });

/** The tenant's rows and documents as one file. For the tenant's admin, also while the tenant is suspended or leaving. */
export async function exportTenant(c: HttpContext): Promise<Response> {
  const tenantId = tenantOf(c);
  const exported = await c
    .get("context")
    .tenantObject(tenantId)
    .export(c.get("caller") ?? null);
  if (exported === "export_runs")
    throw new Problem("conflict", "Another export of this account is running. Start one when it has ended.");
  if (typeof exported === "string") throw new Problem(exported);
  return new Response(exported, { headers: ndjson(`${tenantId}-${stamp()}.ndjson`) });
}

export async function startBackup(
  c: HttpContext,
  { body: { at } }: { body: z.infer<typeof BackupRequest> },
): Promise<Response> {
  const kind = at === undefined ? "" : "-point";
  return c.json(asBackup(await openBackup(c.get("context"), tenantOf(c), kind, at, c.get("creation"))), 202);
}

export async function listBackups(
  c: HttpContext,
  { query: { after, limit } }: { query: NumberedPageQuery },
): Promise<Response> {
  const tenantId = tenantOf(c);
  const jobs = jobsStore(c.get("context").control);
  const backups = (await jobs.history(tenantId, "backup", { before: after, limit: limit + 1 })).map(asBackup);
  const earliestPoint = (await jobs.earliestPoint(tenantId)) ?? null;
  return c.json({ ...pageOf("backups", backups, limit, ({ id }) => id), earliestPoint });
}

export async function downloadBackup(c: HttpContext): Promise<Response> {
  const key = backupKey(tenantOf(c), nameIn(c));
  const object = await c.env.BACKUPS.get(key);
  if (object === null) throw noSuchBackup();
  return new Response(object.body, { headers: { ...ndjson(key), "content-length": String(object.size) } });
}

/** Cancels a backup that is being made. A restore that waits for it fails. */
export async function cancelBackup(c: HttpContext): Promise<Response> {
  const tenantId = tenantOf(c);
  const job = await jobsStore(c.get("context").control).cancel(tenantId, "backup", backupKey(tenantId, nameIn(c)));
  if (job === undefined) throw new Problem("not_found", "The tenant has no such backup that is being made.");
  const { upload } = job.progress;
  if (upload !== undefined) await abandonUpload(c.env.BACKUPS, upload as Upload);
  return c.json(asBackup(job));
}

/** Stores a backup file that the operator kept elsewhere. The restore checks that it is complete and belongs to the tenant. */
export async function uploadBackup(c: HttpContext): Promise<Response> {
  const key = backupKey(tenantOf(c), nameIn(c));
  if ((await c.env.BACKUPS.head(key)) !== null) throw new Problem("conflict", "A backup of this name exists already.");
  return c.json({ sizeBytes: await putFile(c.env.BACKUPS, key, lengthKnown(c)) }, 201);
}

export async function startRestore(
  c: HttpContext,
  { body: request }: { body: z.infer<typeof RestoreRequest> },
): Promise<Response> {
  return c.json(await restoreOf(c, request), 202);
}

/** Starts a restore of the path's tenant, in its place or into a new tenant. Throws why it cannot be started. */
export async function restoreOf(c: HttpContext, request: z.infer<typeof RestoreRequest>) {
  const from = tenantOf(c);
  const context = c.get("context");
  const creation = c.get("creation");
  let backup: string;
  const waitsFor: number[] = [];
  if ("backup" in request) {
    ({ backup } = request);
    if ((await c.env.BACKUPS.head(backupKey(from, backup))) === null) throw noSuchBackup();
  } else {
    const point = await openBackup(context, from, "-point", request.at, creation);
    backup = nameOf(point);
    waitsFor.push(point.id);
  }
  const refused = request.into === undefined ? undefined : await refusedRegion(c.get("context"), request.into);
  if (refused !== undefined) throw new BadRequest(refused);
  const tenantId = request.into === undefined ? from : await createTenant(context, request.into, creation);
  if (tenantId === undefined) throw new Problem("conflict", "The tenant to restore into exists already.");
  let safetyBackup: string | null = null;
  if (tenantId === from) {
    const safety = await openBackup(context, from, "-before-restore", undefined, creation);
    safetyBackup = nameOf(safety);
    waitsFor.push(safety.id);
  }
  const wanted = { key: backupKey(from, backup), from, waitsFor, safetyBackup };
  const job = await open(context, tenantId, "restore", wanted, creation);
  if (job === undefined) throw new Problem("conflict", "Another restore of this tenant is in progress.");
  return { tenantId, backup, ...asRestore(job) };
}

export async function listRestores(
  c: HttpContext,
  { query: { after, limit } }: { query: NumberedPageQuery },
): Promise<Response> {
  const jobs = jobsStore(c.get("context").control);
  const restores = await jobs.history(tenantOf(c), "restore", { before: after, limit: limit + 1 });
  return c.json(pageOf("restores", restores.map(asRestore), limit, ({ id }) => id));
}

/** Imports a file: the request's body, or the file in the bucket that a JSON body names. */
export async function startImport(
  c: HttpContext,
  { query: { overwrite } }: { query: z.infer<typeof ImportQuery> },
): Promise<Response> {
  const creation = c.get("creation");
  let wanted: z.infer<typeof ImportRequest>;
  if (isJson(c)) {
    wanted = await readJson(c, ImportRequest);
  } else {
    wanted = { importFrom: await storeImport(c, lengthKnown(c), creation?.atMs), overwrite };
  }
  return startImportOf(c, wanted);
}

/** Stores a file to import, and returns its name in the bucket. The stream's length must be known. */
export async function storeImport(
  c: HttpContext,
  file: ReadableStream | Uint8Array,
  atMs = Date.now(),
): Promise<string> {
  const importFrom = `imports/${tenantOf(c)}/${stamp(atMs)}.ndjson`;
  await putFile(c.env.BACKUPS, importFrom, file);
  return importFrom;
}

/** Imports a file of the bucket into the path's tenant. */
export async function startImportOf(c: HttpContext, wanted: z.infer<typeof ImportRequest>): Promise<Response> {
  const job = await openImport(c.get("context"), tenantOf(c), wanted, c.get("creation"));
  if (job === undefined)
    throw new Problem("conflict", "Another import of this tenant is in progress, or its account is closed.");
  return c.json(asImport(job), 202);
}

/** Cancels the running import. Lines that are imported stay. */
export async function cancelImport(c: HttpContext): Promise<Response> {
  const job = await jobsStore(c.get("context").control).cancel(tenantOf(c), "import");
  if (job === undefined) throw new Problem("not_found", "The tenant has no import that is running.");
  return c.json(asImport(job));
}

/** Cancels the running restore, unless it has begun to replace the tenant's rows. */
export async function cancelRestore(c: HttpContext): Promise<Response> {
  const job = await jobsStore(c.get("context").control).cancel(tenantOf(c), "restore");
  if (job === undefined) throw new Problem("not_found", "The tenant has no restore that can still be cancelled.");
  return c.json(asRestore(job));
}

/** Imports a file in the background. `undefined`: there is no such tenant, or another import of it is in progress. */
export function openImport(
  context: Context,
  tenantId: TenantId,
  wanted: z.infer<typeof ImportRequest>,
  creation?: Creation,
) {
  return open(context, tenantId, "import", { key: wanted.importFrom, overwrite: wanted.overwrite }, creation);
}

/** The tenant's newest import, without any value of its data. `null`: the tenant has none. */
export async function newestImport({ control }: Pick<Context, "control">, tenantId: TenantId) {
  const [job] = await jobsStore(control).history(tenantId, "import", { limit: 1 });
  return job === undefined ? null : asImport(job);
}

/** Opens a backup of now, or of the instant `at`. Throws `conflict` when the account is closed. */
async function openBackup(
  context: Context,
  tenantId: TenantId,
  kind: string,
  at: string | undefined,
  creation: Creation | undefined,
): Promise<Job> {
  if (at !== undefined) {
    const earliest = await jobsStore(context.control).earliestPoint(tenantId);
    if (earliest === undefined || Date.parse(at) < Date.parse(earliest))
      throw new BadRequest(`at: the log of changes starts at ${earliest ?? "no point yet"}`);
    if (Date.parse(at) > Date.now()) throw new BadRequest("at: must not be in the future");
  }
  const key = backupKey(tenantId, `${stamp(creation?.atMs)}${kind}.ndjson`);
  const job = await open(context, tenantId, "backup", { key, ...(at !== undefined && { at }) }, creation);
  if (job === undefined) throw new Problem("conflict", "The tenant's account is closed.");
  return job;
}

/** Opens a job. A repeated request finds the job that its first run opened. */
async function open(
  context: Context,
  tenantId: TenantId,
  kind: JobKind,
  request: Record<string, unknown> & { key: string },
  creation?: Creation,
) {
  const jobs = jobsStore(context.control);
  const opened =
    creation?.isRepeat === true ? await jobs.opened(tenantId, kind, request.key, creation.atMs) : undefined;
  const job = opened ?? (await jobs.create(tenantId, kind, request));
  // When the start fails, the job records nothing more, and the sweep starts another Workflow for it.
  if (job !== undefined) await context.start({ kind: "job", tenantId, jobId: job.id });
  return job;
}

function asBackup(job: Job) {
  return { id: job.id, name: nameOf(job), ...progressOf(job), at: job.request["at"] ?? null, ...job.result };
}

function asRestore(job: Job) {
  // The progress of another version of the program is not known, and hides no other restore from the list.
  const { line, footer, replaced } = RestoreProgress.partial().safeParse(job.progress).data ?? {};
  const lines = { checked: line ?? 0, rows: footer?.rows ?? null, replaced: replaced ?? false };
  return { id: job.id, key: job.request["key"], ...progressOf(job), progress: lines, ...job.result };
}

function asImport(job: Job) {
  const { lines, table, failed, kept, errors } = ImportProgress.partial().parse(job.progress);
  return {
    id: job.id,
    ...progressOf(job),
    lines: lines ?? null,
    table: table ?? null,
    failed: failed ?? 0,
    kept: kept ?? 0,
    errors: errors ?? [],
  };
}

function progressOf({ state, error, startedAt, finishedAt }: Job) {
  return { state, error, startedAt, finishedAt };
}

function nameOf(job: Job): string {
  return String(job.request["key"]).split("/").at(-1) ?? "";
}

function backupKey(tenantId: TenantId, name: string): string {
  return `backups/${tenantId}/${name}`;
}

function ndjson(key: string): Record<string, string> {
  return {
    "content-type": "application/x-ndjson",
    "content-disposition": `attachment; filename="${key.split("/").at(-1)}"`,
    ...noStore,
  };
}

/** The body with its length, which R2 needs in advance. */
function lengthKnown(c: HttpContext): ReadableStream {
  const { body } = c.req.raw;
  if (body === null || c.req.header("content-length") === undefined)
    throw new BadRequest("Send the file as the body, with a Content-Length.");
  return body;
}

/** An instant as part of a file name: that of the request's first run, or the current one. */
function stamp(atMs = Date.now()): string {
  return new Date(atMs).toISOString().replaceAll(":", "-").replace(".", "-");
}

function noSuchBackup(): Problem {
  return new Problem("not_found", "There is no such backup.");
}

function nameIn(c: HttpContext): string {
  const name = FileName.safeParse(c.req.param("name"));
  if (!name.success) throw noSuchBackup();
  return name.data;
}
