// Runs the operations of each project in the stand-in for Neon's API, one after the other.
//
// Decides how long an operation takes and how it ends. Invariants: an operation is `finished` only after its effect exists.
// An operation interrupted by a kill runs again from its beginning. While PostgreSQL is down, operations wait.
import { setTimeout as sleep } from "node:timers/promises";
import { type Databases, ServerAway } from "./api-databases.ts";
import { type Store, type StoredOperation, type StoredProject, isOver } from "./api-state.ts";

/** Pause between attempts. PostgreSQL restarts within a second. */
const OUTAGE_RETRY_MS = 250;

export interface Work {
  /** Starts or continues the operations of a project. */
  start(project: StoredProject): void;
  /** Stops like a kill, except that it waits for the running statement. */
  stop(): Promise<void>;
}

export function createWork(options: {
  store: Store;
  databases: Databases;
  /** Total duration of creating a project. */
  operationMs: number;
  failsOperation: (action: string) => boolean;
  log: (line: string) => void;
}): Work {
  const { store, databases, failsOperation, log } = options;
  const stopping = new AbortController();
  const { signal } = stopping;
  /** Projects whose operations are running. */
  const busy = new Set<string>();
  const runs = new Set<Promise<void>>();

  // Creating a project takes two operations. A branch is quicker, because Neon does not copy its data.
  const durationMs: Record<StoredOperation["action"], number> = {
    create_timeline: (options.operationMs * 2) / 3,
    start_compute: options.operationMs / 3,
    create_branch: options.operationMs / 6,
    delete_timeline: options.operationMs / 6,
  };

  async function run(project: StoredProject): Promise<void> {
    for (;;) {
      const operation = project.operations.find((candidate) => !isOver(candidate));
      if (project.isLeaving) {
        const { owner, branches } = project;
        await patiently(() => databases.removeAll({ databases: branches.map(({ database }) => database), owner }));
        store.projects.splice(store.projects.indexOf(project), 1);
        store.save();
      } else if (operation !== undefined) {
        await perform(project, operation);
        continue;
      }
      // No await since the check above: otherwise a start in between would be lost.
      busy.delete(project.id);
      return;
    }
  }

  async function perform(project: StoredProject, operation: StoredOperation): Promise<void> {
    mark(operation, "running");
    await sleep(durationMs[operation.action], undefined, { signal });
    try {
      if (failsOperation(operation.action)) throw new Error("A fault rule caused this failure.");
      await patiently(() => carryOut(project, operation), operation);
      mark(operation, "finished");
    } catch (error) {
      signal.throwIfAborted();
      operation.error = error instanceof Error ? error.message : String(error);
      operation.failures += 1;
      log(`neon api: ${operation.action} of ${operation.branchId} failed: ${operation.error}`);
      for (const other of project.operations) {
        if (other.branchId === operation.branchId && !isOver(other) && other !== operation) other.status = "cancelled";
      }
      mark(operation, "failed");
    }
  }

  function mark(operation: StoredOperation, status: StoredOperation["status"]): void {
    operation.status = status;
    operation.updatedAtMs = Date.now();
    store.save();
  }

  async function carryOut(project: StoredProject, operation: StoredOperation): Promise<void> {
    const { owner, password } = project;
    const branch = project.branches.find(({ id }) => id === operation.branchId);
    if (branch === undefined) return;
    const { database } = branch;
    switch (operation.action) {
      case "create_timeline":
        await databases.create({ database, owner, password });
        break;
      case "create_branch": {
        const parent = project.branches.find(({ id }) => id === branch.parentId);
        if (parent === undefined) throw new Error("The parent branch no longer exists.");
        await databases.copy({ database, parent: parent.database, owner, signal });
        break;
      }
      case "start_compute":
        break;
      case "delete_timeline":
        await databases.remove({ database, owner });
        project.branches.splice(project.branches.indexOf(branch), 1);
        return;
    }
    const isOnlyOne = (other: StoredOperation): boolean =>
      other === operation || other.branchId !== branch.id || isOver(other);
    if (project.operations.every(isOnlyOne)) branch.state = "ready";
  }

  /** Retries while PostgreSQL is down. */
  async function patiently(work: () => Promise<void>, operation?: StoredOperation): Promise<void> {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        if (!(error instanceof ServerAway)) throw error;
        if (operation !== undefined) operation.failures += 1;
        await sleep(OUTAGE_RETRY_MS, undefined, { signal });
      }
    }
  }

  return {
    start: (project) => {
      if (busy.has(project.id)) return;
      busy.add(project.id);
      const done = run(project)
        .catch((error: unknown) => {
          busy.delete(project.id);
          if (signal.aborted) return;
          log(`neon api: ${project.id}: ${error instanceof Error ? error.message : String(error)}`);
        })
        .finally(() => runs.delete(done));
      runs.add(done);
    },
    stop: async () => {
      stopping.abort();
      await Promise.all(runs);
    },
  };
}
