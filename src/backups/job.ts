// A job of the control tables as the one who does a piece of it sees it.
import type { JobsStore, Job } from "./jobs-store.ts";
import { AppError } from "../core/errors.ts";
import type { Placement } from "../core/placement.ts";
import type { TenantId } from "../core/tenant.ts";
import type { TenantDb } from "../tools/tool.ts";
import type { Side } from "./export.ts";
import type { MoveHost, Piece } from "../moves/tenant-move.ts";

export const DONE: Piece = { done: true, waitMs: 0 };
export const GOES_ON: Piece = { done: false, waitMs: 0 };

/** What jobs need of the object that they run in. */
export interface ArchiveHost extends Pick<MoveHost, "pause" | "resume"> {
  /** The place in force, its login proved, and the rows wherever they are at the moment of each statement. */
  place(): Promise<{ placement: Placement; rows: TenantDb }>;
}

/** One piece of a job under way. */
export interface Work {
  env: Env;
  tenantId: TenantId;
  host: ArchiveHost;
  job: Job;
  jobs: JobsStore;
  /** When the piece should end. */
  untilMs: number;
  /** The place in force now. */
  side(): Promise<Side>;
  /** Records where the next piece begins. */
  keep(progress: object): Promise<void>;
  /** The job has come to this. */
  finish(result: object): Promise<void>;
}

/** Why a job ends without having done what it should, in words for the operator. */
export class JobRefused extends AppError {
  constructor(message: string) {
    super("conflict", message);
    this.name = "JobRefused";
  }
}
