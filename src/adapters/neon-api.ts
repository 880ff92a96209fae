// Neon's management API: projects, branches and their connection strings. No other file calls it. Each function sends a few
// requests, does not wait for Neon's operations and can be repeated after any outcome, a lost answer included: it looks for
// the exact name before it creates, and a missing thing counts as removed.
// Errors carry a status and Neon's error code. They never carry Neon's texts or the original error, which may quote an answer
// with a password in it.
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
import { type FailureKind, OutsideFailure } from "../core/errors.ts";

const NEON_API = "https://console.neon.tech/api/v2";

/** Neon usually answers within a second. The caller retries a slower request. */
const REQUEST_TIMEOUT_MS = 15_000;

/** Neon's largest page. */
const PROJECTS_PER_PAGE = 400;
const BRANCHES_PER_PAGE = 100;
/** Newest first. Creating a project takes two or three operations; each sleep and wake of a compute adds two. */
const RECENT_OPERATIONS = 100;

/** The database and its owner in every project that Tollgate creates. */
const DATABASE = "tollgate";
const OWNER = "tollgate_owner";

/** Operations that a usable branch needs. Others, such as putting a compute to sleep, may fail without harm. */
const makingActions: ReadonlySet<string> = new Set([
  "create_timeline",
  "create_branch",
  "create_compute",
  "start_compute",
  "apply_config",
]);
const doneStatuses: ReadonlySet<string> = new Set(["finished", "skipped"]);
const failedStatuses: ReadonlySet<string> = new Set(["failed", "error", "cancelled"]);

/** Neon did not complete a request, or its outcome is unknown. */
export class NeonApiFailure extends OutsideFailure {
  /** Whether the same request may succeed later without a person's help. */
  readonly retryable: boolean;
  /** `kind`: what a person corrects for the whole account, such as the key or a limit, is temporary for a tenant. */
  constructor(message: string, retryable: boolean, kind: FailureKind = retryable ? "temporary" : "permanent") {
    super("placement_unavailable", `${message}${retryable ? "; retryable" : ""}`, kind);
    this.name = "NeonApiFailure";
    this.retryable = retryable;
  }
}

/** Neon answered 404. */
export class GoneFailure extends NeonApiFailure {}

export interface OpenedProject {
  projectId: string;
  /** Whether it accepts connections. If not, ask `projectReady` later, which also reports a failure. */
  ready: boolean;
  /**
   * Younger projects of the same name, which concurrent callers created; usually empty. They are not removed here: only
   * the caller can know that none is in use.
   */
  duplicates: string[];
}

export interface OwnerConnection {
  /** `host` or `host:port` of the compute itself. */
  host: string;
  /** `host` or `host:port` of Neon's pooler. */
  pooledHost: string;
  database: string;
  user: string;
  password: string;
}

type KnownProject = Pick<Project, "id" | "name" | "region_id" | "created_at">;

/** Connects on the first call, not before. `apiKey` belongs to an organization; an empty `apiBase` means Neon's own. */
export function connectNeonApi({ apiKey, apiBase }: { apiKey: string; apiBase: string }) {
  const client = createClient(
    createConfig({
      baseUrl: apiBase === "" ? NEON_API : apiBase,
      // The SDK would send the key as a console's cookie too.
      auth: ({ type }) => (type === "http" ? apiKey : undefined),
    }),
  );

  /** Sends one request, without retries. `what` completes "Neon could not" in the error. */
  async function ask<T>(
    what: string,
    send: (options: { client: typeof client; signal: AbortSignal; throwOnError: true }) => Promise<T>,
  ): Promise<T> {
    if (apiKey === "") throw new NeonApiFailure("NEON_API_KEY is not set", false, "temporary");
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
      // Neon leaves out projects that it could not read in time. A project that is not listed may still exist.
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
    // The default branch is the oldest of its project, unless a person has chosen another one.
    const query = { sort_by: "created_at", sort_order: "asc", limit: BRANCHES_PER_PAGE } as const;
    const page = await ask(`list the branches of project ${projectId}`, (options) =>
      listProjectBranches({ ...options, path, query }),
    );
    return page.branches.find((branch) => branch.default);
  }

  /**
   * The progress of a branch: usable, not yet usable, or the failed operation that it needed. Without `branchId` it is the
   * default branch, and no other operation of the project may be running.
   */
  async function progress(projectId: string, branchId: string | undefined): Promise<"ready" | "pending" | Operation> {
    const path = { project_id: projectId };
    const { operations } = await ask(`list the operations of project ${projectId}`, (options) =>
      listProjectOperations({ ...options, path, query: { limit: RECENT_OPERATIONS } }),
    );
    const branch = await branchOf(projectId, branchId);
    const own = operations.filter(({ branch_id }) => branch_id === undefined || branch_id === branch?.id);
    // The first failure is the cause: Neon cancels the operations after it.
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
      `Neon could not create ${place}: operation ${state.action} (${state.id}) ended as ${state.status}`,
      false,
    );
  }

  async function connectionUri(projectId: string, branchId: string | undefined, pooled: boolean): Promise<URL> {
    const path = { project_id: projectId };
    const query = { database_name: DATABASE, role_name: OWNER, pooled, ...(branchId && { branch_id: branchId }) };
    const what = `give the connection string of project ${projectId}`;
    const { uri } = await ask(what, (options) => getConnectionUri({ ...options, path, query }));
    // The error of `new URL` would quote the password.
    if (!URL.canParse(uri)) throw new NeonApiFailure(`Neon could not ${what}: its answer is not a URI`, false);
    return new URL(uri);
  }

  return {
    /**
     * Finds the project of this name, or creates it with a database and an owner. When there are several, it takes the oldest,
     * so that every caller gets the same one. Store the id: the name is only a way to find it.
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
            // `ownerConnection` reads the owner's password later.
            store_passwords: true,
            branch: { database_name: DATABASE, role_name: OWNER },
          },
        };
        const { project } = await ask(`create project ${name}`, (options) => createProject({ ...options, body }));
        // A concurrent caller may have created one too.
        found = await projectsNamed(name);
        // Neon's list may lag behind and lack the new project.
        if (!found.some(({ id }) => id === project.id)) found.push(project);
      }
      const [oldest, ...younger] = found.toSorted(byAge);
      if (oldest === undefined) throw new NeonApiFailure(`Neon could not create project ${name}`, true);
      // A contract may fix the region of the data.
      if (oldest.region_id !== regionId) {
        throw new NeonApiFailure(`Neon has project ${name} in ${oldest.region_id}, not in ${regionId}`, false);
      }
      const isReady = (await progress(oldest.id, undefined)) === "ready";
      return { projectId: oldest.id, ready: isReady, duplicates: younger.map(({ id }) => id) };
    },

    /** Whether a project accepts connections. Throws when an operation that it needs has failed, and names the operation. */
    async projectReady(projectId: string): Promise<boolean> {
      return await ready(projectId, undefined);
    },

    /** The owner's connection to the project's default branch or another branch. */
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

    /** Removes a project and everything in it. A missing project counts as removed. */
    async closeProject(projectId: string): Promise<void> {
      const path = { project_id: projectId };
      await unlessGone(ask(`remove project ${projectId}`, (options) => deleteProject({ ...options, path })));
    },

    /**
     * Removes every project of this name, also those whose id was never stored. Returns whether Neon lists none any more.
     */
    async closeProjectsNamed(name: string): Promise<boolean> {
      for (const { id } of await projectsNamed(name)) {
        const path = { project_id: id };
        await unlessGone(ask(`remove project ${id}`, (options) => deleteProject({ ...options, path })));
      }
      return (await projectsNamed(name)).length === 0;
    },

    /**
     * Finds the branch of this name, or creates it with a compute: a copy of `parentId` (by default the default branch) as it
     * is now or as it was at `fromTimestamp`. Does not compare an existing branch with these options: use one name for one
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
        const made = await ask(`create branch ${name} of project ${projectId}`, (options) =>
          createProjectBranch({ ...options, path, body }),
        );
        branch = made.branch;
      }
      return { branchId: branch.id, ready: (await progress(projectId, branch.id)) === "ready" };
    },

    /** Whether a branch accepts connections. Throws when an operation that it needs has failed, and names the operation. */
    async branchReady(projectId: string, branchId: string): Promise<boolean> {
      return await ready(projectId, branchId);
    },

    /** Removes a branch and its compute. A missing branch counts as removed. */
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

/** Every item of exactly this name. Neon's search also matches parts of names and ids. */
async function walk<T extends { name: string }>(
  pageAfter: (cursor: string | undefined) => Promise<{ items: T[]; next: string | undefined }>,
  name: string,
): Promise<T[]> {
  const found: T[] = [];
  let cursor: string | undefined;
  for (;;) {
    const { items, next } = await pageAfter(cursor);
    found.push(...items.filter((item) => item.name === name));
    // The last page has a cursor too; the page after it is empty.
    if (items.length === 0 || next === undefined || next === "" || next === cursor) return found;
    cursor = next;
  }
}

function byAge(a: KnownProject, b: KnownProject): number {
  return Date.parse(a.created_at) - Date.parse(b.created_at) || (a.id < b.id ? -1 : 1);
}

/** Whether no newer operation of the same kind ran on the same branch. `operations` are newest first. */
function isLatestOfItsKind(operation: Operation, index: number, operations: readonly Operation[]): boolean {
  if (!makingActions.has(operation.action)) return false;
  const newer = operations.slice(0, index);
  return !newer.some(({ action, branch_id }) => action === operation.action && branch_id === operation.branch_id);
}

/** Accepts the 404 of a missing thing. For a missing branch Neon also answers 204. */
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
  // Without a status there was no answer: Neon may have carried the request out.
  if (!("status" in error) || typeof error.status !== "number") {
    const reason = error.kind === "network" && /^[A-Z_]{1,40}$/.test(error.reason) ? ` (${error.reason})` : "";
    return new NeonApiFailure(`${start}: no answer${reason}`, true);
  }
  const { status } = error;
  const code = "code" in error && error.code !== undefined && /^[A-Z0-9_]{1,60}$/.test(error.code) ? error.code : "";
  const answer = [status, code].filter(Boolean).join(" ");
  if (status === 401 || status === 403) {
    return new NeonApiFailure(`${start}: NEON_API_KEY is not accepted (${answer})`, false, "temporary");
  }
  if (status === 404) return new GoneFailure(`${start}: it does not exist (${answer})`, false);
  // A success with an unreadable body is a lost answer. 409 is the answer for a name that was taken meanwhile: the next call
  // finds it. 501 will not change.
  const retryable = status < 400 || [409, 423, 429].includes(status) || (status >= 500 && status !== 501);
  // The account is full, or not paid: an operator corrects it for all tenants.
  const isAccount = status === 402 || code.includes("LIMIT");
  return new NeonApiFailure(`${start}: ${answer}`, retryable, isAccount ? "temporary" : undefined);
}
