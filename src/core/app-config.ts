// What an operator decides about their product: `app/config.ts` exports one `config` of this type. The program reads it
// when it loads and refuses to start when a part of it does not hold (core/plans.ts, tools/tool.ts).
import type { Plan } from "./plans.ts";
import type { Statement } from "./sql.ts";

export interface AppConfig {
  readonly product: {
    /** Shown to customers, to their agents and on Stripe's invoices. */
    readonly name: string;
    /** What a customer buys, as one line of an invoice: `MCP tools`. */
    readonly invoiceLine: string;
    /** CSS colour of buttons and links on pages. */
    readonly colour: string;
    readonly supportUrl: string;
    readonly termsUrl: string;
    readonly privacyUrl: string;
  };
  /** Every plan by its name, cheapest first. A tenant keeps the limits of the day it bought. */
  readonly plans: Readonly<Record<string, Omit<Plan, "name">>>;
  /**
   * What a key or a token can be allowed to do, by scope, in words for the consent page. `tools:read` must be among them:
   * the product's own tools need it.
   */
  readonly scopes: Readonly<Record<string, string>>;
  /** Settings of a new tenant. A tenant changes them afterwards. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** Defaults for an issuer of `OIDC_ISSUERS` that does not name the claim which holds a customer's organisation. */
  readonly issuers: { readonly tenantClaim: string };
  /**
   * Rows of a new tenant, as statements inside the tenant. Tollgate runs them again when it retries, so each must leave rows
   * that exist as they are (`ON CONFLICT DO NOTHING`).
   */
  readonly seed?: readonly Statement[];
  /** Calls that `npm start` makes as each customer of its demonstration. */
  readonly demonstration?: readonly { readonly tool: string; readonly input: Readonly<Record<string, unknown>> }[];
}
