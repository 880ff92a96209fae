// Name and address of a tenant, its alerts, its webhook and its branding.
//
// Invariant: a form undoes no change that came while it was open. The settings name the version that they were opened with; the
// name and the address are sent only where the person has changed them. A refused form keeps what was entered, and says what is
// stored now.
import * as z from "zod";
import { OwnAccountChange } from "../../../control/tenant-change.ts";
import { tenantsStore } from "../../../control/tenants-store.ts";
import { SettingsPatch } from "../../../core/tenant/settings.ts";
import { type HttpContext, noSuchTenant, tenantOf } from "../../../http.ts";
import { joinBatches } from "../../../adapters/neon.ts";
import { changeAccountOf } from "../../../operations/admin-api.ts";
import { changeOwnSettings, ownConfiguration } from "../../../operations/configuration-api.ts";
import { renewWebhookSecret } from "../../../metering/alerts.ts";
import { type RefusedForm, answerOf, attempt, doneAt, readForm } from "../../layout/form-body.ts";
import { Copyable } from "../../parts/code.tsx";
import { Instant } from "../../parts/figures.tsx";
import { accountPage, accountPath, may } from "../account-page.tsx";
import { AccountForm, SettingsForm, SettingsFacts } from "./settings-forms.tsx";

const { branding, integrations, alerts } = SettingsPatch.shape;
const parts = {
  branding: branding.unwrap().unwrap().shape,
  integrations: integrations.unwrap().unwrap().shape,
  alerts: alerts.unwrap().unwrap().shape,
};

/** Several values in one field, apart by commas or spaces. */
const words = (text: string): string[] => text.split(/[\s,;]+/).filter((word) => word !== "");

const SettingsFields = z.object({
  etag: z.string(),
  productName: parts.branding.productName.unwrap().unwrap().optional(),
  logoUrl: parts.branding.logoUrl.unwrap().unwrap().optional(),
  colour: parts.branding.colour.unwrap().unwrap().optional(),
  webhookUrl: parts.integrations.webhookUrl.unwrap().unwrap().optional(),
  emails: z.string().transform(words).pipe(parts.alerts.emails.unwrap().unwrap()).optional(),
  thresholdsPercent: z
    .string()
    .transform((text) => words(text.replaceAll("%", " ")).map(Number))
    .pipe(parts.alerts.thresholdsPercent.unwrap().unwrap())
    .optional(),
});

const AccountFields = z.object({
  name: OwnAccountChange.shape.name.unwrap(),
  email: OwnAccountChange.shape.email.unwrap().unwrap().optional(),
  /** As they were when the form was opened. */
  nameBefore: z.string().optional(),
  emailBefore: z.string().optional(),
});

/** GET /app/:tenantId/settings */
export function showSettings(c: HttpContext): Promise<Response> {
  return settingsPage(c);
}

/** POST /app/:tenantId/settings/account */
export async function submitAccount(c: HttpContext): Promise<Response> {
  const form = await readForm(c, AccountFields);
  if ("refused" in form) return settingsPage(c, form.refused);
  const { name, email = null, nameBefore, emailBefore = null } = form.data;
  const change = { ...(name !== nameBefore && { name }), ...(email !== emailBefore && { email }) };
  const done = await attempt(c, () => changeAccountOf(c, change), form.sent);
  if ("refused" in done) return settingsPage(c, done.refused);
  return doneAt(c, accountPath(c, "/settings"), "The account is changed.");
}

/** POST /app/:tenantId/settings */
export async function submitSettings(c: HttpContext): Promise<Response> {
  const form = await readForm(c, SettingsFields);
  if ("refused" in form) return settingsPage(c, form.refused);
  const {
    etag,
    productName = null,
    logoUrl = null,
    colour = null,
    webhookUrl = null,
    emails = null,
    thresholdsPercent = null,
  } = form.data;
  const patch = {
    branding: { productName, logoUrl, colour },
    integrations: { webhookUrl },
    alerts: { emails, thresholdsPercent },
  };
  const entered = textsOf({ productName, logoUrl, colour, webhookUrl, emails, thresholdsPercent });
  const done = await attempt(c, () => changeOwnSettings(c, patch, etag), { entered: { ...entered, etag } });
  if ("done" in done) return doneAt(c, accountPath(c, "/settings"), "The settings are saved.");
  const isLate = done.refused.problem?.code === "precondition_failed";
  const text =
    "Another change came first. Yours is below, with what is stored now beside it. Save again to keep yours.";
  return settingsPage(c, isLate ? { ...done.refused, problem: { code: "precondition_failed", text } } : done.refused);
}

/** POST /app/:tenantId/settings/secret: a new secret for webhooks, shown once. */
export async function submitWebhookSecret(c: HttpContext): Promise<Response> {
  const { secret, formerUntil } = await renewWebhookSecret(c.get("context"), tenantOf(c));
  return accountPage(
    c,
    { title: "Your webhook secret", section: "/settings", lead: "Copy it now: it is shown once." },
    <>
      <Copyable text={secret} caption="Secret" />
      <p>
        Verify each webhook with it, as <a href="/docs/configuration">the documentation</a> shows.
        {formerUntil !== null && (
          <>
            {" "}
            Webhooks are also signed with the former secret until <Instant at={formerUntil} /> UTC.
          </>
        )}
      </p>
      <p class="actions">
        <a class="button" href={accountPath(c, "/settings")}>
          Back to the settings
        </a>
      </p>
    </>,
  );
}

type Values = Readonly<Record<string, string | readonly (string | number)[] | null | undefined>>;

/** The values of settings as the texts of their fields. */
function textsOf(values: Values): Record<string, string> {
  const textOf = (value: Values[string]): string => (typeof value === "string" ? value : (value?.join(", ") ?? ""));
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, textOf(value)]));
}

async function settingsPage(c: HttpContext, refused?: RefusedForm): Promise<Response> {
  const control = joinBatches(c.get("context").control);
  const [account, { document, etag }] = await Promise.all([
    tenantsStore(control).summary(tenantOf(c)),
    ownConfiguration(c, control),
  ]);
  if (account === undefined) throw noSuchTenant();
  const { branding: own, integrations: to, alerts: when } = document;
  const settings = {
    productName: own.productName,
    logoUrl: own.logoUrl,
    colour: own.colour,
    webhookUrl: to.webhookUrl,
  };
  const { name, email } = account;
  const stored = textsOf({
    name,
    email,
    etag,
    ...settings,
    emails: when.emails,
    thresholdsPercent: when.thresholdsPercent,
  });
  const ofSettings = refused !== undefined && "etag" in refused.entered;
  const writes = may(c, "account:write");
  const path = accountPath(c, "/settings");
  return accountPage(
    c,
    {
      ...{ title: "Settings", section: "/settings", ...answerOf(refused) },
      ...(!writes && { lead: "An owner or an admin can change them." }),
    },
    writes ? (
      <>
        <AccountForm path={`${path}/account`} stored={stored} refused={ofSettings ? undefined : refused} />
        <SettingsForm
          path={path}
          stored={stored}
          refused={ofSettings ? refused : undefined}
          makesSecret={may(c, "keys:manage")}
        />
      </>
    ) : (
      <SettingsFacts of={stored} />
    ),
  );
}
