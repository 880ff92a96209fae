// Does the steps of one tenant's jobs (backups, restores, imports), in the tenant's object, which decrypts logins. A
// Workflow asks for the next step until none is left. A step ends by recording in the control tables where the next one
// begins, so any step can be repeated.
import { type Upload, abandonUpload, beginUpload, openUpload } from "./bucket.ts";
import { type JobsStore, type Job, jobsStore } from "./jobs-store.ts";
import type { Context } from "../control/context.ts";
import { tenantsStore } from "../control/tenants-store.ts";
import { forgetUndone } from "./history.ts";
import { AppError, type ErrorCode, errorCode, isPermanent, outageOf, reasonOf } from "../core/errors.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { withTimeout } from "../adapters/timeout.ts";
import { describeError, log } from "../log.ts";
import { importStep } from "./import.ts";
import { type JobHost, JobRefused, type JobRun } from "./job.ts";
import { restoreStep } from "./restore.ts";
import { type ExportState, TenantExport, openSide } from "./export.ts";
import { DONE, NEXT, type Step, nextAfter } from "../control/work.ts";

/** Length of a step: short enough for one RPC, long enough to fill a part of an upload, which saves padding. */
const STEP_MS = 8_000;
const PROVISIONING_WAIT_MS = 1_000;
/** A client that does not read a part within this time has gone. Its export ends, so that the next one can begin. */
const READER_SILENCE_MS = 300_000;
/** Failures that no repetition mends, in words for the operator. */
const permanent: Readonly<Partial<Record<ErrorCode, string>>> = {
  bad_request: "The file or a document of the tenant breaks a rule of its format.",
  body_too_large: "A document is larger than Tollgate stores.",
  result_too_large: "A document is too large for a line of a backup.",
  text_invalid: "A text contains NUL or half of a surrogate pair, which cannot be stored.",
  tenant_unknown: "The tenant does not exist.",
  tenant_gone: "The tenant was removed.",
};
const REFUSED = "The database provider refused it, and would refuse it again. The log names the cause.";
export class BackupJobs {
  readonly #context: Context;
  readonly #tenantId: TenantId;
  readonly #host: JobHost;
  /** Whether an export is being read. */
  #exports = false;

  constructor(context: Context, tenantId: TenantId, host: JobHost) {
    this.#context = context;
    this.#tenantId = tenantId;
    this.#host = host;
  }

  /** Does the next step of a job. A step that fails throws and can be repeated. */
  async advance(jobId: number): Promise<Step> {
    const jobs = jobsStore(this.#context.control);
    const job = await jobs.get(jobId);
    if (job === undefined || job.tenantId !== this.#tenantId || job.state !== "running") return DONE;
    try {
      return await this.#step(jobs, job);
    } catch (error) {
      log("warn", "job_step_failed", { tenantId: this.#tenantId, job: jobId, error: describeError(error) });
      if (error instanceof JobRefused) {
        await jobs.finish(jobId, { error: error.message });
        return DONE;
      }
      const code = errorCode(error);
      const forGood = permanent[code] ?? (isPermanent(error) ? REFUSED : undefined);
      if (forGood !== undefined) {
        await jobs.finish(jobId, { error: forGood });
        return DONE;
      }
      const isOutage = outageOf(error) !== undefined;
      if (await jobs.recordFailure(jobId, `A step failed. ${reasonOf(error)}`, { isOutage })) throw error;
      return DONE;
    }
  }

  async #step(jobs: JobsStore, job: Job): Promise<Step> {
    let current = job;
    const work: JobRun = {
      context: this.#context,
      tenantId: this.#tenantId,
      host: this.#host,
      job,
      jobs,
      untilMs: Date.now() + STEP_MS,
      side: async () => openSide(this.#context, this.#tenantId, (await this.#host.withPlacement()).placement),
      keep: async (progress) => {
        if (!(await jobs.progress(current, progress)))
          throw new AppError("conflict", "another step has recorded its progress");
        current = { ...current, version: current.version + 1 };
      },
      finish: (result) => jobs.finish(job.id, { result }),
    };
    if (Object.keys(job.progress).length === 0) {
      // Wait for the rows that a new tenant starts with: written later, they would mix with the restored ones.
      const tenant = await tenantsStore(this.#context.control).summary(this.#tenantId);
      if (tenant?.state === "provisioning") return nextAfter(PROVISIONING_WAIT_MS);
    }
    switch (job.kind) {
      case "backup":
        return backUp(work);
      case "restore":
        return restoreStep(work);
      case "import":
        return importStep(work);
      default:
        return job.kind satisfies never;
    }
  }

  /**
   * Streams the tenant as a backup file, made while it is read. A file without its footer is incomplete. One at a time:
   * several would slow the tenant's neighbours in the database. `export_runs`: another one is not finished.
   */
  async stream(): Promise<ReadableStream<Uint8Array> | "export_runs"> {
    if (this.#exports) return "export_runs";
    this.#exports = true;
    try {
      return await this.#stream(() => (this.#exports = false));
    } catch (error) {
      this.#exports = false;
      throw error;
    }
  }

  async #stream(ended: () => void): Promise<ReadableStream<Uint8Array>> {
    const side = await openSide(this.#context, this.#tenantId, (await this.#host.withPlacement()).placement);
    const exporting = await TenantExport.begin(this.#context, side, { earlier: null, audit: true });
    const next = async (): Promise<Uint8Array | undefined> => {
      const unit = await exporting.next();
      if ((await this.#host.withPlacement()).placement.id !== side.placement.id)
        throw new JobRefused("the tenant has moved. Start the export again");
      return unit;
    };
    // The answer's status can still say what is wrong until the first rows are read. Later, only the missing footer can.
    const head: Uint8Array[] = [];
    while (head.length < HEAD_UNITS) {
      const unit = await next();
      if (unit === undefined) break;
      if (unit.length > 0) head.push(unit);
    }
    const { readable, writable } = new IdentityTransformStream();
    const write = async (): Promise<void> => {
      const writer = writable.getWriter();
      try {
        for (const unit of head) await withTimeout(READER_SILENCE_MS, writer.write(unit));
        for (let unit = await next(); unit !== undefined; unit = await next())
          await withTimeout(READER_SILENCE_MS, writer.write(unit));
        await withTimeout(READER_SILENCE_MS, writer.close());
      } catch (error) {
        // The client may have gone. Otherwise the stream ends without the footer, which shows that it is incomplete.
        log("warn", "export_broken_off", { tenantId: this.#tenantId, error: describeError(error) });
        await writer.abort(error).catch(() => undefined);
      } finally {
        ended();
      }
    };
    void write();
    return readable;
  }
}

/** The header and the first rows. */
const HEAD_UNITS = 2;

interface BackupProgress {
  upload?: Upload;
  exporting?: ExportState;
  /** Set once all parts are uploaded. */
  result?: object;
}

async function backUp(work: JobRun): Promise<Step> {
  const { env } = work.context;
  const { job } = work;
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
  const earlier = at === undefined ? null : { since: at, job: job.id };
  const exporting =
    state === undefined
      ? await TenantExport.begin(work.context, side, { earlier, audit: false })
      : new TenantExport(work.context, side, state);
  const writer = openUpload(env.BACKUPS, (upload ??= await beginUpload(env.BACKUPS, key)));
  while (Date.now() < work.untilMs) {
    const unit = await exporting.next();
    if ((await work.host.withPlacement()).placement.id !== side.placement.id) return NEXT;
    if (unit !== undefined) {
      await writer.write(unit);
      continue;
    }
    const { recoveryPoint, strategy } = exporting.header;
    await work.keep({ upload: await writer.flush(), result: { recoveryPoint, strategy, ...exporting.footer } });
    return NEXT;
  }
  if (writer.lacking > 0) await writer.write(exporting.blank(writer.lacking));
  await work.keep({ upload: await writer.flush(), exporting: exporting.state });
  return NEXT;
}
