// Starts the whole of Tollgate on one machine: PostgreSQL behind a proxy that speaks Neon's protocol, a Stripe simulator, a
// token issuer, a monitor, and the Worker. `npm start`, the flow tests and the benchmarks use it.
import { config } from "../src/core/app-config.ts";
import { rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { startIssuer } from "./issuer/issuer.ts";
import { OPERATOR_SCOPE } from "./issuer/people.ts";
import { localRegion, prepareDatabases, registerReplica, schemaDatabase } from "../cli/migrations/prepare.ts";
import { startMailbox } from "./mail.ts";
import { startMonitor } from "./monitor.ts";
import { startNeonApi } from "./neon/api.ts";
import { limitRoles } from "./neon/api-databases.ts";
import { startNeonProxy } from "./neon/proxy.ts";
import { hasPostgresData, removePostgresData, startPostgres } from "./postgres/postgres.ts";
import { startReplica } from "./postgres/replica.ts";
import { SHIPPING_HOST, startShipping } from "./shipping.ts";
import { type Settings, loadSettings, portFor, saveSettings, encryptionKeysOf } from "../cli/settings.ts";
import { isFree } from "../cli/ports.ts";
import { startStripeSimulator } from "./stripe/simulator.ts";
import { appliedEventTypes } from "../src/adapters/stripe/stripe.ts";
import { connectSetup } from "../src/adapters/stripe/setup.ts";
import { CALLBACK_PATH } from "../src/identity/oauth/upstream.ts";
import { OPERATOR_CALLBACK_PATH } from "../src/identity/operators/operator-client.ts";
import { type WorkerProcess, startWorker } from "./worker-process.ts";

/** Tollgate's client at the local issuer. */
const OIDC_CLIENT_ID = "tollgate";

export interface SystemOptions {
  dir: string;
  /** Port of the Worker. */
  port: number;
  /** Deletes what earlier runs stored. */
  fresh?: boolean;
  /** Replaces the Worker's entry, for tests. */
  entry?: string;
  /** A bundle that replaces the entry and runs without `wrangler dev`. */
  bundle?: string;
  /** The bundle's requests do not go through Miniflare's own Worker. Then no cron can be fired. For benchmarks. */
  direct?: boolean;
  /** The app folder of the bundle (app/ or TOLLGATE_APP). Tenants have its tables. */
  app?: string;
  /**
   * The operator's values for real services; each one replaces its stand-in. `npm start` passes those of `.dev.vars`.
   * Everything else that starts a system passes none, so that tests never reach a real account.
   */
  devVars?: Readonly<Record<string, string | undefined>>;
  /** Replaces or adds Worker variables, for tests. */
  vars?: Record<string, string>;
  /** Also starts a streaming replica, which the tools' analytics read from. */
  replica?: boolean;
  /** Additional settings of PostgreSQL, for tests. */
  postgres?: Record<string, string>;
  /** Maximum numbers of connections to PostgreSQL, for tests. */
  proxy?: { maxPerTarget?: number; maxTotal?: number };
  /** Wraps each step of the start, so that the caller can print it. */
  step?: <T>(title: string, work: () => Promise<T>) => Promise<T>;
}

export type System = Awaited<ReturnType<typeof startSystem>>;

/** Files that one run leaves for the next. */
const state = [
  "postgres",
  "workerd",
  "stripe.db",
  "stripe.db-wal",
  "stripe.db-shm",
  "monitor.db",
  "monitor.db-wal",
  "monitor.db-shm",
  "settings.json",
  "issuer.json",
  "neon-api.json",
];

/** Starts everything that `devVars` does not replace. On failure, stops what has started and throws. */
export async function startSystem(options: SystemOptions) {
  const {
    port,
    fresh = false,
    replica = false,
    direct = false,
    entry,
    bundle,
    vars = {},
    postgres = {},
    proxy = {},
  } = options;
  const { step = (_title, work) => work() } = options;
  const dir = resolve(options.dir);
  const own = options.devVars ?? {};
  const ownDatabases = own["CONTROL_DATABASE_URL"] !== undefined;
  // Objects, Stripe and databases refer to each other: when the cluster is gone, the others must go too.
  if (fresh || !(ownDatabases || (await hasPostgresData(join(dir, "postgres"))))) {
    for (const data of ["postgres", "replica"]) await removePostgresData(join(dir, data));
    for (const part of state) rmSync(join(dir, part), { recursive: true, force: true });
  }
  if (!(await isFree(port))) throw new Error(`Port ${port} is taken. Choose another one: PORT=${port + 100} npm start`);
  const settings = loadSettings(dir);
  const { secrets } = settings;
  const publicUrl = `http://127.0.0.1:${port}`;
  const running: (() => Promise<unknown>)[] = [];
  const stop = async (): Promise<void> => {
    // Stop the Worker first, so that its last work still finds the stand-ins.
    // One that fails to stop does not keep the others running.
    const errors: unknown[] = [];
    for (const each of running.splice(0).toReversed()) await each().catch((error: unknown) => errors.push(error));
    if (errors.length > 0) throw new AggregateError(errors, "Not everything stopped");
  };

  try {
    const databases = ownDatabases
      ? undefined
      : await startDatabases({ dir, settings, app: options.app, replica, postgres, proxy, step, running });

    const stripe =
      own["STRIPE_SECRET_KEY"] === undefined
        ? await step("Stripe simulator", async () => {
            const simulator = await startStripeSimulator({
              port: await portFor(settings, "stripe"),
              databaseFile: join(dir, "stripe.db"),
              secretKey: secrets.stripeSecretKey,
              // A deployment's destination has the events that Tollgate applies, and no others.
              webhook: {
                url: `${publicUrl}/webhooks/stripe`,
                secret: secrets.stripeWebhookSecret,
                enabledEvents: appliedEventTypes,
              },
              thinWebhook: { url: `${publicUrl}/webhooks/stripe-thin`, secret: secrets.stripeThinWebhookSecret },
            });
            running.push(() => simulator.close());
            await connectSetup(secrets.stripeSecretKey, simulator.url).setUp(config.product.invoiceLine);
            return simulator;
          })
        : undefined;

    const issuer =
      own["OIDC_ISSUERS"] === undefined
        ? await step("Token issuer", async () => {
            const started = await startIssuer({
              port: await portFor(settings, "issuer"),
              keyFile: join(dir, "issuer.json"),
              audience: `${publicUrl}/mcp`,
              scopes: Object.keys(config.scopes),
              clients: [
                {
                  ...{ id: OIDC_CLIENT_ID, name: config.product.name, secret: secrets.oidcClientSecret },
                  redirectUris: [`${publicUrl}${CALLBACK_PATH}`, `${publicUrl}${OPERATOR_CALLBACK_PATH}`],
                },
              ],
              operator: { audience: `${publicUrl}/admin/api`, scope: OPERATOR_SCOPE },
            });
            running.push(() => started.close());
            return started;
          })
        : undefined;

    const monitor =
      own["MONITOR_URL"] === undefined
        ? await step("Monitor", async () => {
            const started = await startMonitor({
              port: await portFor(settings, "monitor"),
              databaseFile: join(dir, "monitor.db"),
            });
            running.push(() => started.close());
            return started;
          })
        : undefined;
    const mailbox =
      own["MAIL_FROM"] === undefined && own["MAIL_URL"] === undefined
        ? await step("Mailbox", async () => {
            const started = await startMailbox({ port: await portFor(settings, "mail") });
            running.push(() => started.close());
            return started;
          })
        : undefined;
    const shipping = await step("Shipping service", async () => {
      const started = await startShipping({ port: await portFor(settings, "shipping") });
      running.push(() => started.close());
      return started;
    });
    saveSettings(dir, settings);

    const workerVars: Record<string, string> = {
      PUBLIC_URL: publicUrl,
      CREDENTIAL_KEY: secrets.credentialKey,
      OPERATOR_TOKEN: secrets.operatorToken,
      OPERATOR_TOKEN_USE: "normal", // no people need to sign in on one's own machine
      CONTEXT_KEYS: JSON.stringify([{ id: "local", secret: secrets.contextKey }]),
      ENCRYPTION_KEYS: JSON.stringify(encryptionKeysOf(settings)),
      STRIPE_WEBHOOK_SECRET: secrets.stripeWebhookSecret,
      STRIPE_THIN_WEBHOOK_SECRET: secrets.stripeThinWebhookSecret,
      ...(databases && {
        CONTROL_DATABASE_URL: databases.serviceUrl,
        NEON_FETCH_ENDPOINT: `${databases.proxy.url}/sql`,
        NEON_API_BASE: databases.neonApi.url,
        NEON_API_KEY: secrets.neonApiKey,
        NEON_REGION: localRegion,
        NEON_WS_PROXY: `127.0.0.1:${databases.proxy.port}/v2`,
      }),
      ...(stripe && { STRIPE_SECRET_KEY: secrets.stripeSecretKey, STRIPE_API_BASE: stripe.url }),
      ...(issuer && {
        OIDC_ISSUERS: JSON.stringify([
          {
            ...{ issuer: issuer.url, jwksUrl: issuer.jwksUrl, tenantClaim: "tenant_id" },
            ...{ linkNewTenants: true, verifiesEmails: true, clientId: OIDC_CLIENT_ID, name: "Local sign-in" },
          },
        ]),
        DNS_URL: issuer.dnsUrl,
        OIDC_CLIENT_SECRETS: JSON.stringify({ [issuer.url]: secrets.oidcClientSecret }),
        // A token with the scope and without roles is one that a script has asked for.
        OPERATOR_ISSUER: JSON.stringify({
          ...{ issuer: issuer.url, jwksUrl: issuer.jwksUrl, defaultRole: "admin" },
          ...{ clientId: OIDC_CLIENT_ID, name: "Local sign-in" },
        }),
      }),
      TOOL_HOSTS_LOCAL: JSON.stringify({ [SHIPPING_HOST]: shipping.url }),
      ...(mailbox && { MAIL_FROM: "tollgate@mail.example", MAIL_URL: mailbox.url }),
      ...(monitor && { MONITOR_URL: monitor.url, ALARM_WEBHOOK_URL: `${monitor.url}/alarms` }),
      ...Object.fromEntries(Object.entries(own).filter((pair): pair is [string, string] => pair[1] !== undefined)),
      ...vars,
    };
    const launch = (): Promise<WorkerProcess> =>
      startWorker({ dir, port, vars: workerVars, direct, ...(entry && { entry }), ...(bundle && { bundle }) });
    let worker = await step("Worker", launch);
    running.push(() => worker.stop());
    // Deliver webhooks of the time without a Worker now, instead of at their next retry.
    stripe?.retryWebhooks();

    return {
      dir,
      settings,
      publicUrl,
      databases,
      stripe,
      issuer,
      monitor,
      mailbox,
      get worker() {
        return worker;
      },
      /** Ends the Worker without warning and starts it again on the same storage. */
      async restartWorker() {
        worker.child.kill("SIGKILL");
        await worker.stop();
        worker = await launch();
      },
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function startDatabases(options: {
  dir: string;
  settings: Settings;
  app: string | undefined;
  replica: boolean;
  postgres: Record<string, string>;
  proxy: NonNullable<SystemOptions["proxy"]>;
  step: NonNullable<SystemOptions["step"]>;
  running: (() => Promise<unknown>)[];
}) {
  const { dir, settings, step, running } = options;
  const { secrets } = settings;
  const postgres = await step("PostgreSQL 18", async () => {
    const started = await startPostgres({
      dataDir: join(dir, "postgres"),
      port: await portFor(settings, "postgres"),
      settings: options.postgres,
    });
    running.push(() => started.stop());
    // Save now: the passwords that the cluster is about to get must survive a kill.
    saveSettings(dir, settings);
    return started;
  });
  const urls = await step("Migrations", () =>
    prepareDatabases({
      superuserUrl: postgres.superuserUrl,
      ownerPassword: secrets.ownerPassword,
      servicePassword: secrets.servicePassword,
      appPassword: secrets.appPassword,
      contextKeys: [{ id: "local", secret: secrets.contextKey }],
      encryptionKeys: encryptionKeysOf(settings),
      ...(options.app !== undefined && { app: options.app }),
    }),
  );
  const replica = !options.replica
    ? undefined
    : await step("Replica", async () => {
        const place = { dataDir: join(dir, "replica"), port: await portFor(settings, "replica") };
        const started = await startReplica({ primary: postgres, ...place });
        running.push(() => started.stop());
        return started;
      });
  // The replica copies the whole cluster, so it serves both databases.
  const replicaHost = replica === undefined ? null : new URL(replica.superuserUrl).host;
  for (const id of ["shared-1", "schema-1"]) await registerReplica({ controlUrl: urls.controlUrl, id, replicaHost });
  const proxy = await step("Neon proxy", async () => {
    const started = await startNeonProxy({ port: await portFor(settings, "neon"), ...options.proxy });
    running.push(() => started.close());
    return started;
  });
  const neonApi = await step("Neon API", async () => {
    await limitRoles(postgres.superuserUrl, schemaDatabase);
    const started = await startNeonApi({
      port: await portFor(settings, "neon-api"),
      stateFile: join(dir, "neon-api.json"),
      superuserUrl: postgres.superuserUrl,
      apiKey: secrets.neonApiKey,
    });
    running.push(() => started.close());
    return started;
  });
  return { postgres, replica, proxy, neonApi, ...urls };
}
