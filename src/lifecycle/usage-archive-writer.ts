// Writes the archive of a removed tenant's usage part by part, and reads it back. A part's position determines its name and
// content, so any part can be written twice. Nothing of the tenant is dropped before the whole archive was read back and
// its sums equal those of the ledger.
import { type ArchiveCursor, usageArchiveStore } from "./usage-archive-store.ts";
import type { Context } from "../control/context.ts";
import { putFile } from "../backups/bucket.ts";
import { available } from "../adapters/files.ts";
import { AppError } from "../core/errors.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import {
  type ArchiveKind,
  type Part,
  addsUp,
  archiveKey,
  isPart,
  kinds,
  partFile,
  readSummary,
  summaryFile,
} from "./usage-archive.ts";

/** Where the next part begins, and the parts written so far. */
interface Written {
  kind?: ArchiveKind;
  after?: ArchiveCursor | null;
  parts?: Part[];
}

/** Writes the next part, or the summary. Returns the position of the next one; `undefined` when the archive is complete. */
export async function writeNext(context: Context, tenantId: TenantId, progress: Written): Promise<Written | undefined> {
  const { kind = kinds[0], after = null, parts = [] } = progress;
  const archive = usageArchiveStore(context.control);
  const page = await archive.page(tenantId, kind, after);
  if (page.rows > 0) {
    const number = parts.filter((part) => part.kind === kind).length + 1;
    const { body, rows, units } = page;
    const { text, part } = await partFile(tenantId, { kind, part: number, rows, units, body });
    await put(context.env, archiveKey(tenantId, part), text);
    parts.push(part);
  }
  if (page.next !== null) return { kind, after: page.next, parts };
  const nextKind = kinds[kinds.indexOf(kind) + 1];
  if (nextKind !== undefined) return { kind: nextKind, after: null, parts };
  const { totals, months } = await archive.totals(tenantId);
  await put(context.env, archiveKey(tenantId, "summary"), await summaryFile(tenantId, { totals, parts, months }));
  return undefined;
}

/**
 * Reads the next part back. Returns the position of the next one, or what the archive holds once all of it was read. Throws
 * when the archive differs from the ledger; it must then be written again.
 */
export async function checkNext(
  context: Context,
  tenantId: TenantId,
  { checked = 0 }: { checked?: number },
): Promise<{ continues: { checked: number } } | { holds: object }> {
  const key = archiveKey(tenantId, "summary");
  const summary = await readSummary(tenantId, await get(context.env, key));
  if (summary === undefined) throw new AppError("internal", "the archive's summary is not what was written");
  const part = summary.parts[checked];
  if (part !== undefined) {
    if (!(await isPart(tenantId, part, await get(context.env, archiveKey(tenantId, part)))))
      throw new AppError("internal", `part ${part.part} of the archived ${part.kind} is not what was written`);
    return { continues: { checked: checked + 1 } };
  }
  const { totals } = await usageArchiveStore(context.control).totals(tenantId);
  if (!addsUp(summary, totals)) throw new AppError("internal", "the archive does not come to what the ledger has");
  return { holds: { key, calls: totals.calls.rows, units: totals.calls.units, reports: totals.reports.rows } };
}

async function put(env: Env, key: string, text: string): Promise<void> {
  await putFile(env.BACKUPS, key, new TextEncoder().encode(text));
}

async function get(env: Env, key: string): Promise<string> {
  const object = await available(() => env.BACKUPS.get(key));
  if (object === null) throw new AppError("internal", "a file of the archive is missing");
  return await available(() => object.text());
}
