// Name and address of a tenant, its alerts, its webhook and its branding.
//
// Invariant: a form undoes no change that came while it was open. The settings name the version that they were opened with. A
// refused form keeps what was entered, and says what is stored now.
import * as z from "zod";
import { tenantsStore } from "../../../control/tenants-store.ts";
import { type HttpContext, noSuchTenant, tenantOf } from "../../../http.ts";
import { joinBatches } from "../../../adapters/neon.ts";
import { changeAccountOf } from "../../../operations/admin-api.ts";
import { changeOwnSettings, ownConfiguration } from "../../../operations/configuration-api.ts";
import { renewWebhookSecret } from "../../../metering/alerts.ts";
import { type RefusedForm, answerOf, attempt, doneAt, readForm } from "../../layout/form-body.ts";
import { AccountFields, accountChange } from "../../parts/account-fields.tsx";
import { Copyable } from "../../parts/code.tsx";
import { Instant } from "../../parts/figures.tsx";
import { settingsPatch, settingsShape, settingsTexts } from "../../parts/settings-fields.tsx";
import { versionedForm } from "../../parts/versioned-form.tsx";
import { accountPage, accountPath, may } from "../account-page.tsx";
import { AccountForm, SettingsForm, SettingsFacts } from "./settings-forms.tsx";

const SettingsFields = z.object({ etag: z.string(), ...settingsShape });

/** GET /app/:tenantId/settings */
export function showSettings(c: HttpContext): Promise<Response> {
  return settingsPage(c);
}

/** POST /app/:tenantId/settings/account */
export async function submitAccount(c: HttpContext): Promise<Response> {
  const form = await readForm(c, AccountFields);
  if ("refused" in form) return settingsPage(c, form.refused);
  const done = await attempt(c, () => changeAccountOf(c, accountChange(form.data)), form.sent);
  if ("refused" in done) return settingsPage(c, done.refused);
  return doneAt(c, accountPath(c, "/settings"), "The account is changed.");
}

/** POST /app/:tenantId/settings */
export async function submitSettings(c: HttpContext): Promise<Response> {
  const form = await readForm(c, SettingsFields);
  if ("refused" in form) return settingsPage(c, form.refused);
  const { etag, ...fields } = form.data;
  const done = await attempt(c, () => changeOwnSettings(c, settingsPatch(fields), etag), form.sent);
  if ("refused" in done) return settingsPage(c, done.refused);
  return doneAt(c, accountPath(c, "/settings"), "The settings are saved.");
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

async function settingsPage(c: HttpContext, refused?: RefusedForm): Promise<Response> {
  const control = joinBatches(c.get("context").control);
  const [account, { document, etag }] = await Promise.all([
    tenantsStore(control).summary(tenantOf(c)),
    ownConfiguration(c, control),
  ]);
  if (account === undefined) throw noSuchTenant();
  const stored = settingsTexts(document);
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
        <AccountForm path={`${path}/account`} stored={account} refused={ofSettings ? undefined : refused} />
        <SettingsForm
          path={path}
          form={versionedForm({ etag, stored, refused: ofSettings ? refused : undefined })}
          makesSecret={may(c, "keys:manage")}
        />
      </>
    ) : (
      <SettingsFacts of={{ name: account.name, email: account.email ?? "", ...stored }} />
    ),
  );
}
