// Exports a tenant as a backup file, one unit of lines at a time: header, rows as of one moment, documents, footer. What a
// customer downloads also has the tenant's audit log, as its people see it. A restore skips these lines.
// Between two units the state is plain JSON, so that any later step can resume the export.
// Invariant: one export reads one placement. After a move the old placement's change log no longer describes the rows,
// so the export starts again.
import * as z from "zod";
import type { Context } from "../control/context.ts";
import { readDocuments } from "./bucket.ts";
import { placementsStore } from "../control/placements-store.ts";
import { tenantsStore } from "../control/tenants-store.ts";
import { openTenantDb, ownerUrl } from "../tenant-db/dispatch.ts";
import { type ControlDatabase, connectNeon } from "../adapters/neon.ts";
import { type AsTenant, Key, Table, tablesOf } from "../tenant-db/copy.ts";
import {
  type History,
  RecoveryPoint,
  collectUndone,
  fileColumns,
  readChunkAt,
  readCollected,
  recoveryPoint,
} from "./history.ts";
import { asTenantSees } from "../identity/audit/audit.ts";
import { auditAnswer } from "../identity/audit/api.ts";
import { auditStore } from "../identity/audit/audit-store.ts";
import {
  auditLine,
  type Footer,
  Header,
  Tally,
  TallyState,
  documentLine,
  footerLine,
  headerLine,
} from "./file/backup-file.ts";
import { AppError } from "../core/errors.ts";
import { type Placement, ownName } from "../core/tenant/placement.ts";
import type { TenantId } from "../core/tenant/tenant.ts";

/** A connection to one placement of the tenant: the change log as its owner, and the tables as the tenant. */
export interface Side extends History {
  placement: Placement;
  asTenant: AsTenant;
}

/** The progress of an export. */
export const ExportState = z.object({
  placementId: z.int(),
  header: Header,
  tables: z.array(Table),
  point: RecoveryPoint,
  /** What the next unit holds. `after` is the last key, row or path of the unit before. */
  next: z.discriminatedUnion("part", [
    z.object({ part: z.enum(["header", "footer", "end"]) }),
    z.object({ part: z.literal("log"), after: z.number() }),
    z.object({ part: z.literal("rows"), table: z.int(), after: Key.nullable() }),
    z.object({ part: z.literal("collected"), table: z.int(), after: z.string().nullable() }),
    z.object({ part: z.literal("documents"), after: z.string().nullable() }),
    z.object({ part: z.literal("audit"), after: z.number() }),
  ]),
  tally: TallyState,
});
export type ExportState = z.infer<typeof ExportState>;

/** Connects to the tenant's placement. Throws `placement_unavailable` when its shard is gone. */
export async function openSide({ env, control }: Context, tenantId: TenantId, placement: Placement): Promise<Side> {
  const shard = await placementsStore(control).shard(placement.shardId);
  if (shard === undefined) throw new AppError("placement_unavailable", `shard ${placement.shardId} does not exist`);
  const db = await openTenantDb(env, tenantId, placement);
  return {
    placement,
    tenantId,
    schema: placement.strategy === "shared" ? "public" : ownName(placement.id),
    owner: connectNeon(await ownerUrl(env, shard), env.NEON_FETCH_ENDPOINT),
    asTenant: (statements) => db.transaction(statements),
  };
}

/** Events of one unit: some 300 KB. */
const AUDIT_ROWS = 500;

export class TenantExport {
  readonly #bucket: R2Bucket;
  readonly #control: ControlDatabase;
  readonly #side: Side;
  readonly #state: Omit<ExportState, "tally">;
  readonly #tally: Tally;
  #footer: Footer | undefined;

  /** Resumes an export of this placement. */
  constructor({ env, control }: Context, side: Side, { tally, ...state }: ExportState) {
    this.#bucket = env.FILES;
    this.#control = control;
    this.#side = side;
    this.#state = state;
    this.#tally = new Tally(tally);
  }

  /**
   * Starts an export of the rows as they are now. With `earlier`: as they were at that instant, without documents. `audit`: with
   * the audit log.
   */
  static async begin(
    context: Context,
    side: Side,
    { earlier, audit }: { earlier: { since: string; job: number } | null; audit: boolean },
  ): Promise<TenantExport> {
    const { control } = context;
    const { placement, tenantId } = side;
    const [tenant, point, tables] = await Promise.all([
      tenantsStore(control).summary(tenantId),
      recoveryPoint(side, earlier),
      tablesOf(side.asTenant),
    ]);
    if (tenant === undefined) throw new AppError("tenant_unknown");
    const header: Header = {
      format: 1,
      tenant: tenantId,
      plan: tenant.plan,
      strategy: placement.strategy,
      schemaVersion: tenant.placement?.schemaVersion ?? null,
      exportedAt: point.takenAt,
      recoveryPoint: earlier === null ? { committedBy: point.takenAt } : { begunBefore: earlier.since },
      tables: tables.map((table) => ({
        name: table.name,
        columns: fileColumns(table).map(({ name, type }) => ({ name, type })),
        keys: fileColumns({ columns: table.keys }),
      })),
      documents: earlier === null,
      audit,
    };
    const next = earlier === null ? ({ part: "header" } as const) : ({ part: "log", after: 0 } as const);
    const tally = new Tally().toJSON();
    return new TenantExport(context, side, { placementId: placement.id, header, tables, point, next, tally });
  }

  /** The state after the units returned so far. */
  get state(): ExportState {
    return { ...structuredClone(this.#state), tally: this.#tally.toJSON() };
  }

  get header(): Header {
    return this.#state.header;
  }

  /** Set once `next` has returned the footer. */
  get footer(): Footer | undefined {
    return this.#footer;
  }

  /** Returns the next unit of whole lines, which may be empty. Returns `undefined` after the footer. */
  async next(): Promise<Uint8Array | undefined> {
    const { next, header, point } = this.#state;
    const table = "table" in next ? this.#state.tables[next.table] : undefined;
    switch (next.part) {
      case "log": {
        const last = point.earlier === null ? null : await collectUndone(this.#side, point.earlier, next.after);
        this.#state.next = last === null ? { part: "header" } : { part: "log", after: last };
        return new Uint8Array(0);
      }
      case "header":
        this.#state.next = { part: "rows", table: 0, after: null };
        return this.#unit(headerLine(header), "other");
      case "rows": {
        if (table === undefined) {
          this.#state.next = header.documents ? { part: "documents", after: null } : afterDocuments(header);
          return new Uint8Array(0);
        }
        const chunk = await readChunkAt(this.#side, this.#side.asTenant, table, point, next.after);
        const collected = { part: "collected", table: next.table, after: null } as const;
        this.#state.next = chunk.next === null ? collected : { ...next, after: chunk.next };
        return this.#unit(chunk.text, { table: table.name, rows: chunk.rows });
      }
      case "collected": {
        const rows = { part: "rows", table: next.table + 1, after: null } as const;
        this.#state.next = rows;
        if (table === undefined || point.earlier === null) return new Uint8Array(0);
        const chunk = await readCollected(this.#side, table, point.earlier, next.after);
        this.#state.next = chunk.next === null ? rows : { ...next, after: chunk.next };
        return this.#unit(chunk.text, { table: table.name, rows: chunk.rows });
      }
      case "documents": {
        const { documents, last } = await readDocuments(this.#bucket, this.#side.tenantId, next.after);
        this.#state.next = last === null ? afterDocuments(header) : { part: "documents", after: last };
        return this.#unit(documents.map(documentLine).join(""), { documents: documents.length });
      }
      case "audit": {
        const found = await auditStore(this.#control).rowsAfter(this.#side.tenantId, next.after, AUDIT_ROWS);
        const rows = found.filter((row) => row !== undefined);
        const last = rows.at(-1)?.position;
        this.#state.next = last === undefined ? { part: "footer" } : { part: "audit", after: last };
        return this.#unit(rows.map((row) => auditLine(auditAnswer(asTenantSees(row)))).join(""), "other");
      }
      case "footer":
        this.#state.next = { part: "end" };
        this.#footer = this.#tally.footer(header.tables);
        return new TextEncoder().encode(footerLine(this.#footer));
      case "end":
        return undefined;
      default:
        return next satisfies never;
    }
  }

  /** Returns a blank line of `sizeBytes`, with its line end. */
  blank(sizeBytes: number): Uint8Array {
    return this.#unit(`${" ".repeat(sizeBytes - 1)}\n`, "other");
  }

  #unit(text: string, of: Parameters<Tally["add"]>[1]): Uint8Array {
    const bytes = new TextEncoder().encode(text);
    this.#tally.add(bytes, of);
    return bytes;
  }
}

function afterDocuments({ audit }: Header): ExportState["next"] {
  return audit ? { part: "audit", after: 0 } : { part: "footer" };
}
