// The forms of the settings, and the same as plain facts for who may not change them.
import type { FC } from "hono/jsx";
import type { RefusedForm } from "../../layout/form-body.ts";
import { AccountInputs } from "../../parts/account-fields.tsx";
import { Action, Refusal } from "../../parts/form.tsx";
import { SettingsParts, labelsOf, settingsFields } from "../../parts/settings-fields.tsx";
import { type Texts, Version, VersionRefusal, type VersionedForm } from "../../parts/versioned-form.tsx";

interface AccountFormProps {
  path: string;
  stored: { name: string; email: string | null };
  refused: RefusedForm | undefined;
}

export const AccountForm: FC<AccountFormProps> = ({ path, stored, refused }) => (
  <form method="post" action={path} class="sheet">
    <h2>Organisation</h2>
    <Refusal refused={refused} />
    <AccountInputs {...{ stored, refused }} />
    <div class="actions">
      <button class="main">Save</button>
    </div>
  </form>
);

interface SettingsFormProps {
  path: string;
  form: VersionedForm;
  makesSecret: boolean;
}

export const SettingsForm: FC<SettingsFormProps> = ({ path, form, makesSecret }) => (
  <>
    <form method="post" action={path} class="sheet">
      <VersionRefusal form={form} labels={labelsOf(settingsFields)} />
      <Version form={form} />
      <SettingsParts form={form} />
      <div class="actions">
        <button class="main">Save</button>
      </div>
    </form>
    {makesSecret && (
      <div class="sheet">
        <h2>Webhook secret</h2>
        <p class="muted">It proves that a webhook comes from here. The former one stays valid for a while.</p>
        <Action action={`${path}/secret`} label="Make a new secret" confirm="Make a new secret for webhooks?" />
      </div>
    )}
  </>
);

const facts = [{ name: "name", label: "Organisation" }, { name: "email", label: "E-mail address" }, ...settingsFields];

export const SettingsFacts: FC<{ of: Texts }> = ({ of }) => (
  <dl class="facts card">
    {facts.map(({ name, label }) => (
      <>
        <dt>{label}</dt>
        <dd>{of[name] === "" ? "–" : of[name]}</dd>
      </>
    ))}
  </dl>
);
