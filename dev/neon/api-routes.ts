// The routes of the stand-in for Neon's management API.
//
// Decides which requests are refused and which operations the others start. Invariant: a request's change is saved before
// its answer is sent; the operations run after that.
import * as z from "zod";
import {
  showBranch,
  showConnection,
  showDatabase,
  showEndpoints,
  showOperation,
  showProject,
  showRole,
} from "./api-shapes.ts";
import {
  addBranch,
  addOperation,
  isOver,
  newProject,
  type Store,
  type StoredBranch,
  type StoredProject,
} from "./api-state.ts";
import type { Work } from "./api-work.ts";

/** The Launch plan's. */
const MAX_PROJECTS = 100;
/** A point in time within this distance from now counts as now. */
const NOW_TOLERANCE_MS = 5_000;

const Name = z.string().min(1).max(256);
const ProjectOrder = z.strictObject({
  project: z.strictObject({
    name: Name.optional(),
    region_id: z
      .string()
      .regex(/^(aws|azure)-[a-z0-9-]+$/)
      .default("aws-us-east-2"),
    pg_version: z.int().min(14).max(18).default(18),
    store_passwords: z.literal(true).optional(),
    branch: z
      .strictObject({
        name: Name.default("main"),
        role_name: Name.default("neondb_owner"),
        database_name: Name.default("neondb"),
      })
      .prefault({}),
  }),
});
const BranchOrder = z.strictObject({
  branch: z
    .strictObject({
      name: Name.optional(),
      parent_id: z.string().optional(),
      parent_timestamp: z.iso.datetime({ offset: true }).optional(),
    })
    .prefault({}),
  endpoints: z
    .array(z.strictObject({ type: z.literal("read_write") }))
    .max(1)
    .default([]),
});
const PageQuery = z.object({
  cursor: z.string().optional(),
  limit: z.coerce.number().int().min(1).max(1_000).default(10),
  search: z.string().default(""),
});

/** An answer of the API that is an error. */
export class ApiError extends Error {
  status: number;
  code: string;
  constructor(status: number, message: string, code = "") {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export interface Answer {
  status: number;
  body: object;
}

/** Makes the handler of requests, by method and path below the API's base. `host` is the databases' host. */
export function createRoutes(options: {
  store: Store;
  work: Work;
  host: string;
  maxProjects: number | undefined;
  /** Maximum page size. Pages may be shorter than requested. */
  maxPerPage: number | undefined;
}) {
  const { store, work, host, maxProjects = MAX_PROJECTS, maxPerPage = Infinity } = options;

  function projectOf(id: string): StoredProject {
    const project = store.projects.find((candidate) => candidate.id === id && !candidate.isLeaving);
    if (project === undefined) throw new ApiError(404, "project not found");
    return project;
  }

  function branchOf(project: StoredProject, id: string | undefined): StoredBranch {
    const branch = project.branches.find((candidate) => (id === undefined ? candidate.isDefault : candidate.id === id));
    if (branch === undefined || branch.state === "leaving") throw new ApiError(404, "branch not found");
    return branch;
  }

  /** Saves the change, then starts its operations. */
  function commit(project: StoredProject): void {
    store.save();
    work.start(project);
  }

  function createProject(body: unknown): Answer {
    const { name, region_id, pg_version, branch } = ProjectOrder.parse(body).project;
    if (store.projects.filter(({ isLeaving }) => !isLeaving).length >= maxProjects) {
      throw new ApiError(422, "projects limit exceeded", "PROJECTS_LIMIT_EXCEEDED");
    }
    const { name: branchName, database_name: databaseName, role_name: roleName } = branch;
    const order = { name, regionId: region_id, pgVersion: pg_version, branchName, databaseName, roleName };
    const project = newProject(order, Date.now());
    store.projects.push(project);
    commit(project);
    return {
      status: 201,
      body: { project: showProject(project), ...madeBranch(project, branchOf(project, undefined)) },
    };
  }

  function createBranch(project: StoredProject, body: unknown): Answer {
    const { branch: order, endpoints } = BranchOrder.parse(body);
    const parent = branchOf(project, order.parent_id);
    refuseIfBusy(project);
    const { name, parent_timestamp: parentTimestamp } = order;
    if (parentTimestamp !== undefined) refuseOtherThanNow(Date.parse(parentTimestamp));
    if (name !== undefined && project.branches.some((other) => other.name === name)) {
      throw new ApiError(409, "branch already exists");
    }
    const { branch } = addBranch(
      project,
      {
        name,
        isDefault: false,
        withCompute: endpoints.length > 0,
        parentId: parent.id,
        ...(parentTimestamp !== undefined && { parentTimestamp }),
      },
      Date.now(),
    );
    commit(project);
    return { status: 201, body: madeBranch(project, branch) };
  }

  function madeBranch(project: StoredProject, branch: StoredBranch): object {
    const operations = project.operations.filter(({ branchId }) => branchId === branch.id);
    return {
      branch: showBranch(project, branch),
      endpoints: showEndpoints(project, branch, host),
      operations: operations.map((operation) => showOperation(project, operation)),
      roles: [{ ...showRole(project, branch), password: project.password }],
      databases: [showDatabase(project, branch)],
      ...(branch.endpointId !== undefined && { connection_uris: [showConnection(project, branch, host)] }),
    };
  }

  function removeProject(project: StoredProject): Answer {
    refuseIfBusy(project);
    project.isLeaving = true;
    commit(project);
    return { status: 200, body: { project: showProject(project) } };
  }

  function removeBranch(project: StoredProject, id: string): Answer {
    const branch = project.branches.find((candidate) => candidate.id === id && candidate.state !== "leaving");
    // Neon answers this for a deleted branch, and only for that.
    if (branch === undefined) return { status: 204, body: {} };
    if (branch.isDefault) throw new ApiError(422, "cannot delete the default branch");
    if (project.branches.some(({ parentId }) => parentId === id)) throw new ApiError(422, "branch has children");
    refuseIfBusy(project);
    branch.state = "leaving";
    const operation = addOperation(project, branch, "delete_timeline", Date.now());
    commit(project);
    const body = { branch: showBranch(project, branch), operations: [showOperation(project, operation)] };
    return { status: 200, body };
  }

  function connectionUri(project: StoredProject, query: URLSearchParams): Answer {
    const branch = branchOf(project, query.get("branch_id") ?? undefined);
    if (branch.endpointId === undefined) throw new ApiError(404, "endpoint not found");
    if (query.get("database_name") !== project.databaseName) throw new ApiError(404, "database not found");
    if (query.get("role_name") !== project.roleName) throw new ApiError(404, "role not found");
    return { status: 200, body: { uri: showConnection(project, branch, host).connection_uri } };
  }

  return function answer(method: string, path: string, query: URLSearchParams, body: unknown): Answer {
    const [resource, projectId, part, id, list, ...rest] = path.split("/").slice(1).map(decodeURIComponent);
    const unknown = new ApiError(404, "this request is not simulated");
    if (resource !== "projects" || rest.length > 0) throw unknown;
    if (projectId === undefined) {
      if (method === "POST") return createProject(body);
      if (method !== "GET") throw unknown;
      const page = pageOf(store.projects.filter(({ isLeaving }) => !isLeaving).toReversed(), query, maxPerPage);
      const projects = page.items.map((project) => ({ ...showProject(project), active_time: 0 }));
      return { status: 200, body: { projects, ...(page.cursor && { pagination: { cursor: page.cursor } }) } };
    }
    const project = projectOf(projectId);
    const live = project.branches.filter(({ state }) => state !== "leaving");
    switch (`${method} ${part ?? ""}${id === undefined ? "" : "/:id"}${list === undefined ? "" : `/${list}`}`) {
      case "GET ":
        return { status: 200, body: { project: showProject(project) } };
      case "DELETE ":
        return removeProject(project);
      case "GET operations": {
        const { items, cursor } = pageOf(project.operations.toReversed(), query, maxPerPage);
        const operations = items.map((operation) => showOperation(project, operation));
        return { status: 200, body: { operations, ...(cursor && { pagination: { cursor } }) } };
      }
      case "GET operations/:id": {
        const operation = project.operations.find((candidate) => candidate.id === id);
        if (operation === undefined) throw new ApiError(404, "operation not found");
        return { status: 200, body: { operation: showOperation(project, operation) } };
      }
      case "GET connection_uri":
        return connectionUri(project, query);
      case "GET endpoints":
        return { status: 200, body: { endpoints: live.flatMap((branch) => showEndpoints(project, branch, host)) } };
      case "POST branches":
        return createBranch(project, body);
      case "GET branches": {
        const isAscending = query.get("sort_order") === "asc";
        const { items, cursor } = pageOf(isAscending ? live : live.toReversed(), query, maxPerPage);
        const branches = items.map((branch) => showBranch(project, branch));
        return { status: 200, body: { branches, pagination: cursor === undefined ? {} : { next: cursor } } };
      }
      case "GET branches/:id":
        return { status: 200, body: { branch: showBranch(project, branchOf(project, id)) } };
      case "DELETE branches/:id":
        return removeBranch(project, id ?? "");
      case "GET branches/:id/endpoints":
        return { status: 200, body: { endpoints: showEndpoints(project, branchOf(project, id), host) } };
      case "GET branches/:id/databases":
        return { status: 200, body: { databases: [showDatabase(project, branchOf(project, id))] } };
      case "GET branches/:id/roles":
        return { status: 200, body: { roles: [showRole(project, branchOf(project, id))] } };
      default:
        throw unknown;
    }
  };
}

/** The matches after the cursor, which is the last id of the page before. Like Neon, the last page has a cursor, too. */
function pageOf<T extends { id: string; name?: string }>(
  all: readonly T[],
  query: URLSearchParams,
  maxPerPage: number,
): { items: T[]; cursor: string | undefined } {
  const { cursor, limit, search } = PageQuery.parse(Object.fromEntries(query));
  const first = cursor === undefined ? 0 : all.findIndex(({ id }) => id === cursor) + 1;
  if (cursor !== undefined && first === 0) throw new ApiError(400, "the cursor leads nowhere");
  const matches = all.slice(first).filter(({ id, name = "" }) => id.includes(search) || name.includes(search));
  const items = matches.slice(0, Math.min(limit, maxPerPage));
  return { items, cursor: items.at(-1)?.id };
}

function refuseIfBusy(project: StoredProject): void {
  if (project.operations.every(isOver)) return;
  throw new ApiError(423, "project already has running conflicting operations, scheduling of new ones is prohibited");
}

function refuseOtherThanNow(atMs: number): void {
  const ageMs = Date.now() - atMs;
  if (ageMs < -NOW_TOLERANCE_MS) throw new ApiError(400, "parent_timestamp is in the future");
  if (ageMs > NOW_TOLERANCE_MS) {
    throw new ApiError(501, "history is not simulated: a branch starts from its parent as it is now", "NOT_SIMULATED");
  }
}
