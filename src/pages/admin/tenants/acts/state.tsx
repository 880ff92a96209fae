// Acts that change whether a tenant is served, what its account is, and who acts for it.
import * as z from "zod";
import { beginImpersonation } from "../../../../identity/operators/api.ts";
import { ImpersonationRequest, impersonationCookie } from "../../../../identity/operators/impersonation.ts";
import {
  RemovalRequest,
  dropTenant,
  reactivateTenant,
  removeTenant,
  renewMonitorToken,
  resumeTenant,
  suspendTenant,
} from "../../../../lifecycle/api.ts";
import { changeTenant } from "../../../../operations/admin-api.ts";
import { AccountFields, AccountInputs, accountChange } from "../../../parts/account-fields.tsx";
import { Field } from "../../../parts/form.tsx";
import { redirectWith } from "../../../sign-in/sign-in.tsx";
import { type Act, act } from "./act.tsx";

const nothing = z.object({});

export const suspend = act({
  ...{ path: "suspend", action: "suspendTenant", role: "support", title: "Suspend", tone: "bad" },
  text: "Tollgate refuses the tenant's next call and says that the account is suspended. Its people can still read usage, invoices and the export. Stripe still charges the subscription. To stop the charges, cancel the subscription at Stripe.",
  schema: nothing,
  run: (c) => suspendTenant(c),
  done: "The tenant is suspended.",
});

export const resume = act({
  ...{ path: "resume", action: "resumeTenant", role: "support", title: "Resume" },
  text: "Ends an operator's suspension or an expired trial. If the set-up has failed, Tollgate tries it again.",
  schema: nothing,
  run: (c) => resumeTenant(c),
  done: "The tenant is resumed.",
});

export const reactivate = act({
  ...{ path: "reactivate", action: "reactivateTenant", role: "support", title: "Reactivate" },
  text: "Cancels the removal of a tenant in its grace period. Resumes a subscription that Stripe has paused. Stripe charges an open invoice.",
  schema: nothing,
  run: (c) => reactivateTenant(c),
  done: "The tenant is back.",
});

export const remove = act({
  ...{ path: "remove", action: "removeTenant", role: "admin", title: "Remove", tone: "bad" },
  text: "Tollgate refuses the tenant's calls at once and ends its subscription. It keeps the data for the grace period, in which you can reactivate the tenant. Then Tollgate deletes the data.",
  schema: nothing,
  run: (c) => removeTenant(c, { query: { now: false } }),
  done: "The tenant is leaving.",
  next: "/data",
});

export const dropNow = act({
  ...{ path: "drop", action: "removeTenant", role: "admin", title: "Delete its data now", tone: "bad" },
  text: (tenant) => (
    <>
      Ends the grace period of a tenant that is leaving. Its rows, files and backups are deleted, and nothing brings
      them back. Type <strong>{tenant.name}</strong> to confirm.
    </>
  ),
  schema: RemovalRequest,
  fields: ({ entered, errors }) => (
    <Field
      label="Name of the account"
      name="name"
      value={entered["name"]}
      isRequired
      autocomplete="off"
      error={errors["name"]}
    />
  ),
  run: (c, { name }) => dropTenant(c, name),
  done: "The tenant's data is being deleted.",
  next: "/data",
});

export const account = act({
  ...{ path: "account", action: "changeTenant", role: "support", title: "Change the account" },
  text: "The name and the address of the account. Stripe gets the address, too, for its invoices.",
  label: "Save",
  schema: AccountFields,
  fields: (refused, tenant) => <AccountInputs stored={tenant} refused={refused} />,
  run: (c, fields) => changeTenant(c, { body: accountChange(fields) }),
  done: "The account is changed.",
});

export const trial = act({
  ...{ path: "trial", action: "changeTenant", role: "support", title: "Set the end of the trial" },
  text: "Only for a trial that an operator has started. Stripe ends a trial that was bought. Leave the day empty to end the trial.",
  label: "Save",
  schema: z.object({ until: z.iso.date().optional() }),
  fields: ({ entered, errors }, tenant) => (
    <Field
      label="Last day of the trial (UTC)"
      name="until"
      type="date"
      value={entered["until"] ?? tenant.trialUntil?.slice(0, 10)}
      error={errors["until"]}
    />
  ),
  run: (c, { until }) =>
    changeTenant(c, { body: { trialUntil: until === undefined ? null : `${until}T23:59:59.000Z` } }),
  done: "The trial is changed.",
});

export const monitorToken = act({
  ...{ path: "monitor-token", action: "renewMonitorToken", role: "support", title: "Replace the monitor token" },
  text: "Revokes the token of the tenant's health page and makes a new one. Tollgate gives the new token to its own monitor.",
  schema: nothing,
  run: (c) => renewMonitorToken(c),
  done: "The monitor token is replaced.",
});

export const impersonation = act({
  ...{ path: "impersonate", action: "impersonate", role: "support", title: "Act as its administrator" },
  text: "For ten minutes you see and change the account as its administrator does. Your name and the reason are in each line of the audit log, which the tenant can read. You can create no key, member or grant, and cannot close the account.",
  label: "Start",
  schema: ImpersonationRequest,
  fields: ({ entered, errors }) => (
    <Field
      label="Reason"
      name="reason"
      value={entered["reason"]}
      placeholder="Ticket 4711"
      maxLength={200}
      isRequired
      error={errors["reason"]}
      hint="A ticket, or the question that the tenant asked."
    />
  ),
  run: (c, body) => beginImpersonation(c, body),
  done: "",
  answer: (c, { tenantId, token }) => redirectWith(c, `/app/${tenantId}`, [impersonationCookie(token)]),
});

export const stateActs: readonly Act[] = [
  ...[suspend, resume, reactivate, remove, dropNow, account, trial, monitorToken, impersonation],
];
