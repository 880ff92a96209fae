// A tenant's whole configuration as one form: limits, tools, features, alerts, branding, integrations and the spend cap.
//
// Invariant: the form changes the version that it was opened with, by the check of the API. A refused form keeps what was entered.
import { joinBatches } from "../../../../adapters/neon.ts";
import type { HttpContext } from "../../../../http.ts";
import {
  ConfigurationPatch,
  changeConfigurationOf,
  operatorConfiguration,
} from "../../../../operations/configuration-api.ts";
import { catalogue } from "../../../../tools/catalogue.ts";
import { type RefusedForm, answerOf, attempt, checkForm, doneAt, readForm } from "../../../layout/form-body.ts";
import { labelsOf } from "../../../parts/settings-fields.tsx";
import { Version, VersionRefusal, versionedForm } from "../../../parts/versioned-form.tsx";
import { operatorPage, permits } from "../../operator-page.tsx";
import { TENANTS_PATH, tenantOnPage, tenantPath } from "../acts/act.tsx";
import { TenantTabs } from "../tenant-parts.tsx";
import { ConfigurationForm, configurationPatch, configurationTexts, fieldOfPath } from "./fields.ts";
import { ConfigurationFacts, ConfigurationFields, labelledFields } from "./parts.tsx";

const PATH = "/configuration";

/** GET /admin/tenants/:tenantId/configuration */
export function showConfigurationPage(c: HttpContext): Promise<Response> {
  return configurationPage(c);
}

/** POST /admin/tenants/:tenantId/configuration */
export async function submitConfiguration(c: HttpContext): Promise<Response> {
  const form = await readForm(c, ConfigurationForm);
  if ("refused" in form) return configurationPage(c, form.refused);
  const { document } = await operatorConfiguration(c);
  const { id, placement } = tenantOnPage(c);
  const value = configurationPatch(form.data, document, placement !== null);
  const patch = checkForm(c, ConfigurationPatch, { value, sent: form.sent, fieldOf: fieldOfPath });
  if ("refused" in patch) return configurationPage(c, patch.refused);
  const done = await attempt(c, () => changeConfigurationOf(c, patch.data, form.data.etag), form.sent);
  if ("refused" in done) return configurationPage(c, done.refused);
  return doneAt(c, tenantPath(id, PATH), "The configuration is saved. The tenant's next call uses it.");
}

async function configurationPage(c: HttpContext, refused?: RefusedForm): Promise<Response> {
  const tenant = tenantOnPage(c);
  const { document, etag } = await operatorConfiguration(c, joinBatches(c.get("context").control));
  const isPlaced = tenant.placement !== null;
  const form = versionedForm({ etag, stored: configurationTexts(document, [...catalogue.keys()]), refused });
  const path = tenantPath(tenant.id, PATH);
  return operatorPage(
    c,
    {
      ...{ title: tenant.name, section: TENANTS_PATH, ...answerOf(refused) },
      lead: "What this tenant has beside its plan. A change is in force on its next call.",
    },
    <>
      <TenantTabs tenantId={tenant.id} current={PATH} />
      {permits(c, "support") && tenant.state !== "gone" ? (
        <form method="post" action={path} class="sheet">
          <VersionRefusal form={form} labels={labelsOf(labelledFields)}>
            <a href={`/admin/audit?tenant=${tenant.id}`}>See who made it</a>
          </VersionRefusal>
          <Version form={form} />
          <ConfigurationFields {...{ form, document, isPlaced }} />
          <div class="actions">
            <button class="main">Save</button>
            <a class="button" href={path}>
              Discard
            </a>
          </div>
        </form>
      ) : (
        <ConfigurationFacts {...{ document, texts: form.stored }} />
      )}
    </>,
  );
}
