// One whole system for all flow tests of a run: they keep apart by having tenants of their own. Files that break
// something for everyone put it back before they end.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { TestProject } from "vitest/node";
import { removePostgresData } from "../../dev/postgres.ts";
import { freePort, loadSettings, portFor, saveSettings } from "../../dev/settings.ts";
import { startSystem } from "../../dev/system.ts";

export interface FlowSystem {
  publicUrl: string;
  operatorToken: string;
  credentialKey: string;
  proxyUrl: string;
  stripeUrl: string;
  stripeSecretKey: string;
  stripeWebhookSecret: string;
  issuerUrl: string;
  tokenUrl: string;
  /** Trusted like the local issuer; a test that wants it to be there listens on its port. */
  absentIssuerUrl: string;
  monitorUrl: string;
  controlUrl: string;
  sharedOwnerUrl: string;
  appUrl: string;
  serviceUrl: string;
}

declare module "vitest" {
  export interface ProvidedContext {
    system: FlowSystem;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const dir = await mkdtemp(join(tmpdir(), "tollgate-flow-"));
  // Chosen before the start, so that the Worker can be told of another issuer besides the local one.
  const chosen = loadSettings(dir);
  const localIssuerUrl = `http://127.0.0.1:${await portFor(chosen, "issuer")}`;
  saveSettings(dir, chosen);
  const absentIssuerUrl = `http://127.0.0.1:${await freePort()}`;
  const issuerAt = (url: string) => ({
    issuer: url,
    jwksUrl: `${url}/.well-known/jwks.json`,
    tenantClaim: "tenant_id",
    linkNewTenants: url === localIssuerUrl,
  });
  const system = await startSystem({
    dir,
    port: await freePort(),
    entry: resolve(import.meta.dirname, "flow-worker.ts"),
    vars: { OIDC_ISSUERS: JSON.stringify([localIssuerUrl, absentIssuerUrl].map(issuerAt)) },
  });
  const { databases, stripe, issuer, monitor, settings, publicUrl } = system;
  if (databases === undefined || stripe === undefined || issuer === undefined || monitor === undefined) {
    await system.stop();
    throw new Error("The flow tests run on the local stand-ins: move .dev.vars away.");
  }
  project.provide("system", {
    publicUrl,
    operatorToken: settings.secrets.operatorToken,
    credentialKey: settings.secrets.credentialKey,
    proxyUrl: databases.proxy.url,
    stripeUrl: stripe.url,
    stripeSecretKey: settings.secrets.stripeSecretKey,
    stripeWebhookSecret: settings.secrets.stripeWebhookSecret,
    issuerUrl: issuer.url,
    tokenUrl: issuer.tokenUrl,
    absentIssuerUrl,
    monitorUrl: monitor.url,
    controlUrl: databases.controlUrl,
    sharedOwnerUrl: databases.sharedOwnerUrl,
    appUrl: databases.appUrl,
    serviceUrl: databases.serviceUrl,
  });
  return async () => {
    await system.stop();
    await removePostgresData(join(dir, "postgres"));
    await rm(dir, { recursive: true, force: true });
  };
}
