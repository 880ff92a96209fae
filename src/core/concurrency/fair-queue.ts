// Decides which job gets the next of a few places, when more jobs want one than there are: weighted fair queueing. Each tenant
// has a weight by its plan. While tenants wait, they get places in proportion to their weights.
//
// Invariants: at most `capacity` jobs have a place, and `perTenant` of one tenant; jobs of the lowest weight leave `reserved`
// places to the others; no place stays empty while a job may have it; a job that is the first of its tenant waits for at most
// w'/w + 1 jobs of each other tenant (w its own weight, w' the other's), so that no tenant starves.

export interface Job {
  readonly tenant: string;
  readonly weight: number;
  readonly addedAtMs: number;
  state: "waiting" | "running" | "over";
  /** When it got its place. */
  startedAtMs: number;
}

export interface FairQueueOptions {
  /** Places. */
  capacity: number;
  /** Places that jobs of weight 1 leave to others. */
  reserved: number;
  /** Places that one tenant may have. */
  perTenant: number;
}

interface Entry {
  job: Job;
  /** The virtual time at which the job would end if places were shared exactly by weight. The smallest goes first. */
  finish: number;
}

export class FairQueue {
  readonly #options: FairQueueOptions;
  readonly #waiting: Entry[] = [];
  readonly #running = new Set<Job>();
  readonly #runningOf = new Map<string, number>();
  /** The finish of each tenant's last job. Forgotten when no job waits: it matters only between jobs that compete. */
  readonly #lastFinish = new Map<string, number>();
  #virtual = 0;

  constructor(options: FairQueueOptions) {
    this.#options = options;
  }

  get running(): number {
    return this.#running.size;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** Adds a job, which waits until `next` returns it. `weight` is 1 or more. */
  add(tenant: string, weight: number, nowMs: number): Job {
    const job: Job = { tenant, weight, addedAtMs: nowMs, state: "waiting", startedAtMs: 0 };
    const finish = Math.max(this.#virtual, this.#lastFinish.get(tenant) ?? 0) + 1 / weight;
    this.#lastFinish.set(tenant, finish);
    this.#waiting.push({ job, finish });
    return job;
  }

  /** Gives the next place to a waiting job. `undefined`: no waiting job may have one. */
  next(nowMs: number): Job | undefined {
    let first: Entry | undefined;
    for (const entry of this.#waiting) {
      if (this.#mayStart(entry.job) && (first === undefined || entry.finish < first.finish)) first = entry;
    }
    if (first === undefined) return undefined;
    const { job, finish } = first;
    this.#remove(job);
    this.#virtual = Math.max(this.#virtual, finish);
    job.state = "running";
    job.startedAtMs = nowMs;
    this.#running.add(job);
    this.#runningOf.set(job.tenant, (this.#runningOf.get(job.tenant) ?? 0) + 1);
    return job;
  }

  /** Ends a job: it gives its place back, or waits no longer. Repeating it changes nothing. */
  end(job: Job): void {
    if (job.state === "waiting") this.#remove(job);
    if (job.state === "running") {
      this.#running.delete(job);
      const left = (this.#runningOf.get(job.tenant) ?? 1) - 1;
      if (left === 0) this.#runningOf.delete(job.tenant);
      else this.#runningOf.set(job.tenant, left);
    }
    job.state = "over";
  }

  /** Ends jobs whose owners have died with their places: running for longer than `runMs`, waiting for longer than `waitMs`. */
  expire(nowMs: number, { runMs, waitMs }: { runMs: number; waitMs: number }): void {
    for (const job of this.#running) if (nowMs - job.startedAtMs > runMs) this.end(job);
    for (const { job } of [...this.#waiting]) if (nowMs - job.addedAtMs > waitMs) this.end(job);
  }

  #mayStart({ tenant, weight }: Job): boolean {
    const { capacity, reserved, perTenant } = this.#options;
    const places = weight > 1 ? capacity : capacity - reserved;
    return this.#running.size < places && (this.#runningOf.get(tenant) ?? 0) < perTenant;
  }

  #remove(job: Job): void {
    const index = this.#waiting.findIndex((entry) => entry.job === job);
    if (index >= 0) this.#waiting.splice(index, 1);
    if (this.#waiting.length > 0) return;
    this.#lastFinish.clear();
    this.#virtual = 0;
  }
}
