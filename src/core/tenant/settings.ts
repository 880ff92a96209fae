// What a tenant's people may change of the tenant's configuration: branding, integrations, the spend cap and alerts. The operator
// may change it, too. Every setting here has a reader: the MCP server and pages show the branding, and usage alerts read the rest.
// Changes are JSON merge patches (RFC 7396): what a patch leaves out stays, and `null` removes.
import * as z from "zod";
import { Branding, DisplayName } from "./tenant.ts";
import { Colour } from "../text/text.ts";
import { PublicUrl } from "../text/web-url.ts";

const branding = {
  /** The name of this server in the tenant's agents. Clients cut longer names. */
  productName: DisplayName.max(60),
  logoUrl: PublicUrl,
  /** Of the organisation's pages and of the page that lets a client in. Any colour: pages choose a text that can be read on it. */
  colour: Colour,
};
const integrations = {
  /** Receives the tenant's alerts. */
  webhookUrl: PublicUrl,
};
const alerts = {
  /** Without it, mails go to the account's address. An empty list: no mails. */
  emails: z
    .array(z.email().max(320))
    .max(5)
    .transform((emails) => [...new Set(emails.map((email) => email.toLowerCase()))]),
  /** Shares of the allowance and of the spend cap. Without it: 50, 80 and 100. */
  thresholdsPercent: z
    .array(z.int().min(1).max(100))
    .min(1)
    .max(5)
    .transform((thresholds) => [...new Set(thresholds)].toSorted((a, b) => a - b)),
};

const spend = {
  /** Where the price of units beyond the included ones stops in a billing period, in cents. The operator's bound holds besides. */
  capCents: z.int().min(0).max(1_000_000_000),
};

/** As stored. The schemas of patches have checked the texts. */
export const Settings = z.object({
  branding: Branding.default({}),
  integrations: z.object({ webhookUrl: z.string().optional() }).default({}),
  spend: z.object({ capCents: z.int().optional() }).default({}),
  alerts: z
    .object({ emails: z.array(z.string()).optional(), thresholdsPercent: z.array(z.int()).optional() })
    .default({}),
});
export type Settings = z.infer<typeof Settings>;

export const SettingsPatch = z
  .strictObject({
    branding: z
      .strictObject({
        productName: branding.productName.nullable(),
        logoUrl: branding.logoUrl.nullable(),
        colour: branding.colour.nullable(),
      })
      .partial()
      .nullable(),
    integrations: z.strictObject({ webhookUrl: integrations.webhookUrl.nullable() }).partial().nullable(),
    spend: z.strictObject({ capCents: spend.capCents.nullable() }).partial().nullable(),
    alerts: z
      .strictObject({ emails: alerts.emails.nullable(), thresholdsPercent: alerts.thresholdsPercent.nullable() })
      .partial()
      .nullable(),
  })
  .partial();
export type SettingsPatch = z.infer<typeof SettingsPatch>;

/** The settings after a patch. */
export function changedSettings(current: Settings, patch: SettingsPatch): Settings {
  return Settings.parse(mergePatch(current, patch));
}

/** The target after a JSON merge patch (RFC 7396, section 2). Neither is changed. */
export function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch;
  const merged = new Map(Object.entries(isObject(target) ? target : {}));
  for (const [name, value] of Object.entries(patch)) {
    if (value === undefined) continue;
    if (value === null) merged.delete(name);
    else merged.set(name, mergePatch(merged.get(name), value));
  }
  return Object.fromEntries(merged);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
