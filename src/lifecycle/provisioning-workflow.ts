// The Workflow that turns a paid order into a tenant that answers. Every step can be repeated after any failure. The
// control tables record each step for the buyer to see. The tenant becomes active only after a real MCP call as that
// tenant succeeded through the public URL.
import { createContext } from "../control/context.ts";
import { WorkflowEntrypoint, type WorkflowEvent, type WorkflowStep, type WorkflowStepConfig } from "cloudflare:workers";
import { NonRetryableError } from "cloudflare:workflows";
import { callCanary } from "./canary.ts";
import { tenantsStore } from "../control/tenants-store.ts";
import { writeStorageMarker } from "../adapters/files.ts";
import { registerMonitor } from "../adapters/monitor.ts";
import { mintCredential } from "../core/credentials.ts";
import { AppError, errorCode, errors, isPermanent, reasonOf, support } from "../core/errors.ts";
import { fleetStore } from "../fleet/fleet-store.ts";
import { monitorToken } from "../identity/keys.ts";
import { linksStore } from "../identity/links-store.ts";
import { linkingIssuers } from "../identity/issuers.ts";
import { type ProvisioningStep, provisioningSteps } from "./provisioning.ts";
import { provisioningStore } from "./provisioning-store.ts";
import { mustClose } from "./removal.ts";
import { removalsStore } from "./removals-store.ts";
import { TenantId } from "../core/tenant.ts";
import { describeError, log } from "../log.ts";
import { findPlacement } from "../tenant-db/placement.ts";
import { expectedVersion } from "../tenant-db/migrations.ts";
import { OPENING_POLL_MS, makeRoomAhead } from "../tenant-db/shards.ts";

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
    const fleet = fleetStore(control);

    /** Whether the last step, which this run has just recorded, found the attempt to be the newest one. */
    let isNewest = false;
    /** Does a step and records its outcome. Returns false while the step is not done; it is then done again. */
    const recorded = async (name: ProvisioningStep, work: () => Promise<boolean | void>): Promise<boolean> => {
      const startedAt = new Date().toISOString();
      try {
        if (!isNewest && !(await provisioning.isCurrentAttempt(tenantId, attempt)))
          throw new NonRetryableError("a newer attempt has taken over");
        isNewest = false;
        const done = (await work()) !== false;
        const finishedAt = done ? new Date().toISOString() : null;
        isNewest = await provisioning.recordStep(
          tenantId,
          attempt,
          { step: name, startedAt, finishedAt, error: null, reason: null },
          { isLast: name === provisioningSteps.at(-1)?.name },
        );
        return done;
      } catch (error) {
        log("warn", "provisioning_step_failed", { tenantId, attempt, step: name, error: describeError(error) });
        if (error instanceof NonRetryableError) throw error;
        const isRefused = isPermanent(error);
        const said = isRefused ? refusedWords(error) : inPlainWords(error);
        const reason = describeError(error);
        await provisioning.recordStep(tenantId, attempt, {
          step: name,
          startedAt,
          finishedAt: null,
          error: said,
          reason,
        });
        if (!isRefused) throw error;
        log("error", "provisioning_refused", { tenantId, attempt, step: name });
        await provisioning.recordRefusal(tenantId, attempt, said);
        throw new NonRetryableError(said);
      }
    };
    // The platform stores each of its steps durably, which costs more than most of ours. So two of ours share one where a
    // repetition of the first costs little.
    const run = (name: string, work: () => Promise<boolean>): Promise<boolean> => step.do(name, stepConfig, work);

    const openAccount = (): Promise<boolean> =>
      recorded("account", async () => {
        const tenant = await tenants.summary(tenantId);
        if (tenant === undefined) throw new NonRetryableError("there is no such tenant");
        if (tenant.stripeCustomerId === null) {
          await provisioning.setCustomer(tenantId, await context.stripe.customers.create(tenant, attempt));
        }
        // The object reads the tenant when it prepares the rows.
        await Promise.all(linkingIssuers(env.OIDC_ISSUERS).map((issuer) => links.link(issuer, tenantId, tenantId)));
      });

    const findPlace = (): Promise<boolean> =>
      recorded("placement", async () => {
        const tenant = await tenants.summary(tenantId);
        if (tenant === undefined) throw new NonRetryableError("there is no such tenant");
        return findPlacement(context, tenantId, tenant);
      });

    const prepareRows = (): Promise<boolean> =>
      recorded("isolation", async () => {
        await context.tenantObject(tenantId).prepareRows();
      });

    const markStorage = (): Promise<boolean> =>
      recorded("storage", () => writeStorageMarker({ bucket: env.FILES, tenantId, nowIso: new Date().toISOString() }));

    const makeFirstCall = (): Promise<boolean> =>
      recorded("canary", async () => {
        const expiresAtMs = Date.now() + CANARY_LIFE_MS;
        const token = await mintCredential(env.CREDENTIAL_KEY, {
          kind: "canary",
          tenantId,
          fields: [String(expiresAtMs)],
        });
        await callCanary(env.PUBLIC_URL, token);
      });

    const activate = (): Promise<boolean> =>
      recorded("activation", async () => {
        // The program may have been deployed with new migrations since the placement was made.
        const [behind] = await fleet.tenantsBehind(expectedVersion(), { only: tenantId, limit: 1 });
        if (behind !== undefined)
          throw new AppError("placement_unavailable", `the tenant's tables on shard ${behind.shardId} lack migrations`);
        const changed = await tenants.change(tenantId, "provisioned", Date.now());
        // Its subscription ended during the set-up.
        if (changed !== undefined && mustClose(changed.facts)) await removalsStore(control).open(tenantId, "billing");
        await context.tenantObject(tenantId).refresh();
      });

    const startMonitoring = (): Promise<boolean> =>
      recorded("monitor", async () => {
        const token = await monitorToken(context, tenantId);
        await registerMonitor(env.MONITOR_URL, {
          tenantId,
          healthUrl: `${env.PUBLIC_URL}/health?tenant=${tenantId}`,
          token,
        });
        await provisioning.setMonitored(tenantId);
      });

    try {
      let hasPlace = await run("account and placement", async () => (await openAccount()) && (await findPlace()));
      for (let look = 2; !hasPlace; look += 1) {
        await step.sleep(`placement ${look} waits`, OPENING_POLL_MS);
        hasPlace = await run(`placement ${look}`, findPlace);
      }
      await run("isolation and storage", async () => (await prepareRows()) && (await markStorage()));
      await run("canary", makeFirstCall);
      await run("activation", activate);
      await run("monitor", startMonitoring);
    } catch (error) {
      await step.do("give up", stepConfig, () => provisioning.failAttempt(tenantId, attempt, inPlainWords(error)));
      throw error;
    }

    // The buyer no longer waits. Make room for the next tenants.
    for (let look = 1; !(await step.do(`room ${look}`, stepConfig, () => makeRoomAhead(context))); look += 1) {
      await step.sleep(`room ${look} waits`, OPENING_POLL_MS);
    }
  }
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
