// The forms of the settings, and the same as plain facts for who may not change them.
import type { FC } from "hono/jsx";
import type { RefusedForm } from "../../layout/form-body.ts";
import { Action, Field, Refusal } from "../../parts/form.tsx";

type Texts = Readonly<Record<string, string>>;

interface FormProps {
  path: string;
  stored: Texts;
  refused: RefusedForm | undefined;
}

interface Shown {
  name: string;
  label: string;
  type?: "email" | "url";
  placeholder?: string;
  hint?: string;
  isRequired?: boolean;
}

/** A field with what was entered, if the form was refused, and otherwise with what is stored. */
const Setting: FC<{ of: Shown; stored: Texts; refused: RefusedForm | undefined }> = ({ of, stored, refused }) => {
  const now = stored[of.name] ?? "";
  const value = refused === undefined ? now : (refused.entered[of.name] ?? "");
  const isLate = refused?.problem?.code === "precondition_failed" && value !== now;
  const hint = isLate ? `Stored now: ${now === "" ? "nothing" : now}` : of.hint;
  return <Field {...of} value={value} {...(hint !== undefined && { hint })} error={refused?.errors[of.name]} />;
};

export const AccountForm: FC<FormProps> = ({ path, stored, refused }) => (
  <form method="post" action={path} class="sheet">
    <h2>Organisation</h2>
    <Refusal refused={refused} />
    <input type="hidden" name="nameBefore" value={stored["name"]} />
    <input type="hidden" name="emailBefore" value={stored["email"]} />
    <div class="pair">
      <Setting of={{ name: "name", label: "Name", isRequired: true }} {...{ stored, refused }} />
      <Setting
        of={{ name: "email", label: "E-mail address", type: "email", hint: "Stripe sends invoices there." }}
        {...{ stored, refused }}
      />
    </div>
    <div class="actions">
      <button class="main">Save</button>
    </div>
  </form>
);

const alerts: readonly Shown[] = [
  {
    ...{ name: "emails", label: "Mail to", placeholder: "ops@example.com, cfo@example.com" },
    hint: "Up to five addresses, with commas between them. Empty: the account's address.",
  },
  {
    ...{ name: "thresholdsPercent", label: "At these shares of the month's units (%)", placeholder: "50, 80, 100" },
    hint: "Each is sent once a month.",
  },
];

const webhook: Shown = {
  ...{ name: "webhookUrl", label: "Webhook", type: "url", placeholder: "https://example.com/alerts" },
  hint: "Gets the same alerts as JSON, signed with the account's secret.",
};

const branding: readonly Shown[] = [
  {
    ...{ name: "productName", label: "Name in your agents", placeholder: "Acme tools" },
    hint: "Clients show this server under it.",
  },
  { name: "logoUrl", label: "Logo", type: "url", placeholder: "https://example.com/logo.png" },
  { name: "colour", label: "Colour", placeholder: "#1d4ed8", hint: "Of these pages and of the sign-in." },
];

export const SettingsForm: FC<FormProps & { makesSecret: boolean }> = ({ path, stored, refused, makesSecret }) => (
  <>
    <form method="post" action={path} class="sheet">
      <h2>Alerts</h2>
      <Refusal refused={refused} />
      <input type="hidden" name="etag" value={stored["etag"]} />
      <div class="pair">
        {alerts.map((of) => (
          <Setting {...{ of, stored, refused }} />
        ))}
      </div>
      <Setting of={webhook} {...{ stored, refused }} />
      <h2>Branding</h2>
      <div class="pair">
        {branding.map((of) => (
          <Setting {...{ of, stored, refused }} />
        ))}
      </div>
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

const facts = [
  { name: "name", label: "Organisation" },
  { name: "email", label: "E-mail address" },
  ...alerts,
  webhook,
  ...branding,
];

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
