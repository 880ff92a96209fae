// A real PostgreSQL with a migrated control database, for tests of the audit log.
import { controlMigrations, migrate } from "../../cli/migrations/apply.ts";
import { OWNER, bootstrapCluster, controlDatabase } from "../../cli/migrations/prepare.ts";
import { connectControl } from "../../src/adapters/neon.ts";
import type { AuditEvent, AuditRow } from "../../src/identity/audit/audit.ts";
import { type Chain, auditStore } from "../../src/identity/audit/audit-store.ts";
import { startCluster } from "./shard.ts";

export type AuditLog = Awaited<ReturnType<typeof startAuditLog>>;

/** Close it, or the server outlives the test. */
export async function startAuditLog() {
  const cluster = await startCluster();
  const superuserUrl = `postgresql://postgres:${cluster.password}@127.0.0.1:${cluster.port}/postgres`;
  await bootstrapCluster({ superuserUrl, ownerPassword: OWNER, databases: [{ name: controlDatabase, closed: false }] });
  const ownerUrl = cluster.urlOf(OWNER, controlDatabase);
  await migrate({ url: ownerUrl, series: controlMigrations });
  /** Runs any statements as superuser. */
  const sql = (text: string, params?: unknown[]) => cluster.superuser(controlDatabase, text, params);
  await sql(`ALTER ROLE tollgate_service PASSWORD 'tollgate_service'`);
  const serviceUrl = cluster.urlOf("tollgate_service", controlDatabase);
  const connect = () =>
    connectControl({ CONTROL_DATABASE_URL: serviceUrl, NEON_FETCH_ENDPOINT: cluster.fetchEndpoint });
  const control = connect();
  const store = auditStore(control);
  let made = 0;

  return {
    ...{ sql, ownerUrl, serviceUrl, connect, control, store },
    fetchEndpoint: cluster.fetchEndpoint,

    async aTenant(): Promise<string> {
      made += 1;
      const id = `tenant-${made}`;
      await sql(
        `INSERT INTO tenants (id, name, plan, strategy, state, limits) VALUES ($1, 'A', 'free', 'shared', 'active', '{}')`,
        [id],
      );
      return id;
    },

    async append(tenantId: string, count: number): Promise<void> {
      for (let n = 0; n < count; n += 1) await store.append(anEvent({ tenantId, action: `act${n}` }));
    },

    async chainOf(name: string): Promise<Chain> {
      const [chain] = await store.chains(null, 1, name);
      if (chain === undefined) throw new Error(`there is no chain ${name}`);
      return chain;
    },

    async rowsOf(chain: string): Promise<AuditRow[]> {
      return (await store.rowsAfter(chain, 0, 10_000)).filter((row) => row !== undefined);
    },

    /** Runs a statement of the owner's without the triggers: what a person with all rights could do. */
    async behindItsBack(text: string, params: unknown[] = []): Promise<void> {
      await sql(`ALTER TABLE audit_events DISABLE TRIGGER USER`);
      try {
        await sql(text, params);
      } finally {
        await sql(`ALTER TABLE audit_events ENABLE TRIGGER USER`);
      }
    },

    [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose](),
  };
}

export function anEvent(overrides: Partial<AuditEvent> = {}): AuditEvent {
  return {
    ...{ id: crypto.randomUUID(), tenantId: null, atMs: Date.now(), actorKind: "operator", actorId: "o1" },
    ...{ actorName: "Ann", onBehalfOf: null, action: "suspendTenant", target: "t", outcome: "succeeded" as const },
    ...{ status: 200, code: null, requestId: "r1", address: "192.0.2.1", detail: {} },
    ...overrides,
  };
}
