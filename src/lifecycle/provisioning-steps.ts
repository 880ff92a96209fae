// The steps of provisioning, in their order, as the buyer sees them.

export const provisioningSteps = [
  { name: "account", title: "Account opened" },
  { name: "placement", title: "Place for the data found" },
  { name: "isolation", title: "Data set apart and seeded" },
  { name: "storage", title: "File storage marked" },
  { name: "canary", title: "First call as this account succeeded" },
  { name: "activation", title: "Account activated" },
  { name: "monitor", title: "Monitoring started" },
] as const;

export type ProvisioningStep = (typeof provisioningSteps)[number]["name"];
