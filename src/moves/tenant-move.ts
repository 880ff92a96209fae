// Moves the tenant's rows step by step, in the tenant's object. A Workflow asks for the next step until none is left. The
// control tables record every step, so any step can be repeated. A step that timed out may still be writing. It does no
// harm: it carries the number of its attempt, and both the target and the switchover accept only the newest number.
import type { Context } from "../control/context.ts";
import { type MovesStore, movesStore } from "./moves-store.ts";
import { placementsStore } from "../control/placements-store.ts";
import { tenantsStore } from "../control/tenants-store.ts";
import { openTenantDb, provePlacement } from "../tenant-db/dispatch.ts";
import type { NeonConnection } from "../adapters/neon.ts";
import {
  type AsTenant,
  type Changes,
  type Table,
  applyRows,
  changesSince,
  emptyTables,
  lackingIn,
  markOf,
  openGate,
  readChunk,
  readKeys,
  setGate,
  shutGate,
  sumsOf,
  tablesOf,
  underToken,
} from "../tenant-db/copy.ts";
import { AppError, isPermanent } from "../core/errors.ts";
import { type Move, direction, mayBe, nearEnough } from "./move.ts";
import { DONE, NEXT, type Step, nextAfter } from "../control/work.ts";
import type { Placement } from "../core/tenant/placement.ts";
import { HOUR_MS } from "../core/time.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { describeError, log } from "../log.ts";
import { GATE_WAIT_MS, dropPlacement, makePlacement, markAsCopy, shardOwner } from "../tenant-db/placement.ts";
import { OPENING_POLL_MS, closeShard, makeRoom } from "../tenant-db/shards.ts";

/** Upper bound of a step: short enough for one RPC. */
const STEP_MS = 5_000;
/** At a switchover: how long new statements may wait for running ones to end. */
const DRAIN_MS = 1_000;
/** Rows that one request reads by their keys. */
const KEYS_AT_ONCE = 1_000;
/** Before the next attempt at a switchover that found the tenant too busy. */
const BUSY_WAIT_MS = 500;

/** The parts of the tenant's object that a move uses. */
export interface MoveHost {
  /** Pauses the tenant's statements once the running ones have ended. Returns false, without a pause, when some do not. */
  pause(withinMs: number): Promise<boolean>;
  resume(): void;
  /** Prepares to open this placement, so that opening it during the pause takes no time. */
  prewarm(placement: Placement): Promise<void>;
  /** Reads the tenant's row again and opens the placement that is in force now. */
  adopt(): Promise<void>;
}

interface Side {
  placement: Placement;
  asTenant: AsTenant;
  owner: NeonConnection;
}

const BUSY = nextAfter(BUSY_WAIT_MS);

/** Pause before the next attempt of a step that Neon refuses. A person has to change something first. */
const REFUSED_MS = HOUR_MS;
const REFUSED =
  "The database provider refused to create the database, for example because it does not have the region. Undo the move. Tollgate tries it once an hour.";

export class TenantMove {
  readonly #context: Context;
  readonly #tenantId: TenantId;
  readonly #host: MoveHost;
  readonly #moves: MovesStore;

  constructor(context: Context, tenantId: TenantId, host: MoveHost) {
    this.#context = context;
    this.#tenantId = tenantId;
    this.#host = host;
    this.#moves = movesStore(context.control);
  }

  /** Does the next step. A step that fails throws and can be repeated. */
  async advance(): Promise<Step> {
    const move = await this.#moves.live(this.#tenantId);
    if (move === undefined || move.state === "moved") return DONE;
    try {
      return move.state === "preparing" ? await this.#prepare(move) : await this.#copy(move);
    } catch (error) {
      if (isPermanent(error)) {
        // The same request would be refused again. The operator undoes the move, or corrects the cause.
        log("error", "move_refused", { tenantId: this.#tenantId, move: move.id, error: describeError(error) });
        await this.#moves.failed(move.id, REFUSED, REFUSED_MS);
        return DONE;
      }
      // Only the operator sees it.
      const words =
        error instanceof MoveRefused ? error.message : `A step failed: ${describeError(error)}. Tollgate retries it.`;
      await this.#moves.failed(move.id, words).catch(() => undefined);
      throw error;
    }
  }

  /** Confirms a finished move: drops the old copy. */
  async confirm(): Promise<Step> {
    const move = await this.#moves.live(this.#tenantId);
    if (move === undefined) return DONE;
    if (!mayBe("confirm", move.state)) throw new MoveRefused(`A move that is ${move.state} cannot be confirmed.`);
    await this.#drop(move.from);
    await this.#moves.finish(move.id, "confirmed", move.from.id);
    return DONE;
  }

  /** Undoes the move. Before the switchover the move just ends. After the switchover, steps copy the rows back. */
  async undo(): Promise<Step> {
    const seen = await this.#moves.live(this.#tenantId);
    if (seen === undefined) return DONE;
    await this.#moves.nextAttempt(seen.id); // from here on no earlier switchover can succeed
    const move = await this.#moves.live(this.#tenantId);
    if (move === undefined || move.state === "returning") return move === undefined ? DONE : NEXT;
    if (move.state === "moved") {
      await this.#moves.goBack(move.id);
      return NEXT;
    }
    await this.release(move.from);
    if (move.to !== null) await this.#drop(move.to);
    else if (move.strategy === "database")
      await closeShard(this.#context, await placementsStore(this.#context.control).ownShard(this.#tenantId, ""));
    await this.#moves.finish(move.id, "undone", move.to?.id ?? null);
    return DONE;
  }

  /**
   * Recovers from a switchover that was cut off: opens the gate of a placement that is in force. It opens nothing when
   * the switchover did succeed and another placement is in force.
   */
  async recover(inForce: Placement): Promise<void> {
    const move = await this.#moves.live(this.#tenantId);
    if (move !== undefined) await this.#moves.nextAttempt(move.id);
    await this.#host.adopt();
    const now = await placementsStore(this.#context.control).inForce(this.#tenantId);
    if (now === inForce.id) await this.release(inForce);
  }

  /** Opens a placement's gate to the tenant's statements. */
  async release(placement: Placement): Promise<void> {
    await setGate(await this.#ownerOf(placement), this.#tenantId, null, GATE_WAIT_MS);
  }

  // ---- the steps

  async #prepare(move: Move): Promise<Step> {
    if (!(await this.#moves.reserve(move.id))) {
      if (move.shardId !== null) throw new MoveRefused("That shard has no room.");
      const { region } =
        (await tenantsStore(this.#context.control).summary(this.#tenantId)) ?? fail("the tenant is gone");
      await makeRoom(this.#context, this.#tenantId, { strategy: move.strategy, region });
      return nextAfter(OPENING_POLL_MS);
    }
    const placed = await placementsStore(this.#context.control).reservedFor(move.id);
    if (placed !== undefined) await makePlacement(this.#context, this.#tenantId, placed);
    const reserved = await this.#moves.live(this.#tenantId);
    if (reserved === undefined || reserved.to === null) {
      throw new AppError("placement_unavailable", "the reserved placement cannot be read");
    }
    const proof = await provePlacement(this.#context.env, this.#tenantId, reserved.to);
    if (!proof.proven) throw new AppError("isolation_unproven");
    const { source, target } = await this.#sides({ ...reserved, state: "copying" });
    const tables = await this.#commonTables(source, target);
    const attempt = await this.#moves.nextAttempt(move.id);
    await this.#load(target, attempt);
    const mark = await markOf(source.owner);
    // An earlier move may have left rows of the tenant here.
    await emptyTables(target.asTenant, tables, [underToken(attempt)]);
    await this.#moves.progress(move.id, { state: "copying", cursor: null, copied: false, mark, rows: 0, round: false });
    return NEXT;
  }

  async #copy(move: Move): Promise<Step> {
    const { source, target } = await this.#sides(move);
    const tables = await this.#commonTables(source, target);
    const attempt = await this.#moves.nextAttempt(move.id);
    await this.#load(target, attempt);
    if (move.state === "copying" && !move.copied) return this.#copyAll(move, { source, target, tables, attempt });
    return this.#follow(move, { source, target, tables, attempt });
  }

  /** The first copy: table by table, in the order of the keys. */
  async #copyAll(move: Move, { source, target, tables, attempt }: Copying): Promise<Step> {
    const untilMs = Date.now() + STEP_MS;
    let index = Math.max(
      0,
      tables.findIndex(({ name }) => name === move.cursor?.table),
    );
    let key = move.cursor?.key ?? null;
    let rows = 0;
    while (index < tables.length && Date.now() < untilMs) {
      const table = tables[index] ?? fail("no such table");
      const chunk = await readChunk(source.asTenant, table, key);
      if (chunk.last === null) {
        index += 1;
        key = null;
      } else {
        await target.asTenant([underToken(attempt), ...applyRows(table, chunk.rows)]);
        rows += chunk.count;
        key = chunk.last;
      }
    }
    const table = tables[index];
    await this.#moves.progress(move.id, {
      state: "copying",
      cursor: table === undefined || key === null ? null : { table: table.name, key },
      copied: table === undefined,
      mark: move.mark,
      rows,
      round: false,
    });
    return NEXT;
  }

  /** Copies what has changed since the last round, and switches over once few changes are left. */
  async #follow(move: Move, copying: Copying): Promise<Step> {
    const since = await changesSince(copying.source.owner, this.#tenantId, move.mark ?? fail("the copy has no mark"));
    if (since === undefined)
      return this.#copyAgain(move, copying.source, "Too much has changed since the move to go back.");
    const rows = await this.#copyChanged(copying, since);
    const state = move.state === "returning" ? "returning" : "copying";
    await this.#moves.progress(move.id, { state, cursor: null, copied: true, mark: since.mark, rows, round: true });
    if (!nearEnough(rows, move.rounds)) return NEXT;
    await this.#host.prewarm(copying.target.placement);
    return this.#switchOver({ ...move, mark: since.mark }, copying);
  }

  async #copyChanged({ source, target, tables, attempt }: Copying, { changed }: Changes): Promise<number> {
    let rows = 0;
    for (const table of tables) {
      const { keys = [] } = changed.find((each) => each.table === table.name) ?? {};
      for (let at = 0; at < keys.length; at += KEYS_AT_ONCE) {
        const some = keys.slice(at, at + KEYS_AT_ONCE);
        const found = await readKeys(source.asTenant, table, some);
        await target.asTenant([underToken(attempt), ...applyRows(table, found, some)]);
        rows += some.length;
      }
    }
    return rows;
  }

  /** Restarts the first copy. The way back has no first copy, so it fails with the reason. */
  async #copyAgain(move: Move, source: Side, why: string): Promise<Step> {
    if (move.state !== "copying") throw new MoveRefused(why);
    const mark = await markOf(source.owner);
    await this.#moves.progress(move.id, { state: "copying", cursor: null, copied: false, mark, rows: 0, round: false });
    return NEXT;
  }

  /** During the pause: copies the rest, compares both sides, and puts the other placement in force. */
  async #switchOver(move: Move, copying: Copying): Promise<Step> {
    const startedAtMs = Date.now();
    if (!(await this.#host.pause(DRAIN_MS))) return BUSY;
    let outcome: "flipped" | "busy" | "differs" = "busy";
    try {
      outcome = await this.#flip(move, copying, startedAtMs);
      if (outcome === "flipped") await this.#host.adopt();
    } finally {
      if (outcome !== "flipped") {
        await this.recover(copying.source.placement).catch((error: unknown) =>
          log("error", "move_not_recovered", { tenantId: this.#tenantId, error: describeError(error) }),
        );
      }
      this.#host.resume();
    }
    if (outcome === "busy") return BUSY;
    if (outcome === "differs") {
      log("error", "move_copy_differs", { tenantId: this.#tenantId, move: move.id });
      return this.#copyAgain(move, copying.source, "The old copy is not what it should be.");
    }
    const pauseMs = Date.now() - startedAtMs;
    await this.#moves.paused(move.id, pauseMs);
    log("info", "tenant_moved", { tenantId: this.#tenantId, move: move.id, pauseMs });
    if (move.state === "returning" && move.to !== null) {
      await this.#drop(move.to);
      await this.#moves.finish(move.id, "undone", move.to.id);
    }
    return DONE;
  }

  /** The tenant waits during these round trips. */
  async #flip(move: Move, copying: Copying, startedAtMs: number): Promise<"flipped" | "busy" | "differs"> {
    const { source, target, tables, attempt } = copying;
    const mark = move.mark ?? fail("the copy has no mark");
    const rest = await shutGate(source.owner, this.#tenantId, { token: attempt, mark, waitMs: GATE_WAIT_MS });
    if (rest === "busy") return "busy";
    if (rest === undefined) return "differs";
    await this.#copyChanged(copying, rest);
    const [here, there, ownMark] = await Promise.all([
      sumsOf(source.asTenant, tables),
      sumsOf(target.asTenant, tables),
      openGate(target.owner, this.#tenantId, GATE_WAIT_MS),
    ]);
    if (JSON.stringify(here) !== JSON.stringify(there)) return "differs";
    return (await this.#moves.flip(move, attempt, ownMark, Date.now() - startedAtMs)) ? "flipped" : "busy";
  }

  // ---- the placements

  #drop(placement: Placement): Promise<void> {
    return dropPlacement(this.#context, this.#tenantId, placement);
  }

  #load(side: Side, token: number): Promise<void> {
    return markAsCopy(side.owner, this.#tenantId, token);
  }

  async #commonTables(source: Side, target: Side): Promise<Table[]> {
    const [from, to] = await Promise.all([tablesOf(source.asTenant), tablesOf(target.asTenant)]);
    const lacking = lackingIn(to, from);
    if (lacking.length > 0) {
      throw new MoveRefused(
        `The new placement lacks ${lacking.join(", ")}: run its migrations, then the move continues.`,
      );
    }
    return from;
  }

  async #sides(move: Move): Promise<{ source: Side; target: Side }> {
    const way = direction(move) ?? fail("the move has no target");
    const [source, target] = await Promise.all([this.#side(way.source), this.#side(way.target)]);
    return { source, target };
  }

  async #side(placement: Placement): Promise<Side> {
    const [db, owner] = await Promise.all([
      openTenantDb(this.#context.env, this.#tenantId, placement),
      this.#ownerOf(placement),
    ]);
    return { placement, owner, asTenant: (statements) => db.transaction(statements) };
  }

  #ownerOf(placement: Placement): Promise<NeonConnection> {
    return shardOwner(this.#context, placement.shardId);
  }
}

interface Copying {
  source: Side;
  target: Side;
  tables: readonly Table[];
  attempt: number;
}

/** Why a move cannot continue, in words for the operator. */
export class MoveRefused extends AppError {
  constructor(message: string) {
    super("conflict", message);
    this.name = "MoveRefused";
  }
}

function fail(what: string): never {
  throw new Error(what);
}
