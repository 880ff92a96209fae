// The Workflow that turns a paid order into a tenant that answers. Every step can be repeated after any failure. The
// control tables record each step for the buyer to see. The tenant becomes active only after a real MCP call as that
// tenant succeeded through the public URL.
import { joinBatches } from "../adapters/neon.ts";
import { createContext } from "../control/context.ts";
import { WorkflowEntrypoint, type WorkflowEvent, type WorkflowStep, type WorkflowStepConfig } from "cloudflare:workers";
import { NonRetryableError } from "cloudflare:workflows";
import { callCanary } from "./canary.ts";
import { type TenantSummary, tenantsStore } from "../control/tenants-store.ts";
import { writeStorageMarker } from "../adapters/files.ts";
import { registerMonitor } from "../adapters/monitor.ts";
import { mintCredential } from "../core/keys/credentials.ts";
import { AppError, errorCode, errors, isPermanent, reasonOf, support } from "../core/errors.ts";
import { fleetStore } from "../fleet/fleet-store.ts";
import { monitorToken } from "../identity/keys/keys.ts";
import { linksStore } from "../identity/tokens/links-store.ts";
import { linkingIssuers } from "../identity/tokens/issuers.ts";
import { type ProvisioningStep, provisioningSteps } from "./provisioning.ts";
import { type StepRecord, provisioningStore } from "./provisioning-store.ts";
import { mustClose } from "./removal.ts";
import { removalsStore } from "./removals-store.ts";
import { TenantId } from "../core/tenant/tenant.ts";
import { describeError, log } from "../log.ts";
import { findPlacement } from "../tenant-db/placement.ts";
import { expectedVersion } from "../tenant-db/migrations.ts";
import { OPENING_POLL_MS, hasRoomAhead, makeRoomAhead } from "../tenant-db/shards.ts";

export interface ProvisioningParams {
  tenantId: string;
  attempt: number;
}

/** Long enough for a cold database. Short enough that a dead attempt is noticed soon. */
const stepConfig: WorkflowStepConfig = {
  retries: { limit: 4, delay: "1 second", backoff: "exponential" },
  timeout: "30 seconds",
};

/** Life of a canary token: longer than the canary's timeouts. */
const CANARY_LIFE_MS = 60_000;

export class Provisioning extends WorkflowEntrypoint<Env, ProvisioningParams> {
  override async run(event: Readonly<WorkflowEvent<ProvisioningParams>>, step: WorkflowStep): Promise<void> {
    const context = createContext(this.env);
    const { env, control } = context;
    const { attempt } = event.payload;
    const tenantId = TenantId.parse(event.payload.tenantId);
    const tenants = tenantsStore(control);
    const provisioning = provisioningStore(control);
    const links = linksStore(control);

    /** Whether this run knows that the attempt is the newest one. Each step uses that up; each record finds out again. */
    let isNewest = false;
    const requireNewest = (isCurrent: boolean): void => {
      if (!isCurrent) throw new NonRetryableError("a newer attempt has taken over");
    };
    /** Steps that are done and that the record of the next one records, too. */
    let unrecorded: StepRecord[] = [];
    /**
     * Does a step and records its outcome. `null`: the step is not done yet, and is done again. `withNext`: the next step
     * follows at once and records this one. `checks`: the work itself finds out whether the attempt is the newest one.
     */
    const recorded = async <Result>(
      name: ProvisioningStep,
      work: () => Promise<Result>,
      { withNext = false, checks = false } = {},
    ): Promise<Result> => {
      const startedAt = new Date().toISOString();
      try {
        if (!isNewest && !checks) requireNewest(await provisioning.isCurrentAttempt(tenantId, attempt));
        isNewest = false;
        const result = await work();
        const finishedAt = result === null ? null : new Date().toISOString();
        unrecorded.push({ step: name, startedAt, finishedAt, error: null, reason: null });
        // The next step begins in the same moment.
        isNewest = withNext || (await provisioning.recordSteps(tenantId, attempt, unrecorded, endsWith(name)));
        if (!withNext) unrecorded = [];
        return result;
      } catch (error) {
        const done = unrecorded.filter(({ step: other }) => other !== name);
        unrecorded = [];
        isNewest = false;
        log("warn", "provisioning_step_failed", { tenantId, attempt, step: name, error: describeError(error) });
        if (error instanceof NonRetryableError) throw error;
        const isRefused = isPermanent(error);
        const said = isRefused ? refusedWords(error) : inPlainWords(error);
        const reason = describeError(error);
        const failed = { step: name, startedAt, finishedAt: null, error: said, reason };
        await provisioning.recordSteps(tenantId, attempt, [...done, failed]);
        if (!isRefused) throw error;
        log("error", "provisioning_refused", { tenantId, attempt, step: name });
        await provisioning.recordRefusal(tenantId, attempt, said);
        throw new NonRetryableError(said);
      }
    };
    // The platform stores each of its steps durably, which costs more than most of ours. So ours share one where a repetition
    // costs little.
    const run = <Result extends boolean | void>(name: string, work: () => Promise<Result>): Promise<Result> =>
      step.do(name, stepConfig, work);

    const existingTenant = async (): Promise<TenantSummary> => {
      const tenant = await tenants.summary(tenantId);
      if (tenant === undefined) throw new NonRetryableError("there is no such tenant");
      return tenant;
    };

    const openAccount = (): Promise<TenantSummary> =>
      recorded(
        "account",
        async () => {
          const reads = joinBatches(control);
          const [isCurrent, tenant] = await Promise.all([
            provisioningStore(reads).isCurrentAttempt(tenantId, attempt),
            tenantsStore(reads).summary(tenantId),
          ]);
          requireNewest(isCurrent);
          if (tenant === undefined) throw new NonRetryableError("there is no such tenant");
          if (tenant.stripeCustomerId === null) {
            await provisioning.setCustomer(tenantId, await context.stripe.customers.create(tenant, attempt));
          }
          // The object reads the tenant when it prepares the rows.
          await Promise.all(linkingIssuers(env.OIDC_ISSUERS).map((issuer) => links.link(issuer, tenantId, tenantId)));
          return tenant;
        },
        { withNext: true, checks: true },
      );

    /** Returns false while the database is being created. */
    const prepareRows = async (tenant?: TenantSummary): Promise<boolean> => {
      const place = await recorded("placement", async () =>
        findPlacement(context, tenantId, tenant ?? (await existingTenant())),
      );
      if (place === null) return false;
      await recorded("isolation", async () => context.tenantObject(tenantId).prepareRows(place), { withNext: true });
      await recorded("storage", () =>
        writeStorageMarker({ bucket: env.FILES, tenantId, nowIso: new Date().toISOString() }),
      );
      return true;
    };

    const makeFirstCall = (): Promise<void> =>
      recorded("canary", async () => {
        const expiresAtMs = Date.now() + CANARY_LIFE_MS;
        const token = await mintCredential(env.CREDENTIAL_KEY, {
          kind: "canary",
          tenantId,
          fields: [String(expiresAtMs)],
        });
        await callCanary(env.PUBLIC_URL, token);
      });

    const activate = (): Promise<void> => recorded("activation", () => putInForce(), { withNext: true });
    const putInForce = async (): Promise<void> => {
      const reads = joinBatches(control);
      const [[behind], facts] = await Promise.all([
        // The program may have been deployed with new migrations since the placement was made.
        fleetStore(reads).tenantsBehind(expectedVersion(), { only: tenantId, limit: 1 }),
        tenantsStore(reads).facts(tenantId),
      ]);
      if (behind !== undefined)
        throw new AppError("placement_unavailable", `the tenant's tables on shard ${behind.shardId} lack migrations`);
      const changed = await tenants.change(tenantId, "provisioned", Date.now(), facts);
      // Its subscription ended during the set-up.
      if (changed !== undefined && mustClose(changed.facts)) await removalsStore(control).open(tenantId, "billing");
      await context.tenantObject(tenantId).refresh();
    };

    const startMonitoring = (): Promise<void> =>
      recorded("monitor", async () => {
        const token = await monitorToken(context, tenantId);
        await registerMonitor(env.MONITOR_URL, {
          tenantId,
          healthUrl: `${env.PUBLIC_URL}/health?tenant=${tenantId}`,
          token,
        });
      });

    let hasRoom = false;
    try {
      let isPrepared = await run("account and rows", async () => prepareRows(await openAccount()));
      for (let look = 2; !isPrepared; look += 1) {
        await step.sleep(`rows ${look} wait`, OPENING_POLL_MS);
        isPrepared = await run(`rows ${look}`, () => prepareRows());
      }
      await run("canary", makeFirstCall);
      hasRoom = await run("activation and monitor", async () => {
        await activate();
        await startMonitoring();
        // A failure belongs to the steps below, which repeat it.
        return await hasRoomAhead(context).catch(() => false);
      });
    } catch (error) {
      await step.do("give up", stepConfig, () => provisioning.failAttempt(tenantId, attempt, inPlainWords(error)));
      throw error;
    }

    // The buyer no longer waits. Make room for the next tenants.
    for (let look = 1; !hasRoom; look += 1) {
      hasRoom = await step.do(`room ${look}`, stepConfig, () => makeRoomAhead(context));
      if (!hasRoom) await step.sleep(`room ${look} waits`, OPENING_POLL_MS);
    }
  }
}

/** Whether the step is the last one. */
function endsWith(name: ProvisioningStep): { isLast: boolean } {
  return { isLast: name === provisioningSteps.at(-1)?.name };
}

/** A refusal in Tollgate's own words. The log has the outside system's code. */
function refusedWords(error: unknown): string {
  const code = errorCode(error);
  if (code === "monitor_refused")
    return "The outside monitor refused the account's health page. Calls are served. Tollgate does not try again by itself. The operator registers the page again with POST /admin/api/tenants/ID/monitor-token.";
  const what =
    code === "billing_refused"
      ? "The billing provider refused to create the customer."
      : "The database provider refused to create the database, for example because it does not have the region.";
  return `${what} Tollgate does not try again by itself. Ask support: ${support}.`;
}

/** The failure in Tollgate's own words, for the buyer. Never a database's or Stripe's message. */
function inPlainWords(error: unknown): string {
  if (error instanceof AppError && error.code === "tenant_unavailable")
    return "The first call as this account did not succeed yet.";
  const code = errorCode(error);
  return code === "internal" ? `A step failed. ${reasonOf(error)} Tollgate retries it.` : errors[code].advice;
}
