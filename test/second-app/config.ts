// Another operator's app: other plans, prices, scopes and tools than app/ has. The test beside it shows that the product
// sells it without an edit under src/.
import type { AppConfig } from "#tollgate/config";

const limits = {
  unitsPerHour: 500,
  unitsPerMonth: 5_000,
  callsPerMinute: 200,
  callsInFlight: 6,
  unitsPerHourByTool: {},
  sessions: 2,
  sessionIdleSeconds: 30,
};

export const config: AppConfig = {
  product: {
    name: "Birch Ledger",
    invoiceLine: "Birch units",
    colour: "#14532d",
    supportUrl: "https://birch.example/help",
    termsUrl: "https://birch.example/terms",
    privacyUrl: "https://birch.example/privacy",
  },
  plans: {
    seedling: { amountCents: 700, unitAmountCents: null, includedUnits: 5_000, limits, strategy: "shared" },
    grove: {
      amountCents: 8_100,
      unitAmountCents: "0.25",
      includedUnits: 20_000,
      limits: { ...limits, unitsPerMonth: null },
      strategy: "schema",
    },
    forest: {
      amountCents: 64_000,
      unitAmountCents: null,
      includedUnits: 50_000,
      limits: { ...limits, unitsPerMonth: 50_000 },
      strategy: "database",
    },
  },
  scopes: { "tools:read": "Read notes", "notes:keep": "Keep notes" },
  settings: { language: "en" },
  issuers: { tenantClaim: "org_id" },
  demonstration: [{ tool: "keep_note", input: { name: "first", text: "A note." } }],
};
