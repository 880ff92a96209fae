// A whole system for each of vitest's workers, for all flow tests of a run: they keep apart by having tenants of their
// own. A file that breaks something for everyone has its system to itself, and puts it back before it ends.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { TestProject } from "vitest/node";
import { bundle } from "../../dev/bundle.ts";
import { THROWAWAY, removePostgresData } from "../../dev/postgres/postgres.ts";
import { freePort, encryptionKeysOf } from "../../cli/settings.ts";
import { startSystem } from "../../dev/system.ts";
import type { KeyRing } from "../../src/core/encryption.ts";

export interface FlowSystem {
  publicUrl: string;
  operatorToken: string;
  credentialKey: string;
  proxyUrl: string;
  neonApiUrl: string;
  stripeUrl: string;
  stripeSecretKey: string;
  stripeWebhookSecret: string;
  stripeThinWebhookSecret: string;
  issuerUrl: string;
  tokenUrl: string;
  monitorUrl: string;
  superuserUrl: string;
  encryptionKeys: KeyRing;
  contextKeys: KeyRing;
  controlUrl: string;
  sharedOwnerUrl: string;
  schemaOwnerUrl: string;
  appUrl: string;
  serviceUrl: string;
}

declare module "vitest" {
  export interface ProvidedContext {
    /** By `VITEST_POOL_ID`, which counts from 1. */
    systems: FlowSystem[];
  }
}

export default function setup(project: TestProject): Promise<() => Promise<void>> {
  return startSystems(project, { entry: resolve(import.meta.dirname, "flow-worker.ts") });
}

/** Starts a system with this Worker for each of vitest's workers. Returns what stops them. */
export async function startSystems(
  project: TestProject,
  worker: { entry: string; batchSeconds?: number },
): Promise<() => Promise<void>> {
  const outDir = await mkdtemp(join(tmpdir(), "tollgate-bundle-"));
  const script = await bundle({ outDir, ...worker });
  const outcomes = await Promise.allSettled(Array.from({ length: project.config.maxWorkers }, () => start(script)));
  const started = outcomes.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
  const stop = async () => {
    await Promise.all(started.map((each) => each.stop()));
    await rm(outDir, { recursive: true, force: true });
  };
  // vitest ends at a signal without a word to what was set up, and databases and Workers would outlive it.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.once(signal, () => void stop().finally(() => process.exit(1)));
  }
  const failed = outcomes.find((each) => each.status === "rejected");
  if (failed !== undefined) {
    await stop();
    throw failed.reason;
  }
  project.provide(
    "systems",
    started.map(({ system }) => system),
  );
  return stop;
}

async function start(script: string): Promise<{ system: FlowSystem; stop: () => Promise<void> }> {
  const dir = await mkdtemp(join(tmpdir(), "tollgate-flow-"));
  const system = await startSystem({
    dir,
    port: await freePort(),
    bundle: script,
    postgres: THROWAWAY,
  });
  const { databases, stripe, issuer, monitor, settings, publicUrl } = system;
  if (databases === undefined || stripe === undefined || issuer === undefined || monitor === undefined) {
    await system.stop();
    throw new Error("The flow tests run on the local stand-ins: move .dev.vars away.");
  }
  const provided: FlowSystem = {
    publicUrl,
    operatorToken: settings.secrets.operatorToken,
    credentialKey: settings.secrets.credentialKey,
    proxyUrl: databases.proxy.url,
    neonApiUrl: databases.neonApi.url,
    stripeUrl: stripe.url,
    stripeSecretKey: settings.secrets.stripeSecretKey,
    stripeWebhookSecret: settings.secrets.stripeWebhookSecret,
    stripeThinWebhookSecret: settings.secrets.stripeThinWebhookSecret,
    issuerUrl: issuer.url,
    tokenUrl: issuer.tokenUrl,
    monitorUrl: monitor.url,
    encryptionKeys: encryptionKeysOf(settings),
    contextKeys: [{ id: "local", secret: settings.secrets.contextKey }],
    superuserUrl: databases.postgres.superuserUrl,
    controlUrl: databases.controlUrl,
    sharedOwnerUrl: databases.sharedOwnerUrl,
    schemaOwnerUrl: databases.schemaOwnerUrl,
    appUrl: databases.appUrl,
    serviceUrl: databases.serviceUrl,
  };
  return {
    system: provided,
    stop: async () => {
      await system.stop();
      await removePostgresData(join(dir, "postgres"));
      await rm(dir, { recursive: true, force: true });
    },
  };
}
