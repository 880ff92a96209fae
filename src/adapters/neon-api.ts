// The only place that speaks to Neon's management API: projects, branches, and the way into them. Nothing here waits for
// Neon's work; each function is a few requests and may be repeated after any outcome, a lost answer included: a thing is
// found by its exact name before it is made, and what is gone counts as removed.
// Errors name a status and Neon's own code. Its texts stay out, and so does the error they came with: an answer that was
// cut off is quoted there, and answers hold passwords.
import { isNeonError } from "@neon/sdk";
import type { Branch, Operation, Project } from "@neon/sdk";
import {
  createClient,
  createConfig,
  createProject,
  createProjectBranch,
  deleteProject,
  deleteProjectBranch,
  getConnectionUri,
  getProjectBranch,
  listProjectBranches,
  listProjectOperations,
  listProjects,
} from "@neon/sdk/raw";
import { AppError } from "../core/errors.ts";

const NEON_API = "https://console.neon.tech/api/v2";

/** Neon answers within a second; what takes longer is tried again by whoever called. */
const REQUEST_TIMEOUT_MS = 15_000;

/** The most that Neon gives at once. */
const PROJECTS_PER_PAGE = 400;
const BRANCHES_PER_PAGE = 100;
/** Newest first: making a project takes two or three, a compute that sleeps and wakes adds two each time. */
const RECENT_OPERATIONS = 100;

/** Of every project that is opened here. */
const DATABASE = "tollgate";
const OWNER = "tollgate_owner";

/** Those without which a branch cannot be used. Others, such as putting a compute to sleep, may fail and hurt nobody. */
const makingActions: ReadonlySet<string> = new Set([
  "create_timeline",
  "create_branch",
  "create_compute",
  "start_compute",
  "apply_config",
]);
const doneStatuses: ReadonlySet<string> = new Set(["finished", "skipped"]);
const failedStatuses: ReadonlySet<string> = new Set(["failed", "error", "cancelled"]);

/** Neon did not do what it was asked to, or nobody knows whether it did. */
export class NeonApiFailure extends AppError {
  /** Whether the same request may succeed later without anybody's help. */
  readonly retryable: boolean;
  constructor(message: string, retryable: boolean) {
    super("placement_unavailable", `${message}${retryable ? "; retryable" : ""}`);
    this.name = "NeonApiFailure";
    this.retryable = retryable;
  }
}

/** Neon does not know the thing. */
class GoneFailure extends NeonApiFailure {}

export interface OpenedProject {
  projectId: string;
  /** Whether it can be connected to. `projectReady` tells later, and tells of a failure. */
  ready: boolean;
  /**
   * Younger projects of the same name, made by callers that raced. Empty but for that. They are not removed here: only
   * the caller knows that none of them is in use.
   */
  duplicates: string[];
}

export interface OwnerConnection {
  /** `host` or `host:port`, straight to the compute. */
  host: string;
  /** The same through Neon's pooler. */
  pooledHost: string;
  database: string;
  user: string;
  password: string;
}

type KnownProject = Pick<Project, "id" | "name" | "region_id" | "created_at">;

export type NeonApi = ReturnType<typeof connectNeonApi>;

/** Opens nothing: the first call does. `apiKey` is an organization's; an empty `apiBase` means Neon's own. */
export function connectNeonApi({ apiKey, apiBase }: { apiKey: string; apiBase: string }) {
  const client = createClient(
    createConfig({
      baseUrl: apiBase === "" ? NEON_API : apiBase,
      // The SDK would send the key as a console's cookie too.
      auth: ({ type }) => (type === "http" ? apiKey : undefined),
    }),
  );

  /** One request, never repeated here. `what` completes "Neon could not". */
  async function ask<T>(
    what: string,
    send: (options: { client: typeof client; signal: AbortSignal; throwOnError: true }) => Promise<T>,
  ): Promise<T> {
    if (apiKey === "") throw new NeonApiFailure("NEON_API_KEY is not set", false);
    try {
      return await send({ client, signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS), throwOnError: true });
    } catch (error) {
      throw failure(what, error);
    }
  }

  async function projectsNamed(name: string): Promise<KnownProject[]> {
    const what = `list the projects named ${name}`;
    return await walk(async (cursor) => {
      const query = { search: name, limit: PROJECTS_PER_PAGE, ...(cursor !== undefined && { cursor }) };
      const page = await ask(what, (options) => listProjects({ ...options, query }));
      // Neon leaves out what it could not read in time. What is not listed may then exist all the same.
      if (page.unavailable_project_ids !== undefined && page.unavailable_project_ids.length > 0) {
        throw new NeonApiFailure(`Neon could not ${what}: the list is incomplete`, true);
      }
      return { items: page.projects, next: page.pagination?.cursor };
    }, name);
  }

  async function branchNamed(projectId: string, name: string): Promise<Branch | undefined> {
    const found = await walk(async (cursor) => {
      const query = { search: name, limit: BRANCHES_PER_PAGE, ...(cursor !== undefined && { cursor }) };
      const path = { project_id: projectId };
      const page = await ask(`list the branches named ${name} of project ${projectId}`, (options) =>
        listProjectBranches({ ...options, path, query }),
      );
      return { items: page.branches, next: page.pagination?.next };
    }, name);
    return found[0];
  }

  async function branchOf(projectId: string, branchId: string | undefined): Promise<Branch | undefined> {
    if (branchId !== undefined) {
      const path = { project_id: projectId, branch_id: branchId };
      return (await ask(`show branch ${branchId}`, (options) => getProjectBranch({ ...options, path }))).branch;
    }
    const path = { project_id: projectId };
    // The default branch is the first of its project, unless somebody has chosen another one by hand.
    const query = { sort_by: "created_at", sort_order: "asc", limit: BRANCHES_PER_PAGE } as const;
    const page = await ask(`list the branches of project ${projectId}`, (options) =>
      listProjectBranches({ ...options, path, query }),
    );
    return page.branches.find((branch) => branch.default);
  }

  /**
   * How far Neon is with a branch: usable, not yet, or the operation without which it never will be. Without `branchId`,
   * the default branch, and nothing else under way in the project either.
   */
  async function progress(projectId: string, branchId: string | undefined): Promise<"ready" | "pending" | Operation> {
    const path = { project_id: projectId };
    const { operations } = await ask(`list the operations of project ${projectId}`, (options) =>
      listProjectOperations({ ...options, path, query: { limit: RECENT_OPERATIONS } }),
    );
    const branch = await branchOf(projectId, branchId);
    const own = operations.filter(({ branch_id }) => branch_id === undefined || branch_id === branch?.id);
    // The first to fail: those after it were cancelled for its sake.
    const failed = own.filter(isLatestOfItsKind).findLast(({ status }) => failedStatuses.has(status));
    if (failed !== undefined) return failed;
    const awaited = branchId === undefined ? operations : own;
    const isDone = awaited.every(({ status }) => doneStatuses.has(status) || failedStatuses.has(status));
    return isDone && branch !== undefined && branch.current_state !== "init" ? "ready" : "pending";
  }

  async function ready(projectId: string, branchId: string | undefined): Promise<boolean> {
    const state = await progress(projectId, branchId);
    if (typeof state === "string") return state === "ready";
    const place = branchId === undefined ? `project ${projectId}` : `branch ${branchId} of project ${projectId}`;
    throw new NeonApiFailure(
      `Neon could not make ${place}: operation ${state.action} (${state.id}) ended as ${state.status}`,
      false,
    );
  }

  async function connectionUri(projectId: string, branchId: string | undefined, pooled: boolean): Promise<URL> {
    const path = { project_id: projectId };
    const query = { database_name: DATABASE, role_name: OWNER, pooled, ...(branchId && { branch_id: branchId }) };
    const what = `tell how to connect to project ${projectId}`;
    const { uri } = await ask(what, (options) => getConnectionUri({ ...options, path, query }));
    // The error of `new URL` would quote it.
    if (!URL.canParse(uri)) throw new NeonApiFailure(`Neon could not ${what}: its answer is not a URI`, false);
    return new URL(uri);
  }

  return {
    /**
     * The project of this name, made when there is none, with a database and an owner. Of several, the oldest: every
     * caller gets the same one, as long as Neon lists them. Keep the id: a name is only good until the id is known.
     */
    async openProject({
      name,
      regionId,
      pgVersion,
    }: {
      name: string;
      regionId: string;
      pgVersion: number;
    }): Promise<OpenedProject> {
      let found = await projectsNamed(name);
      if (found.length === 0) {
        const body = {
          project: {
            name,
            region_id: regionId,
            pg_version: pgVersion,
            // The owner's password is read again by `ownerConnection`.
            store_passwords: true,
            branch: { database_name: DATABASE, role_name: OWNER },
          },
        };
        const { project } = await ask(`make project ${name}`, (options) => createProject({ ...options, body }));
        // Somebody else may have found none at the same moment.
        found = await projectsNamed(name);
        // A list that lags behind must not hide what was just made.
        if (!found.some(({ id }) => id === project.id)) found.push(project);
      }
      const [oldest, ...younger] = found.toSorted(byAge);
      if (oldest === undefined) throw new NeonApiFailure(`Neon could not make project ${name}`, true);
      // A contract may say where the data has to be.
      if (oldest.region_id !== regionId) {
        throw new NeonApiFailure(`Neon has project ${name} in ${oldest.region_id}, not in ${regionId}`, false);
      }
      const isReady = (await progress(oldest.id, undefined)) === "ready";
      return { projectId: oldest.id, ready: isReady, duplicates: younger.map(({ id }) => id) };
    },

    /** Whether a project can be connected to. Throws when an operation that it needs has failed, and names it. */
    async projectReady(projectId: string): Promise<boolean> {
      return await ready(projectId, undefined);
    },

    /** The owner's way into the project's default branch, or into another one. */
    async ownerConnection(projectId: string, branchId?: string): Promise<OwnerConnection> {
      const [direct, pooled] = await Promise.all([
        connectionUri(projectId, branchId, false),
        connectionUri(projectId, branchId, true),
      ]);
      return {
        host: direct.host,
        pooledHost: pooled.host,
        database: decodeURIComponent(direct.pathname.slice(1)),
        user: decodeURIComponent(direct.username),
        password: decodeURIComponent(direct.password),
      };
    },

    /** Removes a project with all that is in it. One that is gone is fine. */
    async closeProject(projectId: string): Promise<void> {
      const path = { project_id: projectId };
      await unlessGone(ask(`remove project ${projectId}`, (options) => deleteProject({ ...options, path })));
    },

    /**
     * Removes every project of this name, also those whose id nobody has kept. Returns whether Neon lists none any more.
     */
    async closeProjectsNamed(name: string): Promise<boolean> {
      for (const { id } of await projectsNamed(name)) {
        const path = { project_id: id };
        await unlessGone(ask(`remove project ${id}`, (options) => deleteProject({ ...options, path })));
      }
      return (await projectsNamed(name)).length === 0;
    },

    /**
     * The branch of this name with a compute, made when there is none: a copy of `parentId` (the default branch without
     * one) as it is, or as it was at `fromTimestamp`. One that is found is not compared with that: a name stands for one
     * content.
     */
    async openBranch({
      projectId,
      name,
      parentId,
      fromTimestamp,
    }: {
      projectId: string;
      name: string;
      parentId?: string;
      fromTimestamp?: Date;
    }): Promise<{ branchId: string; ready: boolean }> {
      let branch = await branchNamed(projectId, name);
      if (branch === undefined) {
        const path = { project_id: projectId };
        const body = {
          branch: {
            name,
            ...(parentId !== undefined && { parent_id: parentId }),
            ...(fromTimestamp !== undefined && { parent_timestamp: fromTimestamp.toISOString() }),
          },
          endpoints: [{ type: "read_write" as const }],
        };
        const made = await ask(`make branch ${name} of project ${projectId}`, (options) =>
          createProjectBranch({ ...options, path, body }),
        );
        branch = made.branch;
      }
      return { branchId: branch.id, ready: (await progress(projectId, branch.id)) === "ready" };
    },

    /** Whether a branch can be connected to. Throws when an operation that it needs has failed, and names it. */
    async branchReady(projectId: string, branchId: string): Promise<boolean> {
      return await ready(projectId, branchId);
    },

    /** Removes a branch with its compute. One that is gone is fine. */
    async closeBranch(projectId: string, branchId: string): Promise<void> {
      const path = { project_id: projectId, branch_id: branchId };
      await unlessGone(
        ask(`remove branch ${branchId} of project ${projectId}`, (options) =>
          deleteProjectBranch({ ...options, path }),
        ),
      );
    },
  };
}

/** Every item of that exact name: Neon searches for parts of names and of ids. */
async function walk<T extends { name: string }>(
  pageAfter: (cursor: string | undefined) => Promise<{ items: T[]; next: string | undefined }>,
  name: string,
): Promise<T[]> {
  const found: T[] = [];
  let cursor: string | undefined;
  for (;;) {
    const { items, next } = await pageAfter(cursor);
    found.push(...items.filter((item) => item.name === name));
    // Neon names a cursor on the last page too; the page after it is empty.
    if (items.length === 0 || next === undefined || next === "" || next === cursor) return found;
    cursor = next;
  }
}

function byAge(a: KnownProject, b: KnownProject): number {
  return Date.parse(a.created_at) - Date.parse(b.created_at) || (a.id < b.id ? -1 : 1);
}

/** Whether nothing newer of the same kind has been tried on the same branch. `operations` are newest first. */
function isLatestOfItsKind(operation: Operation, index: number, operations: readonly Operation[]): boolean {
  if (!makingActions.has(operation.action)) return false;
  const newer = operations.slice(0, index);
  return !newer.some(({ action, branch_id }) => action === operation.action && branch_id === operation.branch_id);
}

/** What is gone answered 404; a branch also 204. */
async function unlessGone(removal: Promise<unknown>): Promise<void> {
  try {
    await removal;
  } catch (error) {
    if (!(error instanceof GoneFailure)) throw error;
  }
}

function failure(what: string, error: unknown): NeonApiFailure {
  const start = `Neon could not ${what}`;
  if (!isNeonError(error)) return new NeonApiFailure(`${start}: the request failed`, true);
  // Without a status nothing came back: the request may have been carried out.
  if (!("status" in error) || typeof error.status !== "number") {
    const reason = error.kind === "network" && /^[A-Z_]{1,40}$/.test(error.reason) ? ` (${error.reason})` : "";
    return new NeonApiFailure(`${start}: no answer${reason}`, true);
  }
  const { status } = error;
  const code = "code" in error && error.code !== undefined && /^[A-Z0-9_]{1,60}$/.test(error.code) ? error.code : "";
  const answer = [status, code].filter(Boolean).join(" ");
  if (status === 401 || status === 403) {
    return new NeonApiFailure(`${start}: NEON_API_KEY is not accepted (${answer})`, false);
  }
  if (status === 404) return new GoneFailure(`${start}: it does not exist (${answer})`, false);
  // A success whose body could not be read is an answer that was lost. 409 is what a name that was taken in the meantime
  // gets: the next call finds it. 501 stays what it is.
  const retryable = status < 400 || [409, 423, 429].includes(status) || (status >= 500 && status !== 501);
  return new NeonApiFailure(`${start}: ${answer}`, retryable);
}
