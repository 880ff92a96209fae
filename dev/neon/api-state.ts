// The state of the stand-in for Neon's API: projects with their branches and operations, in one file.
//
// Decides names and storage. Invariants: the file is replaced as a whole and is on disk before its operations start, so a
// kill leaves the old or the new state and never a database without an entry. The file holds passwords, so only its owner
// can read it.
import { randomBytes, randomInt, randomUUID } from "node:crypto";
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import * as z from "zod";

/** Operations kept in the file. Neon keeps them for months; debugging needs only the newest. */
const KEPT_OPERATIONS = 200;

const Operation = z.object({
  id: z.string(),
  action: z.enum(["create_timeline", "create_branch", "start_compute", "delete_timeline"]),
  status: z.enum(["scheduling", "running", "finished", "failed", "cancelled"]),
  branchId: z.string(),
  error: z.string().optional(),
  failures: z.number().default(0),
  createdAtMs: z.number(),
  updatedAtMs: z.number(),
});
export type StoredOperation = z.output<typeof Operation>;

const Branch = z.object({
  id: z.string(),
  name: z.string(),
  parentId: z.string().optional(),
  parentTimestamp: z.string().optional(),
  isDefault: z.boolean(),
  /** `leaving` after its removal: hidden from answers while its database is not yet dropped. */
  state: z.enum(["init", "ready", "leaving"]),
  database: z.string(),
  endpointId: z.string().optional(),
  createdAtMs: z.number(),
});
export type StoredBranch = z.output<typeof Branch>;

const Project = z.object({
  id: z.string(),
  name: z.string(),
  regionId: z.string(),
  pgVersion: z.number(),
  /** Names of database and role in the API. In the cluster they have other names. */
  databaseName: z.string(),
  roleName: z.string(),
  owner: z.string(),
  password: z.string(),
  isLeaving: z.boolean(),
  createdAtMs: z.number(),
  branches: z.array(Branch),
  /** Operations in the order in which they run. */
  operations: z.array(Operation),
});
export type StoredProject = z.output<typeof Project>;

const State = z.object({ projects: z.array(Project) });

export interface Store {
  /** Projects, oldest first. Callers change them in place, then save. */
  projects: StoredProject[];
  save(): void;
}

/** Reads the file. Starts without projects when it does not exist. Throws when its content is invalid. */
export function openStore(stateFile: string): Store {
  const state = existsSync(stateFile) ? State.parse(JSON.parse(readFileSync(stateFile, "utf8"))) : { projects: [] };
  return {
    projects: state.projects,
    save: () => {
      for (const project of state.projects) {
        const spare = project.operations.length - KEPT_OPERATIONS;
        if (spare > 0) project.operations.splice(0, spare);
      }
      replaceFile(stateFile, JSON.stringify(state));
    },
  };
}

function replaceFile(path: string, text: string): void {
  const draft = `${path}.new`;
  const file = openSync(draft, "w", 0o600);
  try {
    writeSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(draft, path);
}

export function isOver(operation: StoredOperation): boolean {
  return operation.status !== "scheduling" && operation.status !== "running";
}

export function newProject(
  order: { name: string | undefined; regionId: string; pgVersion: number; branchName: string } & Pick<
    StoredProject,
    "databaseName" | "roleName"
  >,
  nowMs: number,
): StoredProject {
  const { name, branchName, ...rest } = order;
  const id = newName(8, "0123456789");
  const project: StoredProject = {
    ...rest,
    id,
    name: name ?? id,
    owner: `neondb_owner_${id.replaceAll("-", "_")}`,
    password: `npg_${randomBytes(18).toString("base64url")}`,
    isLeaving: false,
    createdAtMs: nowMs,
    branches: [],
    operations: [],
  };
  addBranch(project, { name: branchName, isDefault: true, withCompute: true }, nowMs);
  return project;
}

/** Adds a branch and the operations that create it. A branch with a parent is a copy of the parent. */
export function addBranch(
  project: StoredProject,
  order: Pick<StoredBranch, "isDefault" | "parentId" | "parentTimestamp"> & {
    name: string | undefined;
    withCompute: boolean;
  },
  nowMs: number,
): { branch: StoredBranch; operations: StoredOperation[] } {
  const { withCompute, name, ...rest } = order;
  const key = newName(8);
  const branch: StoredBranch = {
    ...rest,
    id: `br-${key}`,
    name: name ?? `br-${key}`,
    state: "init",
    // Contains the id in the API, so that a database in the cluster can be traced to its branch.
    database: `neon_${(rest.isDefault ? project.id : `br-${key}`).replaceAll("-", "_")}`,
    ...(withCompute && { endpointId: `ep-${key}` }),
    createdAtMs: nowMs,
  };
  project.branches.push(branch);
  const operations = [addOperation(project, branch, branch.isDefault ? "create_timeline" : "create_branch", nowMs)];
  if (withCompute) operations.push(addOperation(project, branch, "start_compute", nowMs));
  return { branch, operations };
}

export function addOperation(
  project: StoredProject,
  branch: StoredBranch,
  action: StoredOperation["action"],
  nowMs: number,
): StoredOperation {
  const operation: StoredOperation = {
    id: randomUUID(),
    action,
    status: "scheduling",
    branchId: branch.id,
    failures: 0,
    createdAtMs: nowMs,
    updatedAtMs: nowMs,
  };
  project.operations.push(operation);
  return operation;
}

const ADJECTIVES = ["calm", "cool", "damp", "late", "long", "odd", "quiet", "small", "still", "wild"];
const NOUNS = ["bird", "brook", "cloud", "fog", "frost", "glade", "hill", "lake", "meadow", "river"];

/** An id in Neon's form, such as `quiet-fog-50598307`. */
function newName(length: number, alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"): string {
  const tail = Array.from({ length }, () => alphabet.charAt(randomInt(alphabet.length))).join("");
  return `${ADJECTIVES[randomInt(ADJECTIVES.length)]}-${NOUNS[randomInt(NOUNS.length)]}-${tail}`;
}
