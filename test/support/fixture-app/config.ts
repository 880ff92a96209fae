// The app that product tests sell, so that none of them depends on the files of an operator. It is complete: plans, tools
// with and without tables, files and a seed.
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
        spendCapCents: 10_000,
        maxSpendCapCents: 100_000,
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
      features: { audit_export: true },
      toolUnits: { read_document: 3 },
    },
  },

  scopes: {
    "tools:read": "Read your account's data",
    "tools:write": "Change your account's data",
  },

  settings: {
    alert_email: null,
    webhook_url: null,
    alert_threshold: 0.8, // share of an allowance: late enough to matter, early enough to act
  },

  secrets: {
    operator: { carrier_account: "The operator's account at the carrier" },
    tenant: { shipping_api_key: "Key of your account at the shipping service" },
  },

  issuers: { tenantClaim: "tenant_id" },

  seed: demonstrationProducts,

  demonstration: [
    { tool: "search_products", input: { query: "lamp" } },
    { tool: "write_document", input: { path: "notes/hello.md", text: "Written by the demonstration." } },
  ],
};
