// The environment of one step of a job. A job is a backup, a restore or an import of one tenant.
import type { JobsStore, Job } from "./jobs-store.ts";
import type { Context } from "../control/context.ts";
import { AppError } from "../core/errors.ts";
import type { Placement } from "../core/tenant/placement.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import type { TenantDb } from "../tools/tool.ts";
import type { Side } from "./export.ts";
import type { MoveHost } from "../moves/tenant-move.ts";

/** The parts of the tenant's object that jobs use. */
export interface JobHost extends Pick<MoveHost, "pause" | "resume"> {
  /** The current placement, with a proved login, and its rows. The rows follow a move from one statement to the next. */
  withPlacement(): Promise<{ placement: Placement; rows: TenantDb }>;
}

/** One step of a job. */
export interface JobRun {
  context: Context;
  tenantId: TenantId;
  host: JobHost;
  job: Job;
  jobs: JobsStore;
  /** When the step should end. */
  untilMs: number;
  /** Opens the current placement. */
  side(): Promise<Side>;
  /** Records where the next step begins. Throws when another step has recorded its progress since. */
  keep(progress: object): Promise<void>;
  /** Ends the job with this result. */
  finish(result: object): Promise<void>;
}

/** Why a job failed permanently, in words for the operator. */
export class JobRefused extends AppError {
  constructor(message: string) {
    super("conflict", message);
    this.name = "JobRefused";
  }
}
