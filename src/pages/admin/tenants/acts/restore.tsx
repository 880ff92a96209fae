// Acts that restore a tenant's rows, in its place or elsewhere.
import * as z from "zod";
import { type RestoreRequest, cancelRestore, restoreOf } from "../../../../backups/api.ts";
import { TenantRequest } from "../../../../control/new-tenant.ts";
import { planNames, strategies } from "../../../../core/plans/plans.ts";
import { BadRequest } from "../../../../http.ts";
import { type RefusedForm, doneAt } from "../../../layout/form-body.ts";
import { Field, Select } from "../../../parts/form.tsx";
import { planTitle } from "../../../parts/plan.tsx";
import { type Act, Seed, SeedField, act, creationOf, tenantPath } from "./act.tsx";
import { Moment } from "./data.tsx";

const nothing = z.object({});
const next = "/data";

const Source = z.object({ backup: z.string().max(101).optional(), at: Moment.optional() });

const SourceFields = ({ entered, errors }: RefusedForm) => (
  <>
    <Field
      label="Backup"
      name="backup"
      value={entered["backup"]}
      autocomplete="off"
      error={errors["backup"]}
      hint="The name of a file of the list."
    />
    <Field
      label="Or an instant"
      name="at"
      value={entered["at"]}
      placeholder="2026-11-28T10:00:00Z"
      autocomplete="off"
      error={errors["at"]}
    />
  </>
);

export const restore = act({
  ...{ path: "restore", action: "startRestore", role: "admin", title: "Restore", tone: "bad" },
  text: "Replaces the tenant's rows with those of a backup or of an instant. Tollgate first makes a backup of the current rows.",
  label: "Start the restore",
  schema: Source,
  fields: SourceFields,
  run: (c, { backup, at }) => restoreOf(c, restoreFrom(backup, at)),
  done: "The restore has begun.",
  next,
});

/** Throws `bad_request` unless one of them is given. */
function restoreFrom(name: string | undefined, at: string | undefined): z.output<typeof RestoreRequest> {
  if (name !== undefined && at === undefined) return { backup: name };
  if (at !== undefined && name === undefined) return { at };
  throw new BadRequest("Name a backup or an instant.");
}

const { shape } = TenantRequest;

export const restoreInto = act({
  ...{ path: "restore-into", action: "startRestore", role: "admin", title: "Restore elsewhere" },
  text: "Makes a new tenant with the rows of a backup or of an instant, to look at them or to take some over. This tenant stays as it is.",
  label: "Make the tenant",
  schema: Source.extend({
    ...{ form: Seed, name: shape.name, plan: shape.plan, strategy: shape.strategy, region: shape.region },
  }),
  fields: (form, tenant) => (
    <>
      <SeedField />
      <SourceFields {...form} />
      <Field
        label="Name of the new tenant"
        name="name"
        value={form.entered["name"] ?? `${tenant.name} (restored)`}
        isRequired
        error={form.errors["name"]}
      />
      <Select
        label="Plan"
        name="plan"
        value={form.entered["plan"] ?? tenant.plan}
        options={planNames.map((name: string) => ({ value: name, text: planTitle(name) }))}
        hint="Stripe bills nothing for it."
      />
      <Select
        label="Isolation"
        name="strategy"
        value={form.entered["strategy"] ?? ""}
        options={[
          { value: "", text: "As the plan says" },
          ...strategies.map((strategy) => ({ value: strategy, text: strategy })),
        ]}
      />
      <Field
        label="Region"
        name="region"
        value={form.entered["region"] ?? tenant.region ?? ""}
        autocomplete="off"
        error={form.errors["region"]}
        hint="Empty: anywhere."
      />
    </>
  ),
  run: (c, { form, backup, at, ...into }) => {
    c.set("creation", creationOf(form));
    return restoreOf(c, { ...restoreFrom(backup, at), into });
  },
  done: "",
  next,
  answer: (c, { tenantId }) =>
    doneAt(c, tenantPath(tenantId, next), "The new tenant is being set up. The restore begins after it."),
});

export const stopRestore = act({
  ...{ path: "restore/cancel", action: "cancelRestore", role: "support", title: "Cancel the restore", tone: "bad" },
  text: "You can cancel a restore until it begins to replace rows.",
  schema: nothing,
  run: (c) => cancelRestore(c),
  done: "The restore is cancelled.",
  next,
});

export const restoreActs: readonly Act[] = [restore, restoreInto, stopRestore];
