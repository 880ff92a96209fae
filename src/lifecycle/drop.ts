// Drops the data of a removed tenant from its databases and buckets: in every tier, and also where a move has left data.
// Every function can be repeated. Data that is gone already counts as dropped.
import type { Context } from "../control/context.ts";
import { type Upload, abandonUpload } from "../backups/bucket.ts";
import type { RemovalsStore, TenantPlacement } from "./removals-store.ts";
import { placementsStore } from "../control/placements-store.ts";
import { available, tenantPrefix } from "../adapters/files.ts";
import { forgetNotes, notes } from "../tenant-db/copy.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { dropPlacement, dropSchema, shardOwner } from "../tenant-db/placement.ts";
import { closeOwnShard } from "../tenant-db/shards.ts";

/** The most objects that R2 deletes in one request. */
const FILES_AT_ONCE = 1_000;
/** Pages of objects in one step: a few seconds' work. */
const PAGES_PER_STEP = 20;

/** Drops the tenant's rows, schemas and database. Returns false while Neon still lists the database. */
export async function dropPlacements(context: Context, removals: RemovalsStore, tenantId: TenantId): Promise<boolean> {
  for (const upload of await removals.endWork(tenantId)) await abandonUpload(context.env.BACKUPS, upload as Upload);
  const placements = await removals.placements(tenantId);
  for (const each of placements.filter(({ dropped }) => !dropped)) {
    await drop(context, tenantId, each);
    await removals.recordDropped(each.id);
  }
  // The change logs that restores read, also those of former placements.
  const shards = new Set(placements.filter(({ strategy }) => strategy !== "database").map(({ shardId }) => shardId));
  for (const shardId of shards) {
    const known = await placementsStore(context.control).shard(shardId);
    if (known !== undefined) await forgetNotes(await shardOwner(context, shardId), tenantId, notes);
  }
  return closeOwnShard(context, tenantId);
}

async function drop(context: Context, tenantId: TenantId, own: TenantPlacement): Promise<void> {
  if (own.placement !== null) return dropPlacement(context, tenantId, own.placement);
  // Reserved and perhaps never made. `closeOwnShard` removes a database by its name.
  if (own.strategy === "schema") await dropSchema(context, own);
}

/** Deletes some of the tenant's documents, backups and imports. Returns whether none is left. */
export async function dropFiles({ env }: Context, tenantId: TenantId): Promise<boolean> {
  const prefixes: [R2Bucket, string][] = [
    [env.FILES, tenantPrefix(tenantId)],
    [env.BACKUPS, `backups/${tenantId}/`],
    [env.BACKUPS, `imports/${tenantId}/`],
  ];
  let pages = 0;
  for (const [bucket, prefix] of prefixes) {
    for (;;) {
      const { objects } = await available(() => bucket.list({ prefix, limit: FILES_AT_ONCE }));
      if (objects.length === 0) break;
      if (pages === PAGES_PER_STEP) return false;
      pages += 1;
      await available(() => bucket.delete(objects.map(({ key }) => key)));
    }
  }
  return true;
}
