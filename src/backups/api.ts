// Backups, exports, restores and imports of a tenant: for the operator; and the export for the tenant itself, by an API
// key with a scope of its own, also while the tenant is suspended or leaving.
import { type Context, Hono } from "hono";
import * as z from "zod";
import { putFile } from "./bucket.ts";
import { ImportProgress } from "./import.ts";
import { RestoreProgress } from "./restore.ts";
import { type Job, type JobKind, jobsStore } from "./jobs-store.ts";
import { createContext } from "../control/context.ts";
import type { Caller } from "../core/call.ts";
import { AppError } from "../core/errors.ts";
import type { TenantId } from "../core/tenant.ts";
import { authenticate } from "../identity/authenticate.ts";
import { ADMIN_SCOPE } from "../identity/keys.ts";
import { TenantRequest, createTenant } from "../control/new-tenant.ts";
import { BadRequest, type HttpEnv, problem, readJson, tenantOf } from "../http.ts";

/** Down to the microseconds that PostgreSQL has. */
const Instant = z.iso.datetime({ offset: true });
const FileName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$/);
const BackupRequest = z.strictObject({ at: Instant.optional() });
const RestoreRequest = z.union([
  z.strictObject({ backup: FileName, into: TenantRequest.optional() }),
  z.strictObject({ at: Instant, into: TenantRequest.optional() }),
]);
const ImportRequest = z.strictObject({
  /** A file in the bucket of backups. */
  importFrom: z.string().min(1).max(1_000),
  overwrite: z.boolean().default(false),
});

export const backupApi = new Hono<HttpEnv>();
export const exportApi = new Hono<HttpEnv>();

exportApi.get("/:id/export", async (c) => {
  const authentication = await authenticate(c.req.header("authorization") ?? null, c.env, Date.now());
  if ("refused" in authentication) return problem(c, authentication.refused);
  const { caller } = authentication;
  if (caller.tenantId !== c.req.param("id") || caller.kind !== "key") return problem(c, "token_invalid");
  if (!caller.scopes.includes(ADMIN_SCOPE)) return problem(c, "scope_missing");
  return download(c, caller.tenantId, caller);
});

backupApi.get("/:id/export", (c) => download(c, tenantOf(c), null));

backupApi.post("/:id/backups", async (c) => {
  const tenantId = tenantOf(c);
  const { at } = await readJson(c, BackupRequest);
  const job = await openBackup(c.env, tenantId, at === undefined ? "" : "-point", at);
  return job === undefined ? problem(c, "conflict", "There is no such tenant.") : c.json(asBackup(job), 202);
});

backupApi.get("/:id/backups", async (c) => {
  const tenantId = tenantOf(c);
  const jobs = await jobsStore(c.get("context").control).history(tenantId, "backup");
  return c.json({
    backups: jobs.map(asBackup),
    earliestPoint: (await jobsStore(c.get("context").control).earliestPoint(tenantId)) ?? null,
  });
});

backupApi.get("/:id/backups/:name", async (c) => {
  const key = backupKey(tenantOf(c), nameIn(c));
  const object = await c.env.BACKUPS.get(key);
  if (object === null) return problem(c, "not_found", "There is no such backup.");
  return new Response(object.body, { headers: { ...ndjson(key), "content-length": String(object.size) } });
});

/** Brings a file back that was kept elsewhere. Whether it is whole and whose it is, a restore looks at. */
backupApi.put("/:id/backups/:name", async (c) => {
  const key = backupKey(tenantOf(c), nameIn(c));
  if ((await c.env.BACKUPS.head(key)) !== null) return problem(c, "conflict", "There is such a backup already.");
  return c.json({ sizeBytes: await putFile(c.env.BACKUPS, key, lengthKnown(c)) }, 201);
});

backupApi.post("/:id/restore", async (c) => {
  const from = tenantOf(c);
  const request = await readJson(c, RestoreRequest);
  let backup: string;
  const waitsFor: number[] = [];
  if ("backup" in request) {
    ({ backup } = request);
    if ((await c.env.BACKUPS.head(backupKey(from, backup))) === null)
      return problem(c, "not_found", "There is no such backup.");
  } else {
    const point = await openBackup(c.env, from, "-point", request.at);
    if (point === undefined) return problem(c, "conflict", "There is no such tenant.");
    backup = nameOf(point);
    waitsFor.push(point.id);
  }
  const tenantId = request.into === undefined ? from : await createTenant(c.env, request.into);
  if (tenantId === undefined) return problem(c, "conflict", "There is such a tenant already.");
  let safetyBackup: string | null = null;
  if (tenantId === from) {
    const safety = await openBackup(c.env, from, "-before-restore", undefined);
    if (safety === undefined) return problem(c, "conflict", "There is no such tenant.");
    safetyBackup = nameOf(safety);
    waitsFor.push(safety.id);
  }
  const wanted = { key: backupKey(from, backup), from, waitsFor, safetyBackup };
  const job = await open(c.env, tenantId, "restore", wanted);
  if (job === undefined) return problem(c, "conflict", "A restore of this tenant is going on.");
  return c.json({ tenantId, backup, ...asRestore(job) }, 202);
});

backupApi.get("/:id/restores", async (c) =>
  c.json({ restores: (await jobsStore(c.get("context").control).history(tenantOf(c), "restore")).map(asRestore) }),
);

/** The body itself, or a file that is in the bucket already. */
backupApi.post("/:id/import", async (c) => {
  const tenantId = tenantOf(c);
  let wanted: z.infer<typeof ImportRequest>;
  if (/^application\/json\b/i.test(c.req.header("content-type") ?? "")) {
    wanted = await readJson(c, ImportRequest);
  } else {
    const importFrom = `imports/${tenantId}/${stamp()}.ndjson`;
    await putFile(c.env.BACKUPS, importFrom, lengthKnown(c));
    wanted = { importFrom, overwrite: c.req.query("overwrite") === "true" };
  }
  const job = await openImport(c.env, tenantId, wanted);
  return job === undefined
    ? problem(c, "conflict", "There is no such tenant, or an import of it is going on.")
    : c.json(asImport(job), 202);
});

/** Has a file imported in the background. `undefined` when there is no such tenant, or it imports another one. */
export function openImport(env: Env, tenantId: TenantId, wanted: z.infer<typeof ImportRequest>) {
  return open(env, tenantId, "import", { key: wanted.importFrom, overwrite: wanted.overwrite });
}

/** The tenant's newest import as the tenant sees it: no value of its data. `null`: it has none. */
export async function newestImport(env: Env, tenantId: TenantId) {
  const [job] = await jobsStore(createContext(env).control).history(tenantId, "import", 1);
  return job === undefined ? null : asImport(job);
}

async function download(c: Context<HttpEnv>, tenantId: TenantId, caller: Caller | null): Promise<Response> {
  const exported = await c.env.TENANT.getByName(tenantId).export(caller);
  if (typeof exported === "string") return problem(c, exported);
  return new Response(exported, { headers: ndjson(`${tenantId}-${stamp()}.ndjson`) });
}

async function openBackup(
  env: Env,
  tenantId: TenantId,
  kind: string,
  at: string | undefined,
): Promise<Job | undefined> {
  if (at !== undefined) {
    const earliest = await jobsStore(createContext(env).control).earliestPoint(tenantId);
    if (earliest === undefined || Date.parse(at) < Date.parse(earliest))
      throw new BadRequest(`at: the log of changes reaches back to ${earliest ?? "nothing"}`);
    if (Date.parse(at) > Date.now()) throw new BadRequest("at: must not be in the future");
  }
  const key = backupKey(tenantId, `${stamp()}${kind}.ndjson`);
  return open(env, tenantId, "backup", { key, ...(at !== undefined && { at }) });
}

async function open(env: Env, tenantId: TenantId, kind: JobKind, request: Record<string, unknown>) {
  const job = await jobsStore(createContext(env).control).create(tenantId, kind, request);
  // Should this fail, the job goes silent, and the sweep starts another Workflow for it.
  if (job !== undefined)
    await env.ARCHIVING.create({ id: `job-${job.id}-${crypto.randomUUID()}`, params: { tenantId, jobId: job.id } });
  return job;
}

function asBackup(job: Job) {
  return { name: nameOf(job), ...progressOf(job), at: job.request["at"] ?? null, ...job.result };
}

function asRestore(job: Job) {
  const { line, footer, replaced } = RestoreProgress.partial().parse(job.progress);
  const lines = { checked: line ?? 0, rows: footer?.rows ?? null, replaced: replaced ?? false };
  return { id: job.id, key: job.request["key"], ...progressOf(job), progress: lines, ...job.result };
}

function asImport(job: Job) {
  const { lines, table, failed, errors } = ImportProgress.partial().parse(job.progress);
  return {
    id: job.id,
    ...progressOf(job),
    lines: lines ?? null,
    table: table ?? null,
    failed: failed ?? 0,
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
    "cache-control": "no-store",
  };
}

/** The body, as R2 takes it: it must know the length before. */
function lengthKnown(c: Context<HttpEnv>): ReadableStream {
  const { body } = c.req.raw;
  if (body === null || c.req.header("content-length") === undefined)
    throw new BadRequest("Send the file as the body, with a Content-Length.");
  return body;
}

/** An instant as a name. */
function stamp(): string {
  return new Date().toISOString().replaceAll(":", "-").replace(".", "-");
}

function nameIn(c: Context<HttpEnv>): string {
  const name = FileName.safeParse(c.req.param("name"));
  if (!name.success) throw new AppError("not_found", "There is no such backup.");
  return name.data;
}
