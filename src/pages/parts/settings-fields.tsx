// The fields of a tenant's settings in forms: branding, alerts and the webhook. The customer's people and the operator have the same.
import type { FC } from "hono/jsx";
import * as z from "zod";
import { type Settings, SettingsPatch } from "../../core/tenant/settings.ts";
import { Field } from "./form.tsx";
import type { Texts, VersionedForm } from "./versioned-form.tsx";

const { branding, integrations, alerts } = SettingsPatch.shape;
const parts = {
  branding: branding.unwrap().unwrap().shape,
  integrations: integrations.unwrap().unwrap().shape,
  alerts: alerts.unwrap().unwrap().shape,
};

/** Several values in one field, apart by commas or spaces. */
const words = (text: string): string[] => text.split(/[\s,;]+/).filter((word) => word !== "");
/** Instead of addresses: no mails at all, where an empty field stands for the account's address. */
const NO_MAILS = "none";

export const settingsShape = {
  productName: parts.branding.productName.unwrap().unwrap().optional(),
  logoUrl: parts.branding.logoUrl.unwrap().unwrap().optional(),
  colour: parts.branding.colour.unwrap().unwrap().optional(),
  webhookUrl: parts.integrations.webhookUrl.unwrap().unwrap().optional(),
  emails: z
    .string()
    .transform((text) => (text.toLowerCase() === NO_MAILS ? [] : words(text)))
    .pipe(parts.alerts.emails.unwrap().unwrap())
    .optional(),
  thresholdsPercent: z
    .string()
    .transform((text) => words(text.replaceAll("%", " ")).map(Number))
    .pipe(parts.alerts.thresholdsPercent.unwrap().unwrap())
    .optional(),
};
const SettingsFields = z.object(settingsShape);

/** The patch that stores the fields. An empty field removes its setting. */
export function settingsPatch(fields: z.output<typeof SettingsFields>): Omit<SettingsPatch, "spend"> {
  const { productName = null, logoUrl = null, colour = null } = fields;
  const { webhookUrl = null, emails = null, thresholdsPercent = null } = fields;
  return {
    branding: { productName, logoUrl, colour },
    integrations: { webhookUrl },
    alerts: { emails, thresholdsPercent },
  };
}

/** The settings as the texts of their fields. */
export function settingsTexts({ branding: own, integrations: to, alerts: when }: Omit<Settings, "spend">): Texts {
  return {
    ...{ productName: own.productName ?? "", logoUrl: own.logoUrl ?? "", colour: own.colour ?? "" },
    webhookUrl: to.webhookUrl ?? "",
    emails: when.emails?.length === 0 ? NO_MAILS : (when.emails?.join(", ") ?? ""),
    thresholdsPercent: when.thresholdsPercent?.join(", ") ?? "",
  };
}

export interface FieldOfForm {
  name: string;
  label: string;
  type?: "email" | "url";
  placeholder?: string;
  hint?: string;
  isRequired?: boolean;
  rows?: number;
}

export const alertFields: readonly FieldOfForm[] = [
  {
    ...{ name: "emails", label: "Mail to", placeholder: "ops@example.com, cfo@example.com" },
    hint: "Up to five addresses, with commas between them. Empty: the account's address. The word none: no mails.",
  },
  {
    ...{ name: "thresholdsPercent", label: "At these shares of the month's units (%)", placeholder: "50, 80, 100" },
    hint: "Each is sent once a month.",
  },
];

export const webhookField: FieldOfForm = {
  ...{ name: "webhookUrl", label: "Webhook", type: "url", placeholder: "https://example.com/alerts" },
  hint: "Gets the same alerts as JSON, signed with the account's secret.",
};

export const brandingFields: readonly FieldOfForm[] = [
  {
    ...{ name: "productName", label: "Name in agents", placeholder: "Acme tools" },
    hint: "Clients show this server under it.",
  },
  { name: "logoUrl", label: "Logo", type: "url", placeholder: "https://example.com/logo.png" },
  { name: "colour", label: "Colour", placeholder: "#1d4ed8", hint: "Of the organisation's pages and of the sign-in." },
];

export const settingsFields = [...alertFields, webhookField, ...brandingFields];

/** A field with what the form shows in it. */
export const FormField: FC<{ of: FieldOfForm; form: VersionedForm }> = ({ of, form }) => {
  const { value, note } = form.of(of.name);
  const hint = note ?? of.hint;
  return <Field {...of} value={value} {...(hint !== undefined && { hint })} error={form.refused?.errors[of.name]} />;
};

/** The fields of alerts and branding. */
export const SettingsParts: FC<{ form: VersionedForm }> = ({ form }) => (
  <>
    <h2>Alerts</h2>
    <div class="pair">
      {alertFields.map((of) => (
        <FormField {...{ of, form }} />
      ))}
    </div>
    <FormField of={webhookField} form={form} />
    <h2>Branding</h2>
    <div class="pair">
      {brandingFields.map((of) => (
        <FormField {...{ of, form }} />
      ))}
    </div>
  </>
);

/** The labels of fields by their names. */
export function labelsOf(fields: readonly FieldOfForm[]): Texts {
  return Object.fromEntries(fields.map(({ name, label }) => [name, label]));
}
