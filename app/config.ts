// The operator's configuration: the product's name, its plans and prices, scopes and settings. Everything in app/ belongs to
// the operator: replace it freely, and merge upstream changes without a conflict. `docs/adding-a-tool.md` says how to add a
// tool and its table.
import type { AppConfig } from "#tollgate/config";
import { demonstrationProducts } from "./seed.ts";

export const config: AppConfig = {
  product: {
    name: "Tollgate",
    invoiceLine: "MCP tools",
    colour: "#1d4ed8",
    supportUrl: "mailto:support@example.com",
    termsUrl: "https://example.com/terms",
    privacyUrl: "https://example.com/privacy",
  },

  plans: {
    free: {
      amountCents: 0,
      unitAmountCents: null,
      includedUnits: 1_000,
      limits: {
        unitsPerHour: 100,
        unitsPerMonth: 1_000,
        callsPerMinute: 100,
        callsInFlight: 4,
        unitsPerHourByTool: {},
        sessions: 2,
        sessionIdleSeconds: 30,
      },
      strategy: "shared",
    },
    starter: {
      amountCents: 1_900,
      unitAmountCents: null,
      includedUnits: 50_000,
      limits: {
        unitsPerHour: 1_000,
        unitsPerMonth: 50_000,
        callsPerMinute: 100,
        callsInFlight: 8,
        unitsPerHourByTool: {},
        sessions: 5,
        sessionIdleSeconds: 60,
      },
      strategy: "shared",
    },
    // Tollgate sells the units beyond the included ones, so the month has no limit of its own.
    pro: {
      amountCents: 4_900,
      unitAmountCents: "0.1",
      includedUnits: 50_000,
      limits: {
        unitsPerHour: 10_000,
        unitsPerMonth: null,
        callsPerMinute: 600,
        callsInFlight: 32,
        unitsPerHourByTool: {},
        sessions: 10,
        sessionIdleSeconds: 120,
        spendCapCents: 10_000, // twice the base price, so that a first surprise stays small
        maxSpendCapCents: 100_000, // an owner who needs more asks for a contract
      },
      strategy: "schema",
    },
    enterprise: {
      amountCents: null,
      unitAmountCents: null,
      includedUnits: null,
      limits: {
        unitsPerHour: null,
        unitsPerMonth: null,
        callsPerMinute: null,
        callsInFlight: 128,
        unitsPerHourByTool: {},
        sessions: 20,
        sessionIdleSeconds: 300,
      },
      strategy: "database",
    },
  },

  scopes: {
    "tools:read": "Read your account's data",
    "tools:write": "Change your account's data",
  },

  settings: {
    alert_email: null,
    webhook_url: null,
    alert_threshold: 0.8, // a share of the allowance that leaves time to act
  },

  secrets: {
    tenant: { shipping_api_key: "Key of your account at the shipping service" },
  },

  issuers: { tenantClaim: "tenant_id" },

  seed: demonstrationProducts,

  demonstration: [
    { tool: "search_products", input: { query: "lamp" } },
    { tool: "write_document", input: { path: "notes/hello.md", text: "Written by the demonstration." } },
  ],
};
