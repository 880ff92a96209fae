// Restores a tenant's rows and documents from a backup file. Tollgate first stages all rows beside the tenant's and checks
// the file to its last byte. Then it pauses the tenant's statements for the one transaction that makes the tables equal to
// the file. The change log records that transaction, so a restore to the moment before it undoes it. Documents come last;
// documents that the file does not contain stay.
import * as z from "zod";
import { readLines, writeDocument } from "./bucket.ts";
import { sqlStateOf } from "../adapters/neon.ts";
import { lackingIn, tablesOf } from "../tenant-db/copy.ts";
import {
  type StagedRow,
  beginAttempt,
  deleteStaged,
  REPLACE_ANSWER_TIMEOUT_MS,
  replaceRows,
  stageRows,
} from "./staged-rows.ts";
import { clockOf } from "./history.ts";
import { openTenantDb } from "../tenant-db/dispatch.ts";
import { log } from "../log.ts";
import { Footer, Header, Tally, TallyState, cellsOf, damages, parseLine } from "./file/backup-file.ts";
import { JobRefused, type JobRun } from "./job.ts";
import type { Side } from "./export.ts";
import { DONE, NEXT, type Step } from "../control/work.ts";

/** How long running statements may take to end before the rows are replaced. Longer ones make the restore try later. */
const DRAIN_MS = 1_000;
/** Pause before the next attempt when statements were still running. */
const BUSY_WAIT_MS = 500;
/** Each attempt pauses the tenant for a minute in the worst case. */
const MAX_ATTEMPTS = 3;
/** Poll interval while the backups that must come first are running. */
const BACKUP_POLL_MS = 500;
/** Characters of rows in one request: far below the size limit of a request to Neon. */
const STAGE_CHARS = 1_000_000;

export const RestoreRequest = z.object({
  /** Backup jobs that must be done first: of a point in time, and of the rows that the restore replaces. */
  waitsFor: z.array(z.int()),
  /** The file in the bucket. */
  key: z.string(),
  /** The tenant whose backup the file must be. */
  from: z.string(),
  /** Name of the backup that was taken of the rows to be replaced. */
  safetyBackup: z.string().nullable(),
});
export type RestoreRequest = z.infer<typeof RestoreRequest>;

/** Where a restore stands. Fields are set in this order. */
export const RestoreProgress = z.object({
  placementId: z.int().exactOptional(),
  offset: z.int(),
  line: z.int(),
  tally: TallyState,
  header: Header.exactOptional(),
  /** Offset of the first document's line. */
  documentsAt: z.int().exactOptional(),
  /** Set when all rows are staged and the file matches its footer. */
  footer: Footer.exactOptional(),
  /** The last instant before the rows were replaced. */
  undoAt: z.string().exactOptional(),
  attempts: z.int().exactOptional(),
  replaced: z.literal(true).exactOptional(),
});
type RestoreProgress = z.infer<typeof RestoreProgress>;

/** Runs the next step of a restore. Throws `JobRefused` when the file or the tenant's tables do not allow it. */
export async function restoreStep(work: JobRun): Promise<Step> {
  const { job, jobs } = work;
  const request = RestoreRequest.parse(job.request);
  const progress = "tally" in job.progress ? RestoreProgress.parse(job.progress) : undefined;
  if (progress === undefined) {
    for (const id of request.waitsFor) {
      const backup = await jobs.get(id);
      if (backup?.state === "running") return { done: false, waitMs: BACKUP_POLL_MS };
      if (backup?.state !== "done")
        throw new JobRefused(
          backup?.state === "cancelled"
            ? "The backup that must come first was cancelled."
            : `The backup that must come first failed: ${backup?.error ?? "it no longer exists"}`,
        );
    }
  }
  const side = await work.side();
  try {
    if (progress === undefined || (progress.placementId !== side.placement.id && progress.replaced === undefined)) {
      await deleteStaged(side.owner, jobOf(work));
      return await stage(work, side, { offset: 0, line: 0, tally: new Tally().toJSON() }, request);
    }
    if (progress.footer === undefined) return await stage(work, side, progress, request);
    if (progress.replaced === undefined) return await replace(work, side, progress, progress.footer);
    return await restoreDocuments(work, progress, request);
  } catch (error) {
    if (error instanceof JobRefused) await deleteStaged(side.owner, jobOf(work));
    throw error;
  }
}

const jobOf = ({ tenantId, job }: JobRun) => ({ tenantId, job: job.id });

/** Reads the next lines, checks each, and stages its row. */
async function stage(work: JobRun, side: Side, from: RestoreProgress, request: RestoreRequest): Promise<Step> {
  const tally = new Tally(from.tally);
  let { offset, line, header, documentsAt } = from;
  let footer: Footer | undefined;
  while (footer === undefined && Date.now() < work.untilMs) {
    const window = await readLines(work.context.env.BACKUPS, request.key, offset);
    if (window === undefined) throw new JobRefused("The file does not exist.");
    let rows: StagedRow[] = [];
    let chars = 0;
    for (const { bytes, content } of window.lines) {
      line += 1;
      const refuse = (why: string): never => fail(`Line ${line} of the file is wrong. ${why} Nothing has changed.`);
      if (footer !== undefined) refuse("A line follows the footer.");
      const text = "text" in content ? content.text : refuse(content.refused);
      const parsed = parseLine(text);
      if (header === undefined && parsed.kind !== "header") refuse("The first line must be the header.");
      switch (parsed.kind) {
        case "header":
          if (header !== undefined) refuse("The file has a second header here.");
          header = parsed.header;
          await refuseForeign(side, header, request);
          tally.add(bytes, "other");
          break;
        case "row": {
          const { table, cells } = parsed;
          const known =
            header?.tables.find(({ name }) => name === table) ?? refuse("The header does not list the table.");
          const found = cellsOf(cells, known.columns);
          if ("wrong" in found || !("list" in cells))
            return refuse("wrong" in found ? found.wrong : "The values are not a list.");
          rows.push({ line, table, cells: found.values });
          tally.add(bytes, { table, rows: 1 });
          chars += text.length;
          break;
        }
        case "document":
          documentsAt ??= offset + bytes.byteOffset - (window.lines[0]?.bytes.byteOffset ?? 0);
          tally.add(bytes, { documents: 1 });
          break;
        case "footer": {
          const wrong = damages(tally.footer(header?.tables ?? []), parsed.footer);
          if (wrong.length > 0) fail(`The file is damaged: ${wrong.join("; ")}. Nothing has changed.`);
          ({ footer } = parsed);
          break;
        }
        case "blank":
          tally.add(bytes, "other");
          break;
        case "bad":
          return refuse(parsed.reason);
        default:
          parsed satisfies never;
      }
      if (chars > STAGE_CHARS) {
        await stageRows(side.owner, jobOf(work), rows);
        rows = [];
        chars = 0;
      }
    }
    if (rows.length > 0) await stageRows(side.owner, jobOf(work), rows);
    offset = window.end;
    if (window.atEnd && footer === undefined) fail("The file is cut off: the footer is missing. Nothing has changed.");
    if (footer !== undefined && !window.atEnd) fail("A line follows the footer. Nothing has changed.");
  }
  await work.keep({
    placementId: side.placement.id,
    offset,
    line,
    tally: tally.toJSON(),
    header,
    documentsAt,
    footer,
  } satisfies Record<keyof Omit<RestoreProgress, "undoAt" | "attempts" | "replaced">, unknown>);
  return NEXT;
}

/** Refuses a file of another tenant, and a file with tables or columns that the tenant lacks. */
async function refuseForeign(side: Side, header: Header, request: RestoreRequest): Promise<void> {
  if (header.tenant !== request.from) fail(`The file belongs to tenant ${header.tenant}, not to ${request.from}.`);
  const targets = await tablesOf(side.asTenant);
  const lacking = lackingIn(targets, header.tables);
  if (lacking.length > 0)
    fail(`The tenant's tables lack ${lacking.join(", ")}, which the file has. Migrate the tenant first.`);
}

/** Pauses the tenant and replaces its rows in one transaction. */
async function replace(work: JobRun, side: Side, progress: RestoreProgress, footer: Footer): Promise<Step> {
  const { host, tenantId, job } = work;
  const { env } = work.context;
  const targets = await tablesOf(side.asTenant);
  const tables = targets.flatMap((target) => {
    const file = progress.header?.tables.find(({ name }) => name === target.name);
    return file === undefined ? [] : [{ file, target, rows: footer.tables[file.name]?.lines ?? 0 }];
  });
  const attempt = (progress.attempts ?? 0) + 1;
  if (attempt > MAX_ATTEMPTS)
    fail("Too many rows differ to replace them while the tenant is paused. Nothing has changed.");
  if (!(await host.pause(DRAIN_MS))) return { done: false, waitMs: BUSY_WAIT_MS };
  const startedAtMs = Date.now();
  try {
    // Recorded first: if the answer of the transaction is lost, this instant still undoes it.
    const undoAt = progress.undoAt ?? (await clockOf(side.owner));
    await work.keep({ ...progress, undoAt, attempts: attempt });
    if (!(await beginAttempt(side.owner, jobOf(work), attempt))) {
      const db = (await openTenantDb(env, tenantId, side.placement)).forCall(
        AbortSignal.timeout(REPLACE_ANSWER_TIMEOUT_MS),
      );
      await replaceRows((statements) => db.transaction(statements), { job: job.id, attempt }, tables);
    }
    await work.keep({ ...progress, undoAt, attempts: attempt, replaced: true, offset: progress.documentsAt ?? -1 });
    await deleteStaged(side.owner, jobOf(work));
  } catch (error) {
    const sqlState = sqlStateOf(error) ?? "";
    if (/^(22|23|54)/.test(sqlState)) fail(`The tables refused the rows (SQLSTATE ${sqlState}). Nothing has changed.`);
    throw error;
  } finally {
    host.resume();
    log("info", "tenant_rows_replaced", { tenantId, job: job.id, pauseMs: Date.now() - startedAtMs });
  }
  return NEXT;
}

/** Restores the documents, then ends the job. */
async function restoreDocuments(work: JobRun, progress: RestoreProgress, request: RestoreRequest): Promise<Step> {
  const { tenantId } = work;
  const { env } = work.context;
  let { offset } = progress;
  while (offset >= 0 && Date.now() < work.untilMs) {
    const window = await readLines(env.BACKUPS, request.key, offset);
    if (window === undefined)
      throw new JobRefused("The rows were restored, but the file with the documents no longer exists.");
    for (const { content } of window.lines) {
      const parsed = parseLine("text" in content ? content.text : "");
      if (parsed.kind === "document") await writeDocument(env.FILES, tenantId, parsed.document, { keep: false });
    }
    offset = window.atEnd ? -1 : window.end;
  }
  if (offset >= 0) {
    await work.keep({ ...progress, offset });
    return NEXT;
  }
  const { footer, undoAt } = progress;
  await work.finish({
    rows: footer?.rows,
    documents: footer?.documents.lines,
    sha256: footer?.sha256,
    undoAt,
    safetyBackup: request.safetyBackup,
  });
  return DONE;
}

function fail(why: string): never {
  throw new JobRefused(why);
}
