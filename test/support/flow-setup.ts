// Whole systems for the flow tests: one for each vitest worker, shared by all files that the worker runs. Tests stay apart
// by using tenants of their own. A vitest worker runs one file at a time, so a file may break its system for everybody
// else, and must repair it before it ends.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { TestProject } from "vitest/node";
import { bundle } from "../../dev/bundle.ts";
import { serveOnLoopback } from "../../dev/loopback.ts";
import { THROWAWAY, removePostgresData } from "../../dev/postgres/postgres.ts";
import { encryptionKeysOf } from "../../cli/settings.ts";
import { freePort } from "../../cli/ports.ts";
import { startSystem } from "../../dev/system.ts";
import { controlPlaces, filePlaces, leaksOf, readIssued, sentPlaces } from "./planted-secrets.ts";
import type { KeyRing } from "../../src/core/keys/encryption.ts";

export interface FlowSystem {
  publicUrl: string;
  operatorToken: string;
  credentialKey: string;
  proxyUrl: string;
  neonApiUrl: string;
  neonApiKey: string;
  stripeUrl: string;
  stripeSecretKey: string;
  stripeWebhookSecret: string;
  stripeThinWebhookSecret: string;
  issuerUrl: string;
  tokenUrl: string;
  monitorUrl: string;
  mailboxUrl: string;
  superuserUrl: string;
  encryptionKeys: KeyRing;
  contextKeys: KeyRing;
  controlUrl: string;
  sharedOwnerUrl: string;
  schemaOwnerUrl: string;
  appUrl: string;
  serviceUrl: string;
  /** The deployment's secrets, by name. */
  secrets: Record<string, string>;
  /** Where credentials that tests are issued are written down. */
  issuedFile: string;
  logFile: string;
}

declare module "vitest" {
  export interface ProvidedContext {
    /** URL that answers `GET ?worker=N` with the FlowSystem of a vitest worker, and starts it on the first request. */
    systems: string;
  }
}

type Starting = Promise<{ system: FlowSystem; stop: () => Promise<void> }>;

export default function setup(project: TestProject): Promise<() => Promise<void>> {
  return offerSystems(project, { entry: resolve(import.meta.dirname, "flow-worker.ts") });
}

/**
 * Offers a system with this Worker to each of vitest's workers. A system starts when the first test file asks for it, so
 * a run of one file starts one. Returns the function that stops them all.
 */
export async function offerSystems(
  project: TestProject,
  worker: { entry: string; batchSeconds?: number; app?: string },
): Promise<() => Promise<void>> {
  const outDir = await mkdtemp(join(tmpdir(), "tollgate-bundle-"));
  let script: Promise<string> | undefined;
  const systems = new Map<string, Starting>();
  let lastStart: Promise<unknown> = Promise.resolve();
  const ask = async (request: Request): Promise<Response> => {
    const id = new URL(request.url).searchParams.get("worker") ?? "";
    script ??= bundle({ outDir, ...worker });
    let starting = systems.get(id);
    if (starting === undefined) {
      // One start at a time: four at once on two cores take so long together that each exceeds its limit.
      const bundled = script;
      starting = lastStart.catch(() => undefined).then(async () => start(await bundled, worker.app));
      lastStart = starting;
      systems.set(id, starting);
    }
    try {
      return Response.json((await starting).system);
    } catch (error) {
      systems.delete(id); // so that the next file of this worker tries again
      return new Response(error instanceof Error ? (error.stack ?? error.message) : String(error), { status: 500 });
    }
  };
  const offer = await serveOnLoopback(ask, 0);
  project.provide("systems", offer.url);

  const stop = async () => {
    await offer.close();
    const outcomes = await Promise.allSettled(systems.values());
    await Promise.all(outcomes.flatMap((each) => (each.status === "fulfilled" ? [each.value.stop()] : [])));
    await rm(outDir, { recursive: true, force: true });
  };
  // At a signal vitest ends without its teardown, and the databases and Workers would keep running.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.once(signal, () => void stop().finally(() => process.exit(1)));
  }
  return stop;
}

/** The operator's secrets of the fixture app's tools. */
const toolSecrets = { carrier_account: `planted-operator-secret-${crypto.randomUUID()}` };

async function start(script: string, app: string | undefined): Starting {
  const dir = await mkdtemp(join(tmpdir(), "tollgate-flow-"));
  const system = await startSystem({
    dir,
    port: await freePort(),
    bundle: script,
    postgres: THROWAWAY,
    vars: toolSecrets,
    ...(app !== undefined && { app }),
  });
  const { databases, stripe, issuer, monitor, mailbox, settings, publicUrl } = system;
  if (databases === undefined || !stripe || !issuer || !monitor || !mailbox) {
    await system.stop();
    throw new Error("A stand-in of the flow tests is missing.");
  }
  const issuedFile = `${dir}.issued`;
  const provided: FlowSystem = {
    publicUrl,
    operatorToken: settings.secrets.operatorToken,
    credentialKey: settings.secrets.credentialKey,
    proxyUrl: databases.proxy.url,
    neonApiUrl: databases.neonApi.url,
    neonApiKey: settings.secrets.neonApiKey,
    stripeUrl: stripe.url,
    stripeSecretKey: settings.secrets.stripeSecretKey,
    stripeWebhookSecret: settings.secrets.stripeWebhookSecret,
    stripeThinWebhookSecret: settings.secrets.stripeThinWebhookSecret,
    issuerUrl: issuer.url,
    tokenUrl: issuer.tokenUrl,
    monitorUrl: monitor.url,
    mailboxUrl: mailbox.url,
    encryptionKeys: encryptionKeysOf(settings),
    contextKeys: [{ id: "local", secret: settings.secrets.contextKey }],
    superuserUrl: databases.postgres.superuserUrl,
    controlUrl: databases.controlUrl,
    sharedOwnerUrl: databases.sharedOwnerUrl,
    schemaOwnerUrl: databases.schemaOwnerUrl,
    appUrl: databases.appUrl,
    serviceUrl: databases.serviceUrl,
    secrets: { ...settings.secrets, ...toolSecrets },
    issuedFile,
    logFile: join(dir, "worker.log"),
  };
  return {
    system: provided,
    stop: async () => {
      const secrets = { named: provided.secrets, issued: await readIssued(issuedFile) };
      const control = new URL(databases.postgres.superuserUrl);
      control.pathname = new URL(databases.controlUrl).pathname;
      const run = { controlUrl: control.href, mailboxUrl: mailbox.url, monitorUrl: monitor.url };
      const leaks = [
        ...(await leaksOf(controlPlaces(run.controlUrl), secrets)),
        ...(await leaksOf(sentPlaces(run), secrets)),
      ];
      await system.stop();
      await removePostgresData(join(dir, "postgres"));
      leaks.push(...(await leaksOf(filePlaces(dir), secrets)));
      await rm(dir, { recursive: true, force: true });
      await rm(issuedFile, { force: true });
      if (leaks.length > 0) throw new Error(`The run has left secrets:\n${leaks.join("\n")}`);
    },
  };
}
