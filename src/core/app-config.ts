// The operator's decisions about the product. `app/config.ts` exports one `config` of this type, and every room reads it from
// here. Invariant: the program starts only with a config whose parts are usable. An error names the part and the remedy.
// The limits and prices of plans are checked in plans.ts, the scopes of each tool in tools/tool.ts.
import * as z from "zod";
import { config as written } from "#app/config";
import { accountScopes } from "./actor.ts";
import type { WrittenPlan } from "./plans/plans.ts";
import type { Statement } from "./sql.ts";
import { type DeclaredSecrets, MAX_TENANT_SECRETS, secretNamePattern } from "./tenant/tool-secrets.ts";
import { Colour } from "./text/text.ts";

export interface AppConfig {
  readonly product: {
    /** Customers read it in their agent's list of servers and in the sign-in dialog. */
    readonly name: string;
    /** The name of the purchase on Stripe's invoice: `MCP tools`. */
    readonly invoiceLine: string;
    /** CSS colour `#rrggbb` of the pages' links and headings. */
    readonly colour: string;
    /** `https:` or `mailto:`. Error messages name it when only support can help. */
    readonly supportUrl: string;
    /** `https:`. Clients find both addresses in the metadata of the MCP endpoint (`resource_tos_uri`, `resource_policy_uri`). */
    readonly termsUrl: string;
    readonly privacyUrl: string;
  };
  /** Every plan by its name, cheapest first. A tenant keeps the limits of the day it bought; features are those of today. */
  readonly plans: Readonly<Record<string, WrittenPlan>>;
  /**
   * What a key or a token can be allowed to do: the scope, then its meaning in words. `tools:read` must be among them, because
   * the product's own tools need it.
   */
  readonly scopes: Readonly<Record<string, string>>;
  /** Settings of a new tenant, at least one. A tenant changes them afterwards. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** `tenantClaim`: the claim that names a customer's organisation, for each issuer of `OIDC_ISSUERS` that names none. */
  readonly issuers: { readonly tenantClaim: string };
  /**
   * Secrets that tools may use, by name, each with its meaning in words. `operator`: a binding of the Worker with this name, the same
   * for all tenants. `tenant`: each tenant's administrator sets its own. Names have lower-case letters, digits and `_`.
   */
  readonly secrets?: DeclaredSecrets;
  /**
   * Rows of a new tenant, as statements inside the tenant. Tollgate runs them again when it retries, so each must keep rows
   * that exist (`ON CONFLICT DO NOTHING`).
   */
  readonly seed?: readonly Statement[];
  /** Calls that `npm start` makes as each customer of its demonstration. */
  readonly demonstration?: readonly { readonly tool: string; readonly input: Readonly<Record<string, unknown>> }[];
}

const text = z.string().trim().min(1, "must not be empty");
const pageUrl = z.url({ protocol: /^https$/, error: "must be an https: URL" });

const secrets = z
  .record(z.string(), text)
  .refine(
    (named) => Object.keys(named).every((name) => secretNamePattern.test(name)),
    "has a name that Tollgate keeps for its own. Use up to 40 lower-case letters, digits and _, a letter first",
  );

const AppConfigParts = z.strictObject({
  product: z.strictObject({
    name: text.max(60, "must have at most 60 characters: clients cut longer names"),
    invoiceLine: text.max(250, "must have at most 250 characters, as Stripe allows"),
    colour: Colour,
    supportUrl: z.url({ protocol: /^(https|mailto)$/, error: "must be an https: or mailto: URL" }),
    termsUrl: pageUrl,
    privacyUrl: pageUrl,
  }),
  plans: z.record(z.string(), z.unknown()),
  scopes: z
    .record(z.string(), text)
    .refine(
      (scopes) => Object.keys(scopes).every((scope) => /^[!#-[\]-~]+$/.test(scope)),
      "has a name that no token can carry. Use printable ASCII without spaces, quotes and backslashes",
    )
    .refine(
      (scopes) => !accountScopes.some((scope) => Object.hasOwn(scopes, scope)),
      `has one of ${accountScopes.join(", ")}, which are for the account. Use another name for tools`,
    )
    .refine(
      (scopes) => Object.hasOwn(scopes, "tools:read"),
      'lacks tools:read, which the product\'s own tools need. Add it, for example: "tools:read": "Read your account\'s data"',
    ),
  settings: z
    .record(z.string(), z.json())
    .refine(
      (settings) => Object.keys(settings).length > 0,
      "is empty. Add one setting: a new account proves with it that it can read and write its own rows",
    ),
  issuers: z.strictObject({ tenantClaim: text }),
  secrets: z
    .strictObject({ operator: secrets.optional(), tenant: secrets.optional() })
    .refine(
      ({ operator = {}, tenant = {} }) => Object.keys(operator).every((name) => !Object.hasOwn(tenant, name)),
      "has one name for the operator and for tenants. Give each secret a name of its own",
    )
    .refine(
      ({ tenant = {} }) => Object.keys(tenant).length <= MAX_TENANT_SECRETS,
      `asks each tenant for more than ${MAX_TENANT_SECRETS} secrets. Declare fewer`,
    )
    .optional(),
  seed: z.array(z.looseObject({ text })).optional(),
  demonstration: z.array(z.strictObject({ tool: text, input: z.record(z.string(), z.unknown()) })).optional(),
});

/** Returns the config unchanged. Throws when a part of it is not usable; the message lists each part with the remedy. */
export function checkedConfig(config: AppConfig): AppConfig {
  const { error } = AppConfigParts.safeParse(config);
  if (error !== undefined) throw new Error(`app/config.ts cannot be used.\n${z.prettifyError(error)}`);
  return config;
}

export const config: AppConfig = checkedConfig(written);
