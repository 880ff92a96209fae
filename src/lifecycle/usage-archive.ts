// The format of the usage archive that is kept of a removed tenant: NDJSON files without personal data. Each file begins
// with a header that describes its lines and carries their checksum. The summary is written last and names all other
// files, so a summary proves that the archive is complete.
import * as z from "zod";
import { sha256Hex } from "../core/keys/credentials.ts";

export const ARCHIVE_VERSION = 1;

const archivedCall = z.strictObject({
  call: z.string(),
  tool: z.string(),
  units: z.int(),
  /** When the call was admitted, ISO 8601. */
  at: z.string(),
  /** The meter report that billed the call, or the carry-forward to a later invoice. */
  report: z.string().nullable(),
});
const archivedReport = z.strictObject({
  report: z.string(),
  /** The minute that the report belongs to at Stripe, ISO 8601. */
  slot: z.string(),
  units: z.int(),
  calls: z.int(),
  confirmedAt: z.string().nullable(),
  answer: z.string().nullable(),
});
export const kinds = ["calls", "reports"] as const;
export type ArchiveKind = (typeof kinds)[number];
const rowOf = { calls: archivedCall, reports: archivedReport } as const;

const Counts = z.strictObject({ rows: z.int(), units: z.int() });
export type Counts = z.infer<typeof Counts>;
export type Totals = Readonly<Record<ArchiveKind, Counts>>;

const Month = z.strictObject({ month: z.string(), calls: z.int(), units: z.int() });
export type Month = z.infer<typeof Month>;

const Part = Counts.extend({ kind: z.enum(kinds), part: z.int(), sha256: z.string() });
export type Part = z.infer<typeof Part>;

const About = z.strictObject({ archive: z.literal(ARCHIVE_VERSION), tenantId: z.string() });
const PartHeader = z.strictObject({ tollgate: About.extend(Part.shape) });
const SummaryHeader = z.strictObject({
  tollgate: About.extend({
    kind: z.literal("summary"),
    totals: z.strictObject({ calls: Counts, reports: Counts }),
    parts: z.array(Part),
    sha256: z.string(),
  }),
});

export interface Summary {
  totals: Totals;
  parts: readonly Part[];
  months: readonly Month[];
}

/** The object key of a part, or of the summary. */
export function archiveKey(tenantId: string, part: { kind: ArchiveKind; part: number } | "summary"): string {
  const name = part === "summary" ? part : `${part.kind}-${String(part.part).padStart(5, "0")}`;
  return `archive/${tenantId}/${name}.ndjson`;
}

/** Makes a part's file. `body`: its rows as lines, each with its line feed. */
export async function partFile(
  tenantId: string,
  { body, ...counts }: Omit<Part, "sha256"> & { body: string },
): Promise<{ text: string; part: Part }> {
  const part = { ...counts, sha256: await sha256Hex(body) };
  return { text: headed({ archive: ARCHIVE_VERSION, tenantId, ...part }, body), part };
}

export async function summaryFile(tenantId: string, { totals, parts, months }: Summary): Promise<string> {
  const body = months.map((month) => `${JSON.stringify(month)}\n`).join("");
  const sha256 = await sha256Hex(body);
  return headed({ archive: ARCHIVE_VERSION, tenantId, kind: "summary", totals, parts, sha256 }, body);
}

/** Whether a file is exactly the part that the summary names. */
export async function isPart(tenantId: string, part: Part, text: string): Promise<boolean> {
  const { header, body, lines } = split(text);
  const parsed = PartHeader.safeParse(header);
  if (!parsed.success || parsed.data.tollgate.tenantId !== tenantId) return false;
  const { kind, part: number, sha256 } = parsed.data.tollgate;
  if (kind !== part.kind || number !== part.part || sha256 !== part.sha256) return false;
  const rows = z.array(rowOf[kind]).safeParse(lines);
  if (!rows.success || sha256 !== (await sha256Hex(body))) return false;
  return rows.data.length === part.rows && unitsOf(rows.data) === part.units;
}

/** Reads a summary back. `undefined`: this is not the file that was written for this tenant. */
export async function readSummary(tenantId: string, text: string): Promise<Summary | undefined> {
  const { header, body, lines } = split(text);
  const parsed = SummaryHeader.safeParse(header);
  if (!parsed.success || parsed.data.tollgate.tenantId !== tenantId) return undefined;
  const { totals, parts, sha256 } = parsed.data.tollgate;
  const months = z.array(Month).safeParse(lines);
  return months.success && sha256 === (await sha256Hex(body)) ? { totals, parts, months: months.data } : undefined;
}

/** Whether the sums of a summary's parts and months equal its totals, and the totals equal the ledger's. */
export function addsUp({ totals, parts, months }: Summary, ledger: Totals): boolean {
  const same = (a: Counts, b: Counts): boolean => a.rows === b.rows && a.units === b.units;
  const inParts = kinds.every((kind) => {
    const own = parts.filter((part) => part.kind === kind);
    return same(totals[kind], { rows: sum(own.map(({ rows }) => rows)), units: unitsOf(own) });
  });
  const inMonths = same(totals.calls, { rows: sum(months.map(({ calls }) => calls)), units: unitsOf(months) });
  return inParts && inMonths && kinds.every((kind) => same(totals[kind], ledger[kind]));
}

function unitsOf(rows: readonly { units: number }[]): number {
  return sum(rows.map(({ units }) => units));
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}

function headed(tollgate: object, body: string): string {
  return `${JSON.stringify({ tollgate })}\n${body}`;
}

function split(text: string): { header: unknown; body: string; lines: unknown[] } {
  const end = text.indexOf("\n") + 1;
  const body = text.slice(end);
  try {
    const lines = body
      .split("\n")
      .filter((line) => line !== "")
      .map((line): unknown => JSON.parse(line));
    return { header: JSON.parse(text.slice(0, end)), body, lines };
  } catch {
    return { header: undefined, body, lines: [] };
  }
}
