// Puts a tenant's rows and documents back from a backup's file. All rows are laid ready beside the tenant's, and the file
// is checked to its last byte, before anything changes; then the tenant's statements wait for the one transaction that
// makes its tables equal to the file. The log notes that transaction, so that it can be undone: by a restore of the
// moment before it. Documents follow; those that the file does not have stay.
import { readLines, writeDocument } from "./bucket.ts";
import { sqlStateOf } from "../adapters/neon.ts";
import { lackingIn, tablesOf } from "../tenant-db/copy.ts";
import { type StagedRow, beginTry, forgetStaged, REPLACED_WITHIN_MS, replaceRows, stageRows } from "./staged-rows.ts";
import { clockOf } from "./history.ts";
import { openTenantDb } from "../tenant-db/dispatch.ts";
import { log } from "../log.ts";
import { type Footer, type Header, Tally, type TallyState, cellsOf, damages, parseLine } from "./backup-file.ts";
import { DONE, GOES_ON, JobRefused, type Work } from "./job.ts";
import type { Side } from "./export.ts";
import type { Piece } from "../moves/tenant-move.ts";

/** How long the tenant's statements may take to end before its rows are replaced. */
const DRAIN_MS = 1_000;
const BUSY_WAIT_MS = 500;
/** Each holds the tenant back for a minute in the worst case. */
const MAX_TRIES = 3;
const WAIT_MS = 500;
/** Of rows in one request, as text. */
const STAGE_CHARS = 1_000_000;

/** In the order of what happens. */
interface RestoreRequest {
  /** Backups that must stand before: the one of a point in time, and the one of what the tenant has now. */
  waitsFor: number[];
  key: string;
  /** Whose backup it is said to be. */
  from: string;
  safetyBackup: string | null;
}

interface RestoreProgress {
  placementId?: number;
  offset: number;
  line: number;
  tally: TallyState;
  header?: Header;
  /** Of the first document's line. */
  documentsAt?: number;
  /** All of the file was laid ready and is as its footer says. */
  footer?: Footer;
  /** The last instant before the rows were replaced, and how often that was tried. */
  undoAt?: string;
  tries?: number;
  replaced?: true;
}

export async function restorePiece(work: Work): Promise<Piece> {
  const { job, jobs } = work;
  const request = job.request as unknown as RestoreRequest;
  const progress = "tally" in job.progress ? (job.progress as unknown as RestoreProgress) : undefined;
  if (progress === undefined) {
    for (const id of request.waitsFor) {
      const backup = await jobs.get(id);
      if (backup?.state === "running") return { done: false, waitMs: WAIT_MS };
      if (backup?.state !== "done")
        throw new JobRefused(`The backup before it failed: ${backup?.error ?? "it is gone"}`);
    }
  }
  const side = await work.side();
  try {
    if (progress === undefined || (progress.placementId !== side.placement.id && progress.replaced === undefined)) {
      await forgetStaged(side.owner, staged(work));
      return await stage(work, side, { offset: 0, line: 0, tally: new Tally().toJSON() }, request);
    }
    if (progress.footer === undefined) return await stage(work, side, progress, request);
    if (progress.replaced === undefined) return await replace(work, side, progress, progress.footer);
    return await putDocuments(work, progress, request);
  } catch (error) {
    if (error instanceof JobRefused) await forgetStaged(side.owner, staged(work));
    throw error;
  }
}

const staged = ({ tenantId, job }: Work) => ({ tenantId, job: job.id });

/** Reads on, checks each line, and lays its row ready. */
async function stage(work: Work, side: Side, from: RestoreProgress, request: RestoreRequest): Promise<Piece> {
  const tally = new Tally(from.tally);
  let { offset, line, header, documentsAt } = from;
  let footer: Footer | undefined;
  while (footer === undefined && Date.now() < work.untilMs) {
    const window = await readLines(work.env.BACKUPS, request.key, offset);
    if (window === undefined) throw new JobRefused("There is no such file.");
    let rows: StagedRow[] = [];
    let chars = 0;
    for (const { bytes, text } of window.lines) {
      line += 1;
      const refuse = (why: string): never => fail(`Line ${line} of the file is wrong: ${why}. Nothing has changed.`);
      if (footer !== undefined) refuse("something follows the footer");
      const parsed = parseLine(text);
      if (header === undefined && parsed.kind !== "header") refuse("a file begins with its header");
      switch (parsed.kind) {
        case "header":
          if (header !== undefined) refuse("it is a second header");
          header = parsed.header;
          await refuseOthers(side, header, request);
          tally.add(bytes, "other");
          break;
        case "row": {
          const { table, cells } = parsed;
          const known = header?.tables.find(({ name }) => name === table) ?? refuse("the header has no such table");
          const found = cellsOf(
            cells,
            known.columns.map(({ name }) => name),
          );
          if ("wrong" in found || !Array.isArray(cells))
            return refuse("wrong" in found ? found.wrong : "it is no list");
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
        await stageRows(side.owner, staged(work), rows);
        rows = [];
        chars = 0;
      }
    }
    if (rows.length > 0) await stageRows(side.owner, staged(work), rows);
    offset = window.end;
    if (window.atEnd && footer === undefined) fail("The file is cut off: it has no footer. Nothing has changed.");
    if (footer !== undefined && !window.atEnd) fail("Something follows the footer. Nothing has changed.");
  }
  await work.keep({
    placementId: side.placement.id,
    offset,
    line,
    tally: tally.toJSON(),
    header,
    documentsAt,
    footer,
  } satisfies Record<keyof Omit<RestoreProgress, "undoAt" | "tries" | "replaced">, unknown>);
  return GOES_ON;
}

async function refuseOthers(side: Side, header: Header, request: RestoreRequest): Promise<void> {
  if (header.tenant !== request.from) fail(`The file is of tenant ${header.tenant}, not of ${request.from}.`);
  const targets = await tablesOf(side.asTenant);
  const lacking = lackingIn(targets, header.tables);
  if (lacking.length > 0)
    fail(`The file has what the tenant's tables lack: ${lacking.join(", ")}. Migrate them first.`);
}

async function replace(work: Work, side: Side, progress: RestoreProgress, footer: Footer): Promise<Piece> {
  const { env, host, tenantId, job } = work;
  const targets = await tablesOf(side.asTenant);
  const tables = targets.flatMap((target) => {
    const file = progress.header?.tables.find(({ name }) => name === target.name);
    return file === undefined ? [] : [{ file, target, rows: footer.tables[file.name]?.lines ?? 0 }];
  });
  const tries = (progress.tries ?? 0) + 1;
  if (tries > MAX_TRIES) fail("Too many rows differ to put them back while the tenant waits. Nothing has changed.");
  if (!(await host.pause(DRAIN_MS))) return { done: false, waitMs: BUSY_WAIT_MS };
  const startedAtMs = Date.now();
  try {
    // Kept before: when the answer of the transaction is lost, this is still what undoes it.
    const undoAt = progress.undoAt ?? (await clockOf(side.owner));
    await work.keep({ ...progress, undoAt, tries });
    if (!(await beginTry(side.owner, staged(work), tries))) {
      const db = (await openTenantDb(env, tenantId, side.placement)).forCall(AbortSignal.timeout(REPLACED_WITHIN_MS));
      await replaceRows((statements) => db.transaction(statements), { job: job.id, tries }, tables);
    }
    await work.keep({ ...progress, undoAt, tries, replaced: true, offset: progress.documentsAt ?? -1 });
    await forgetStaged(side.owner, staged(work));
  } catch (error) {
    const sqlState = sqlStateOf(error) ?? "";
    if (/^(22|23|54)/.test(sqlState))
      fail(`The tables do not take these rows (SQLSTATE ${sqlState}). Nothing has changed.`);
    throw error;
  } finally {
    host.resume();
    log("info", "tenant_rows_replaced", { tenantId, job: job.id, pauseMs: Date.now() - startedAtMs });
  }
  return GOES_ON;
}

/** Writes the documents back, and ends the job. */
async function putDocuments(work: Work, progress: RestoreProgress, request: RestoreRequest): Promise<Piece> {
  const { env, tenantId } = work;
  let { offset } = progress;
  while (offset >= 0 && Date.now() < work.untilMs) {
    const window = await readLines(env.BACKUPS, request.key, offset);
    if (window === undefined) throw new JobRefused("The rows were put back, but the file with the documents is gone.");
    for (const { text } of window.lines) {
      const parsed = parseLine(text);
      if (parsed.kind === "document") await writeDocument(env.FILES, tenantId, parsed.document, { keep: false });
    }
    offset = window.atEnd ? -1 : window.end;
  }
  if (offset >= 0) {
    await work.keep({ ...progress, offset });
    return GOES_ON;
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
