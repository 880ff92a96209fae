// The answers of the stand-in for Neon's API, in the shapes of `@neon/sdk`.
//
// Consumption figures are zero, and a compute is always active. Invariant: like Neon, only connection strings and the roles
// in the answer to a creation contain passwords.
import type { Branch, ConnectionDetails, Database, Endpoint, Operation, Project, Role } from "@neon/sdk";
import type { StoredBranch, StoredOperation, StoredProject } from "./api-state.ts";

const OWNER_ID = "org-local-00000000";
/** Neon's default history, one day. The stand-in has no history. */
const HISTORY_S = 86_400;

export function showProject(project: StoredProject): Project {
  const createdAt = showInstant(project.createdAtMs);
  return {
    data_storage_bytes_hour: 0,
    data_transfer_bytes: 0,
    written_data_bytes: 0,
    compute_time_seconds: 0,
    active_time_seconds: 0,
    cpu_used_sec: 0,
    id: project.id,
    platform_id: project.regionId.split("-")[0] ?? "aws",
    region_id: project.regionId,
    name: project.name,
    provisioner: "k8s-neonvm",
    pg_version: project.pgVersion,
    proxy_host: "127.0.0.1",
    branch_logical_size_limit: 0,
    branch_logical_size_limit_bytes: 0,
    store_passwords: true,
    creation_source: "console",
    history_retention_seconds: HISTORY_S,
    created_at: createdAt,
    updated_at: createdAt,
    consumption_period_start: createdAt,
    consumption_period_end: createdAt,
    owner_id: OWNER_ID,
    org_id: OWNER_ID,
  };
}

export function showBranch(project: StoredProject, branch: StoredBranch): Branch {
  const createdAt = showInstant(branch.createdAtMs);
  return {
    id: branch.id,
    project_id: project.id,
    ...(branch.parentId !== undefined && { parent_id: branch.parentId }),
    ...(branch.parentTimestamp !== undefined && { parent_timestamp: branch.parentTimestamp }),
    name: branch.name,
    current_state: branch.state === "ready" ? "ready" : "init",
    ...(branch.state === "init" && { pending_state: "ready" }),
    state_changed_at: createdAt,
    creation_source: "console",
    default: branch.isDefault,
    protected: false,
    cpu_used_sec: 0,
    compute_time_seconds: 0,
    active_time_seconds: 0,
    written_data_bytes: 0,
    data_transfer_bytes: 0,
    created_at: createdAt,
    updated_at: createdAt,
  };
}

export function showOperation(project: StoredProject, operation: StoredOperation): Operation {
  const branch = project.branches.find(({ id }) => id === operation.branchId);
  return {
    id: operation.id,
    project_id: project.id,
    branch_id: operation.branchId,
    ...(operation.action === "start_compute" && branch?.endpointId !== undefined && { endpoint_id: branch.endpointId }),
    action: operation.action,
    status: operation.status,
    ...(operation.error !== undefined && { error: operation.error }),
    failures_count: operation.failures,
    created_at: showInstant(operation.createdAtMs),
    updated_at: showInstant(operation.updatedAtMs),
    total_duration_ms: operation.updatedAtMs - operation.createdAtMs,
  };
}

/** The computes of a branch: one or none. */
export function showEndpoints(project: StoredProject, branch: StoredBranch, host: string): Endpoint[] {
  if (branch.endpointId === undefined) return [];
  const createdAt = showInstant(branch.createdAtMs);
  return [
    {
      host,
      id: branch.endpointId,
      project_id: project.id,
      branch_id: branch.id,
      autoscaling_limit_min_cu: 0.25,
      autoscaling_limit_max_cu: 0.25,
      region_id: project.regionId,
      type: "read_write",
      current_state: branch.state === "ready" ? "active" : "init",
      settings: {},
      pooler_enabled: false,
      pooler_mode: "transaction",
      disabled: false,
      passwordless_access: false,
      creation_source: "console",
      created_at: createdAt,
      updated_at: createdAt,
      proxy_host: "127.0.0.1",
      suspend_timeout_seconds: 0,
      provisioner: "k8s-neonvm",
    },
  ];
}

export function showRole(project: StoredProject, branch: StoredBranch): Role {
  const createdAt = showInstant(branch.createdAtMs);
  return {
    branch_id: branch.id,
    name: project.roleName,
    protected: false,
    created_at: createdAt,
    updated_at: createdAt,
  };
}

export function showDatabase(project: StoredProject, branch: StoredBranch): Database {
  const createdAt = showInstant(branch.createdAtMs);
  return {
    id: 1,
    branch_id: branch.id,
    name: project.databaseName,
    owner_name: project.roleName,
    created_at: createdAt,
    updated_at: createdAt,
  };
}

/** Unlike Neon's, it has the names of the cluster: branches in one cluster cannot share the name of a database or role. */
export function showConnection(project: StoredProject, branch: StoredBranch, host: string): ConnectionDetails {
  const { owner, password } = project;
  return {
    connection_uri: `postgresql://${owner}:${encodeURIComponent(password)}@${host}/${branch.database}`,
    connection_parameters: { database: branch.database, password, role: owner, host, pooler_host: host },
  };
}

/** Neon shows whole seconds. */
function showInstant(atMs: number): string {
  return new Date(atMs).toISOString().replace(/\.\d+Z$/, "Z");
}
