// The common base of all variants: one PostgreSQL with the product's migrations, the Neon stand-in in a separate process, and
// tenants with equal rows and limits. The limits are so high that every check runs and none refuses.
import { type ChildProcess, fork } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { join } from "node:path";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import pg from "pg";
import { controlDatabase, prepareDatabases, sharedDatabase } from "../cli/migrations/prepare.ts";
import type { NeonProxyStats } from "../dev/neon/proxy.ts";
import { startPostgres } from "../dev/postgres/postgres.ts";
import { encodeScopes, mintCredential, sha256Hex } from "../src/core/keys/credentials.ts";
import { type Limits, planOf } from "../src/core/plans/plans.ts";
import { TenantId } from "../src/core/tenant/tenant.ts";
import { MEMBER_ID } from "./ground-names.ts";

const PUBLIC_URL = "http://127.0.0.1:8787"; // the audience of tokens; nothing listens there
const PRODUCTS_PER_TENANT = 300;

/** Far more than a run uses: each limit is checked and none is reached. */
const limits: Limits = {
  ...planOf("enterprise").limits,
  unitsPerHour: 10_000_000,
  unitsPerMonth: 100_000_000,
  callsPerMinute: 1_000_000,
};

export interface BenchTenant {
  id: TenantId;
  apiKey: string;
  jwt: string;
  /** Of an OAuth client that the tenant's member has let in. Empty before `letIn`. */
  accessToken: string;
}

export type Ground = Awaited<ReturnType<typeof layGround>>;

/** Starts everything in `dir`. Each started process adds its stop function to `running` at once. */
export async function layGround(options: {
  dir: string;
  tenants: number;
  /** The plan of each tenant, with its own limits. Without it, limits that no run reaches. */
  planOf?: (index: number) => string;
  running: (() => Promise<unknown>)[];
}) {
  const { dir, running } = options;
  const secret = (): string => randomBytes(24).toString("hex");
  const contextKeys = [{ id: "bench", secret: secret() }] as const;
  const encryptionKeys = [{ id: "bench", secret: secret() }] as const;
  const credentialKey = secret();

  const postgres = await startPostgres({ dataDir: join(dir, "postgres"), port: 0 });
  running.push(() => postgres.stop());
  const { serviceUrl, appUrl } = await prepareDatabases({
    superuserUrl: postgres.superuserUrl,
    ownerPassword: secret(),
    servicePassword: secret(),
    appPassword: secret(),
    contextKeys,
    encryptionKeys,
  });

  const issuer = await startIssuer(running);
  const tenants: BenchTenant[] = [];
  for (let index = 0; index < options.tenants; index++) {
    const id = TenantId.parse(`bench-${index}`);
    const fields = [`key${index}`, encodeScopes(["tools:read", "tools:write"]), secret()];
    const apiKey = await mintCredential(credentialKey, { kind: "key", tenantId: id, fields });
    tenants.push({ id, apiKey, jwt: await issuer.sign(id), accessToken: "" });
  }

  const superuser = (database: string): pg.Client =>
    new pg.Client({ connectionString: postgres.superuserUrl.replace(/\/postgres$/, `/${database}`) });
  const control = superuser(controlDatabase);
  await control.connect();
  running.push(() => control.end());
  for (const [index, { id, apiKey }] of tenants.entries()) {
    const plan = options.planOf?.(index);
    await control.query(
      `INSERT INTO tenants (id, name, plan, strategy, state, limits) VALUES ($1, $1, $2, 'shared', 'active', $3)`,
      [id, plan ?? "enterprise", JSON.stringify(plan === undefined ? limits : planOf(plan).limits)],
    );
    await control.query(
      `WITH placed AS (INSERT INTO placements (tenant_id, shard_id, state) VALUES ($1, 'shared-1', 'ready') RETURNING id)
       UPDATE tenants SET placement_id = placed.id FROM placed WHERE tenants.id = $1`,
      [id],
    );
    await control.query(
      `INSERT INTO api_keys (id, tenant_id, name, hash, root_key, scopes, line_id, created_by_kind)
       VALUES ($1, $2, 'bench', $3, 'bench', '{}', $1, 'operator')`,
      [apiKey.split(".")[1], id, await sha256Hex(apiKey)],
    );
    await control.query(
      `INSERT INTO members (tenant_id, id, role, issuer, subject) VALUES ($1, $2, 'member', $3, 'a member')`,
      [id, MEMBER_ID, issuer.url],
    );
    await control.query(`INSERT INTO tenant_links (issuer, organisation, tenant_id) VALUES ($1, $2, $2)`, [
      issuer.url,
      id,
    ]);
  }
  await fillProducts(superuser(sharedDatabase), tenants);

  const proxy = fork(join(import.meta.dirname, "proxy.ts"), { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  running.push(() => stopChild(proxy));
  const [{ port }] = (await once(proxy, "message", { signal: AbortSignal.timeout(15_000) })) as [{ port: number }];
  const proxyUrl = `http://127.0.0.1:${port}`;

  return {
    tenants,
    postgresPid: postgres.pid,
    proxyPid: proxy.pid ?? 0,
    vars: {
      PUBLIC_URL,
      OIDC_ISSUERS: JSON.stringify([{ issuer: issuer.url, jwksUrl: `${issuer.url}/jwks`, tenantClaim: "org" }]),
      STRIPE_API_BASE: "http://127.0.0.1:1",
      NEON_FETCH_ENDPOINT: `${proxyUrl}/sql`,
      CONTROL_DATABASE_URL: serviceUrl,
      SHARED_DATABASE_URL: appUrl,
      ENCRYPTION_KEYS: JSON.stringify(encryptionKeys),
      CONTEXT_KEYS: JSON.stringify(contextKeys),
      CREDENTIAL_KEY: credentialKey,
      OPERATOR_TOKEN: secret(),
      STRIPE_SECRET_KEY: `sk_test_${secret()}`,
      STRIPE_WEBHOOK_SECRET: `whsec_${secret()}`,
      STRIPE_THIN_WEBHOOK_SECRET: `whsec_${secret()}`,
    },
    /** HTTP batches that the stand-in has run so far, on the tenants' database and on the control database. */
    async roundTrips(): Promise<{ shared: number; control: number }> {
      const stats = (await (await fetch(`${proxyUrl}/_proxy/stats`)).json()) as NeonProxyStats;
      const on = (database: string): number =>
        Object.entries(stats.connections)
          .filter(([name]) => name.endsWith(`/${database}`))
          .reduce((sum, [, { httpBatches }]) => sum + httpBatches, 0);
      return { shared: on(sharedDatabase), control: on(controlDatabase) };
    },
    /** Calls in the ledger, as far as the watermarks prove it. */
    async metered(): Promise<number> {
      const { rows } = await control.query<{ n: string | null }>("SELECT sum(watermark) AS n FROM usage_streams");
      return Number(rows[0]?.n ?? 0);
    },
  };
}

/** The same rows for every tenant: 300 products, of which the search finds 30 and shows 10. */
async function fillProducts(client: pg.Client, tenants: readonly BenchTenant[]): Promise<void> {
  await client.connect();
  try {
    for (const { id } of tenants) {
      await client.query(
        `INSERT INTO products (tenant_id, id, name, description, category, price_cents, stock)
         SELECT $1, 'product-' || n, (ARRAY['Oak','Steel','Glass','Canvas','Mesh','Brass','Linen','Cork','Stone','Walnut'])[n % 10 + 1]
                  || ' ' || (ARRAY['desk','lamp','shelf','chair','mug'])[n / 10 % 5 + 1] || ' ' || n,
                'A dependable piece for the office, delivered in a flat box with all tools and a ten-year warranty', 'office',
                1000 + n, n FROM generate_series(1, $2::int) AS n`,
        [id, PRODUCTS_PER_TENANT],
      );
    }
    await client.query("VACUUM ANALYZE products");
  } finally {
    await client.end();
  }
}

/** Signs tokens and serves the key that proves them. */
async function startIssuer(running: (() => Promise<unknown>)[]) {
  const { publicKey, privateKey } = await generateKeyPair("ES256");
  const jwks = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: "bench", alg: "ES256", use: "sig" }] });
  const server = createServer(
    (_request, response) => void response.setHeader("content-type", "application/json").end(jwks),
  );
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  running.push(async () => {
    server.close().closeAllConnections();
  });
  const address = server.address();
  const url = `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`;
  return {
    url,
    sign: (organisation: string): Promise<string> =>
      new SignJWT({ org: organisation, scope: "tools:read tools:write" })
        .setProtectedHeader({ alg: "ES256", kid: "bench" })
        .setIssuer(url)
        .setSubject("bench")
        .setAudience(`${PUBLIC_URL}/mcp`)
        .setExpirationTime("1h")
        .sign(privateKey),
  };
}

export async function stopChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGKILL"); // it has no state to save
  await once(child, "exit");
}
