// Changes an account after its creation: name, e-mail, allowed tools, features, limits, region, settings and the end of a trial.
// What a change leaves out stays as it is. The tenant's object knows the new version before the change is reported as done.
import * as z from "zod";
import { AppError, errorCode } from "../core/errors.ts";
import { Features, LimitChanges, changedLimits } from "../core/plans/plans.ts";
import { type SettingsPatch, changedSettings } from "../core/tenant/settings.ts";
import { afterEvent } from "../core/tenant/tenant-state.ts";
import { DisplayName, type TenantId } from "../core/tenant/tenant.ts";
import { describeError, log } from "../log.ts";
import { catalogue } from "../tools/catalogue.ts";
import type { Context } from "./context.ts";
import { ToolName } from "./new-tenant.ts";
import { type StoredConfiguration, tenantsStore } from "./tenants-store.ts";

/** What a tenant's admin may change. */
export const OwnAccountChange = z
  .strictObject({
    name: DisplayName,
    /** `null`: none. Invoices go to the address at Stripe, which Tollgate changes, too. */
    email: z.email().max(320).nullable(),
  })
  .partial();

/** Whether the tools that get a number exist. An entry of a tool that was removed can still be taken away. */
function namesTools(byTool: Readonly<Record<string, number | null>> | null | undefined): boolean {
  return Object.entries(byTool ?? {}).every(([tool, units]) => units === null || catalogue.has(tool));
}

/** What the operator may change. */
export const AccountChange = z
  .strictObject({
    ...OwnAccountChange.shape,
    /** `null`: every tool. */
    allowedTools: z.array(ToolName).nullable(),
    /** Merged with the features that the tenant has. `null` removes one. */
    features: z.record(z.string(), z.union([z.boolean(), z.number(), z.string(), z.null()])),
    limits: LimitChanges.extend({
      unitsPerHourByTool: LimitChanges.shape.unitsPerHourByTool.refine(namesTools, "names a tool that does not exist"),
    }),
    /** Where the rows must be; `null`: anywhere. Only before they have a place, so that a wrong region can be corrected. */
    region: z.string().min(1).max(60).nullable(),
    /** When the operator's trial ends; `null`: it is no trial any more. Stripe decides about a trial that was bought. */
    trialUntil: z.iso.datetime({ offset: true }).nullable(),
  })
  .partial();
export type AccountChange = z.infer<typeof AccountChange>;

/** A change of anything that can be changed in one step. `null` takes back all limits or features. */
export type TenantChange = Omit<AccountChange, "limits" | "features"> & {
  limits?: AccountChange["limits"] | null;
  features?: AccountChange["features"] | null;
  settings?: SettingsPatch | undefined;
};

/** Why an account was not changed. */
export type NotChanged =
  | "no_such_tenant"
  | "trial_is_stripes"
  | "no_trial_now"
  | "rows_placed"
  | "features_invalid"
  | "too_many_features"
  | "cap_over_bound"
  | "unexpected"
  | "busy";

/** Another change may come between reading and writing. Operators are few, so the second attempt usually succeeds. */
const ATTEMPTS = 5;

/** A document of a tenant's configuration stays small: its object reads the features with every change. */
const MAX_FEATURES = 200;

/**
 * Changes the account. Returns why not, or `undefined`. `isExpected`: whether the stored configuration is the one that the
 * change is meant for; otherwise nothing changes, and the reason is `unexpected`. Throws `billing_unavailable` when Stripe did
 * not take name or e-mail.
 */
export async function changeAccount(
  context: Context,
  tenantId: TenantId,
  change: TenantChange,
  isExpected: (current: StoredConfiguration) => Promise<boolean> = () => Promise.resolve(true),
): Promise<NotChanged | undefined> {
  const tenants = tenantsStore(context.control);
  for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
    const [current, facts] = await Promise.all([tenants.configuration(tenantId), tenants.facts(tenantId)]);
    if (current === undefined || facts === undefined || current.state === "gone") return "no_such_tenant";
    if (current.version !== facts.version) continue; // the two reads saw different rows
    if (!(await isExpected(current))) return "unexpected";
    const { trialUntil, limits, features: changedFeatures, settings, ...rest } = change;
    if (change.region !== undefined && change.region !== current.region && current.isPlaced) return "rows_placed";
    let trial;
    if (trialUntil !== undefined) {
      if (facts.subscriptionId !== null) return "trial_is_stripes";
      const trialUntilMs = trialUntil === null ? null : Date.parse(trialUntil);
      trial = afterEvent({ ...facts, trialUntilMs }, "set_trial", Date.now());
      if (trial === undefined) return "no_trial_now";
    }
    const features = Features.safeParse(mergedFeatures(current.features, changedFeatures));
    if (!features.success) return "features_invalid";
    if (changedFeatures && Object.keys(features.data).length > MAX_FEATURES) return "too_many_features";
    const { soldLimits } = current;
    const changed =
      limits === undefined
        ? current.limits
        : limits === null
          ? soldLimits
          : changedLimits(current.limits, limits, soldLimits);
    const { maxSpendCapCents: most } = changed;
    const wantedCap = settings?.spend?.capCents;
    if (wantedCap != null && most !== null && wantedCap > most) return "cap_over_bound";
    const isStored = await tenants.changeAccount(tenantId, facts.version, {
      ...rest,
      features: changedFeatures === undefined ? undefined : features.data,
      ...(limits !== undefined && {
        limits: changed,
        soldLimits,
      }),
      settings: settings === undefined ? undefined : changedSettings(current.settings, settings),
      trial,
    });
    if (!isStored) continue;
    if (facts.customerId !== null && (change.name !== undefined || change.email !== undefined))
      await changeCustomer(context, tenantId, facts.customerId, change);
    return undefined;
  }
  return "busy";
}

function mergedFeatures(current: Features, changes: TenantChange["features"]): Record<string, unknown> {
  if (changes === null) return {};
  return Object.fromEntries(Object.entries({ ...current, ...changes }).filter(([, value]) => value !== null));
}

async function changeCustomer(
  { stripe }: Context,
  tenantId: TenantId,
  customerId: string,
  { name, email }: TenantChange,
): Promise<void> {
  try {
    await stripe.customers.change(customerId, {
      ...(name !== undefined && { name }),
      ...(email !== undefined && { email }),
    });
  } catch (error) {
    log("error", "customer_not_changed", { tenantId, error: describeError(error) });
    const code = errorCode(error);
    throw new AppError(code === "internal" ? "billing_unavailable" : code, "the customer at Stripe was not changed", {
      cause: error,
    });
  }
}
