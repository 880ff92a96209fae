// The database slots of an isolate. Tenants' objects share isolates, and so their connections to databases. While more
// statements are under way than there are slots, core/concurrency/fair-queue.ts decides whose statement is sent next: higher plans first,
// and no tenant starves.
// Invariant: a statement waits for `MAX_WAIT_MS` at most and is then sent beside the others. So a slot that is never given
// back, because the platform ended its owner, delays others for moments only, and is free again after `LEASE_MS`.
import { FairQueue, type Job } from "../core/concurrency/fair-queue.ts";

/** As many as Neon's pool keeps open for a login over HTTP. More at once would wait there, in order of arrival. */
const SLOTS = 16;
/** Slots that tenants on the lowest plan leave to the others. A statement takes milliseconds, so one is free at once. */
const RESERVED_SLOTS = 4;
/** Slots of one tenant. The rest serves the others while it runs long statements. */
const SLOTS_PER_TENANT = 12;
/** Far longer than a queue of short statements, and short beside a tool's 20 s. */
const MAX_WAIT_MS = 1_000;
/** Longer than any statement may run. */
const LEASE_MS = 30_000;
/** A waiting statement looks again this often, for the case that its wake-up was lost with another object. */
const LOOK_AGAIN_MS = 100;

/** The isolate's. It holds no I/O, so that objects may share it. */
const queue = new FairQueue({ capacity: SLOTS, reserved: RESERVED_SLOTS, perTenant: SLOTS_PER_TENANT });
const wake = new WeakMap<Job, () => void>();

/** A tenant's claim to slots. `weight` follows from its plan. */
export interface SlotShare {
  tenant: string;
  weight: number;
}

/** Sends a statement with `send` once a slot is free. An abort of `signal` ends the wait. */
export async function withSlot<Result>(
  { tenant, weight }: SlotShare,
  send: () => Promise<Result>,
  signal?: AbortSignal,
): Promise<Result> {
  const job = queue.add(tenant, weight, Date.now());
  startNext();
  try {
    if (job.state === "waiting") await slotOf(job, signal);
    return await send();
  } finally {
    queue.end(job);
    startNext();
  }
}

/** Waits until the job has its slot, or has waited long enough. */
async function slotOf(job: Job, signal: AbortSignal | undefined): Promise<void> {
  while (job.state === "waiting") {
    const leftMs = job.addedAtMs + MAX_WAIT_MS - Date.now();
    if (leftMs <= 0 || signal?.aborted === true) return queue.end(job);
    const { promise, resolve } = Promise.withResolvers<void>();
    wake.set(job, resolve);
    const timer = setTimeout(resolve, Math.min(leftMs, LOOK_AGAIN_MS));
    await promise;
    clearTimeout(timer);
  }
}

function startNext(): void {
  if (queue.waiting === 0) return;
  const nowMs = Date.now();
  // A waiting job leaves by itself after `MAX_WAIT_MS`, unless its object has ended.
  queue.expire(nowMs, { runMs: LEASE_MS, waitMs: 2 * MAX_WAIT_MS });
  for (let job = queue.next(nowMs); job !== undefined; job = queue.next(nowMs)) {
    try {
      wake.get(job)?.();
    } catch {
      // Its object has ended, or looks again by itself. It must not fail the statement that made room.
    }
  }
}
