// Answers /health for a monitor. Every failure class is a named check; one failing check makes the answer 503. Reasons are
// Tollgate's own words, never a database's, and name no tenant. Strangers see the checks and their reasons; the facts, such as
// counts, are for the operator's token. Every check is always named: one that cannot be looked at fails with that reason.
// One look serves all requests of ten seconds, also when they come at once, so that probes and crowds cost nothing.
import * as z from "zod";
import { type TenantBehind, fleetStore } from "../fleet/fleet-store.ts";
import { proveBranch } from "../tenant-db/branch.ts";
import { expectedVersion, missingFiles } from "../tenant-db/migrations.ts";
import { analyticsConnections } from "../tenant-db/dispatch.ts";
import { type ReadShard, type Shard, placementsStore } from "../control/placements-store.ts";
import { tenantsStore } from "../control/tenants-store.ts";
import { ownerUrl, proveShard } from "../tenant-db/dispatch.ts";
import type { Context } from "../control/context.ts";
import { type ReplicaState, replicaState } from "../adapters/replica.ts";
import { TimeoutError, withTimeout } from "../adapters/timeout.ts";
import { errorCode } from "../core/errors.ts";
import { isOperator } from "../identity/operators/operator-requests.ts";
import type { IsolationProof } from "../tenant-db/isolation.ts";
import {
  CONTROL_AWAY,
  type Check,
  type Unreachable,
  failedCheck,
  indicatorChecks,
  isolationOf,
  passedCheck,
  replicasCheck,
  unknownIndicators,
} from "./health-checks.ts";
import { readDeployment } from "./deployment-state.ts";
import type { DeploymentState } from "./indicators.ts";
import { ReportCache } from "../control/report-cache.ts";
import { SESSION_BUDGET_NAME } from "../tenant-db/session-budget.ts";
import { strategies } from "../core/plans/plans.ts";
import { TenantId } from "../core/tenant/tenant.ts";
import { refusedByState } from "../core/tenant/tenant-state.ts";
import { describeError, log } from "../log.ts";
import { type HttpContext, noStore, noSuchTenant } from "../http.ts";

const CACHED_MS = 10_000;
/** Maximum number of cached answers for single tenants. The oldest leaves first. */
const MAX_CACHED = 1_000;
/** Time limit of each check, so that /health reports a part that hangs instead of hanging too. */
const CHECK_TIMEOUT_MS = 5_000;
/** Time limit of one shard's proof: shorter, so that the check can name the shard. */
const SHARD_TIMEOUT_MS = 4_000;
/** A look ends within its checks' time limit, unless the request that does it was cancelled. Then another request looks. */
const LOOK_TIMEOUT_MS = CHECK_TIMEOUT_MS + 1_000;

/** The guard of the route reads both, too. */
export const HealthQuery = z.strictObject({ tenant: z.string().optional(), token: z.string().optional() });

export interface Report {
  status: "ok" | "failing";
  checkedAt: string;
  checks: Record<string, Check>;
}

const reports = new ReportCache<Report>({ cachedMs: CACHED_MS, lookMs: LOOK_TIMEOUT_MS, maxReports: MAX_CACHED });

/** The deployment's health, or with `?tenant=` that tenant's, for the holder of its monitor token. */
export async function showHealth(c: HttpContext): Promise<Response> {
  const named = c.req.query("tenant");
  if (named === undefined) {
    const report = await deploymentReport(c.get("context"));
    return answer((await isOperator(c)) ? report : withoutFacts(report));
  }
  const id = TenantId.safeParse(named);
  if (!id.success) throw noSuchTenant();
  return answer(await reports.get(id.data, async () => reportOf(await tenantChecks(c.get("context"), id.data))));
}

/** The deployment's health, as it was in the last ten seconds. */
export function deploymentReport(context: Context): Promise<Report> {
  return reports.get("", async () => reportOf(await deploymentChecks(context)));
}

async function deploymentChecks(context: Context): Promise<Record<string, Check>> {
  const { env, control } = context;
  const [isolation, quota, sessions, replicas, files, stateRead] = await Promise.all([
    check("isolation", () => isolationCheck(context)),
    check("quota_store", async () => {
      await env.TENANT.getByName(HEALTH_OBJECT).probe();
      return passedCheck();
    }),
    check("sessions", async () => {
      const { budget, held } = await env.SESSIONS.getByName(SESSION_BUDGET_NAME).usage();
      return passedCheck({ budget, ...Object.fromEntries(strategies.map((name) => [name, held[name] ?? noSessions])) });
    }),
    check("replicas", async () => {
      const shards = await placementsStore(control).replicated();
      const found = await Promise.all(shards.map(async (shard) => [shard.id, await replicaOf(env, shard)] as const));
      return replicasCheck(Object.fromEntries(found));
    }),
    check("files", async () => {
      await env.FILES.head("health");
      return passedCheck();
    }),
    check("control_database", async () => ({
      ...passedCheck(),
      state: await readDeployment(context, Date.now()),
    })),
  ]);
  const { state, ...controlDatabase } = stateRead as Check & { state?: DeploymentState };
  return {
    isolation,
    control_database: controlDatabase,
    quota_store: quota,
    files,
    sessions,
    replicas,
    ...(state === undefined ? unknownIndicators() : indicatorChecks(state)),
  };
}

/** Proves on every shard that tenants are apart. */
async function isolationCheck({ env, control }: Context): Promise<Check> {
  const placements = placementsStore(control);
  const [shared, own, alone] = await Promise.all(strategies.map((strategy) => placements.shards(strategy)));
  if (shared === undefined || shared.length === 0) return failedCheck("no shard is registered: run npm run migrate");
  // A tenant's own database holds one tenant, whose object proves its login. Each answer checks a few of them.
  const some = (alone ?? []).toSorted(() => Math.random() - 0.5).slice(0, DATABASES_LOOKED_AT);
  const prove = async (shard: Shard, work: () => Promise<IsolationProof>): Promise<IsolationProof | Unreachable> => {
    try {
      return await withTimeout(SHARD_TIMEOUT_MS, work());
    } catch (error) {
      log("error", "shard_not_proved", { shardId: shard.id, error: describeError(error) });
      return { unreachable: shard.strategy === "database" ? "a tenant's own database" : shard.id };
    }
  };
  const proofs = await Promise.all([
    ...shared.map((shard) => prove(shard, () => proveShard(env, shard))),
    ...[...(own ?? []), ...some].map((shard) =>
      prove(shard, async () => proveBranch(await ownerUrl(env, shard), env.NEON_FETCH_ENDPOINT)),
    ),
  ]);
  const counts = { shared: shared.length, schema: own?.length ?? 0, database: alone?.length ?? 0 };
  return isolationOf(proofs, counts);
}

/** The replica's state; `null` when it did not answer. */
async function replicaOf(env: Env, shard: ReadShard): Promise<ReplicaState | null> {
  try {
    const { primary, replica } = await analyticsConnections(env, shard);
    return replica === undefined ? null : await replicaState(primary, replica);
  } catch (error) {
    log("error", "replica_not_asked", { shardId: shard.id, error: describeError(error) });
    return null;
  }
}

/** Checks one tenant's data path: its row, its object, its rows and tables in the database, its files. */
async function tenantChecks(context: Context, tenantId: TenantId): Promise<Record<string, Check>> {
  const { env, control } = context;
  const [account, object, database, migrations, files] = await Promise.all([
    check("account", async () => {
      const config = await tenantsStore(control).config(tenantId);
      if (config === undefined) return failedCheck("there is no such tenant");
      const refused = refusedByState(config, Date.now());
      return refused === undefined ? passedCheck() : failedCheck(refused);
    }),
    check("quota_store", async () => {
      await context.tenantObject(tenantId).probe();
      return passedCheck();
    }),
    check("database", async () => {
      const fault = await context.tenantObject(tenantId).checkRows();
      return fault === undefined ? passedCheck() : failedCheck(fault);
    }),
    check("migrations", async () => {
      const [behind] = await fleetStore(control).tenantsBehind(expectedVersion(), { only: tenantId, limit: 1 });
      return behind === undefined ? passedCheck() : failedCheck(lackingFiles(behind));
    }),
    check("files", async () => {
      await env.FILES.list({ prefix: `tenants/${tenantId}/`, limit: 1 });
      return passedCheck();
    }),
  ]);
  return { account, quota_store: object, database, migrations, files };
}

function lackingFiles({ version }: TenantBehind): string {
  return `the tenant's tables lack ${missingFiles(version).join(", ")}: run npm run migrate`;
}

/** With a thousand databases, each is checked within a quarter of an hour. */
const DATABASES_LOOKED_AT = 10;

const noSessions = { slots: 0, used: 0, idle: 0, waiting: 0 };

/** Name of an object that belongs to no tenant. It is not a valid tenant id. */
const HEALTH_OBJECT = "~health";

async function check(name: string, work: () => Promise<Check>): Promise<Check> {
  const startedAtMs = Date.now();
  try {
    return { ...(await withTimeout(CHECK_TIMEOUT_MS, work())), tookMs: Date.now() - startedAtMs };
  } catch (error) {
    log("error", "health_check_failed", { check: name, error: describeError(error) });
    return { ...failedCheck(whyNotChecked(name, error)), tookMs: Date.now() - startedAtMs };
  }
}

function whyNotChecked(name: string, error: unknown): string {
  if (errorCode(error) === "control_unavailable" && name !== "control_database") return CONTROL_AWAY;
  return error instanceof TimeoutError
    ? `it did not answer within ${CHECK_TIMEOUT_MS / 1000} s`
    : "it cannot be reached";
}

function reportOf(checks: Record<string, Check>): Report {
  const isFailing = Object.values(checks).some(({ ok }) => !ok);
  return { status: isFailing ? "failing" : "ok", checkedAt: new Date().toISOString(), checks };
}

function withoutFacts(report: Report): Report {
  const checks = Object.entries(report.checks).map(([name, { ok, reason }]) => [name, ok ? { ok } : { ok, reason }]);
  return { ...report, checks: Object.fromEntries(checks) as Report["checks"] };
}

function answer(report: Report): Response {
  return Response.json(report, {
    status: report.status === "ok" ? 200 : 503,
    headers: noStore,
  });
}
