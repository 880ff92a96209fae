// Backups, restores and imports of one tenant, in the tenant's object, where logins are opened. Each is a job of the
// control tables and is done piece by piece: a Workflow asks for the next piece until none is left. A piece ends by
// recording where the next one begins, so that any piece can be repeated, by anybody.
import { type Upload, abandonUpload, beginUpload, openUpload } from "./bucket.ts";
import { type JobsStore, type Job, jobsStore } from "./jobs-store.ts";
import { createContext } from "../control/context.ts";
import { tenantsOf } from "../control/tenants-store.ts";
import { forgetUndone } from "./history.ts";
import { AppError } from "../core/errors.ts";
import type { TenantId } from "../core/tenant.ts";
import { describeError, log } from "../log.ts";
import { importPiece } from "./import.ts";
import { type ArchiveHost, DONE, GOES_ON, JobRefused, type Work } from "./job.ts";
import { restorePiece } from "./restore.ts";
import { type ExportState, TenantExport, openSide } from "./export.ts";
import type { Piece } from "../moves/tenant-move.ts";

/** Of a job's pieces: short enough for one step of a Workflow, and long enough that a part is rarely filled with blanks. */
const PIECE_MS = 8_000;
const PROVISIONING_WAIT_MS = 1_000;

export class TenantArchive {
  readonly #env: Env;
  readonly #tenantId: TenantId;
  readonly #host: ArchiveHost;

  constructor(env: Env, tenantId: TenantId, host: ArchiveHost) {
    this.#env = env;
    this.#tenantId = tenantId;
    this.#host = host;
  }

  /** Does the next piece of a job. Throws when it could not be done; then it is to be asked for again. */
  async advance(jobId: number): Promise<Piece> {
    const jobs = jobsStore(createContext(this.#env).control);
    const job = await jobs.get(jobId);
    if (job === undefined || job.tenantId !== this.#tenantId || job.state !== "running") return DONE;
    try {
      return await this.#piece(jobs, job);
    } catch (error) {
      log("warn", "job_piece_failed", { tenantId: this.#tenantId, job: jobId, error: describeError(error) });
      if (error instanceof JobRefused) {
        await jobs.finish(jobId, { error: error.message });
        return DONE;
      }
      if (await jobs.recordFailure(jobId, "A piece failed and is tried again.")) throw error;
      return DONE;
    }
  }

  async #piece(jobs: JobsStore, job: Job): Promise<Piece> {
    let current = job;
    const work: Work = {
      env: this.#env,
      tenantId: this.#tenantId,
      host: this.#host,
      job,
      jobs,
      untilMs: Date.now() + PIECE_MS,
      side: async () => openSide(this.#env, this.#tenantId, (await this.#host.place()).placement),
      keep: async (progress) => {
        if (!(await jobs.progress(current, progress))) throw new AppError("conflict", "somebody else has gone on");
        current = { ...current, version: current.version + 1 };
      },
      finish: (result) => jobs.finish(job.id, { result }),
    };
    if (Object.keys(job.progress).length === 0) {
      // What a new tenant starts with must be there before: it would come into what is put back.
      const tenant = await tenantsOf(this.#env).summary(this.#tenantId);
      if (tenant?.state === "provisioning") return { done: false, waitMs: PROVISIONING_WAIT_MS };
    }
    switch (job.kind) {
      case "backup":
        return backUp(work);
      case "restore":
        return restorePiece(work);
      case "import":
        return importPiece(work);
      default:
        return job.kind satisfies never;
    }
  }

  /** The tenant as a backup's file, made as it is read. Without its footer it is not whole. */
  async stream(): Promise<ReadableStream<Uint8Array>> {
    const side = await openSide(this.#env, this.#tenantId, (await this.#host.place()).placement);
    const exporting = await TenantExport.begin(this.#env, side, null);
    const { readable, writable } = new IdentityTransformStream();
    const write = async (): Promise<void> => {
      const writer = writable.getWriter();
      try {
        for (let unit = await exporting.next(); unit !== undefined; unit = await exporting.next()) {
          if ((await this.#host.place()).placement.id !== side.placement.id)
            throw new JobRefused("the tenant has moved");
          await writer.write(unit);
        }
        await writer.close();
      } catch (error) {
        // Whoever reads may have gone; otherwise the stream breaks off before the footer.
        log("warn", "export_broken_off", { tenantId: this.#tenantId, error: describeError(error) });
        await writer.abort(error).catch(() => undefined);
      }
    };
    void write();
    return readable;
  }
}

interface BackupProgress {
  upload?: Upload;
  exporting?: ExportState;
  /** All parts are there. */
  result?: object;
}

async function backUp(work: Work): Promise<Piece> {
  const { env, job } = work;
  const { key, at } = job.request as { key: string; at?: string };
  const kept = job.progress as BackupProgress;
  if (kept.upload !== undefined && kept.result !== undefined) {
    const sizeBytes = await openUpload(env.BACKUPS, kept.upload).complete();
    if (at !== undefined) await forgetUndone(await work.side(), job.id);
    await work.finish({ sizeBytes, ...kept.result });
    return DONE;
  }
  const side = await work.side();
  let { upload, exporting: state } = kept;
  if (upload !== undefined && state?.placementId !== side.placement.id) {
    await abandonUpload(env.BACKUPS, upload);
    upload = undefined;
    state = undefined;
  }
  const exporting =
    state === undefined
      ? await TenantExport.begin(env, side, at === undefined ? null : { since: at, job: job.id })
      : new TenantExport(env, side, state);
  const writer = openUpload(env.BACKUPS, (upload ??= await beginUpload(env.BACKUPS, key)));
  while (Date.now() < work.untilMs) {
    const unit = await exporting.next();
    if ((await work.host.place()).placement.id !== side.placement.id) return GOES_ON;
    if (unit !== undefined) {
      await writer.write(unit);
      continue;
    }
    const { recoveryPoint, strategy } = exporting.header;
    await work.keep({ upload: await writer.flush(), result: { recoveryPoint, strategy, ...exporting.footer } });
    return GOES_ON;
  }
  if (writer.lacking > 0) await writer.write(exporting.blank(writer.lacking));
  await work.keep({ upload: await writer.flush(), exporting: exporting.state });
  return GOES_ON;
}
