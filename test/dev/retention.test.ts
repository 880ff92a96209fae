// How long rows of the control tables are kept, in a real PostgreSQL.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type PrunedTable, prunedTables, retentionStore, retentions } from "../../src/control/retention-store.ts";
import { type AuditLog, startAuditLog } from "../support/audit-log.ts";

const repository = join(import.meta.dirname, "../..");

let log: AuditLog;
beforeAll(async () => void (log = await startAuditLog()), 60_000);
afterAll(() => log[Symbol.asyncDispose]());

/** Tables whose rows are deleted where they are written, with the file that does it. */
const prunedElsewhere: Readonly<Record<string, string>> = {
  audit_events: "migrations/control/0013_audit.sql",
  audit_intents: "migrations/control/0013_audit.sql",
  idempotent_requests: "src/control/idempotent-requests-store.ts",
  webhook_inbox: "src/subscriptions/inbox-store.ts",
  failures: "src/control/failures-store.ts",
};

const perTenant = "a bounded number for each tenant, shard or program";
const money = "it proves what was used, charged and billed";
const work = "the state and the history of work on a tenant's data";
/** Tables that keep their rows, with the reason. */
const kept: Readonly<Record<string, string>> = {
  ...{ tenants: perTenant, tenant_links: perTenant, shards: perTenant, placements: perTenant, heartbeats: perTenant },
  ...{ alarms: perTenant, audit_chains: perTenant, audit_checks: perTenant, provisioning_steps: perTenant },
  ...{
    provider_domains: perTenant,
    metric_totals: perTenant,
    metric_streams: perTenant,
    usage_streams: perTenant,
    late_outboxes: perTenant,
    webhook_secrets: perTenant,
    tenant_secrets: perTenant,
    schema_migrations: perTenant,
  },
  members: "a removed member's identity is refused for good; a tenant has 3,000 identities at most",
  api_keys: "usage and audit rows name them; an ended key is refused by its row",
  checkouts: "what was ordered; the sweep clears name and address of an unpaid one",
  provisioning_attempts: "why a sign-up took several attempts",
  ...{ ledger: money, ledger_conflicts: money, fallback_calls: money, dead_letters: money, reports: money },
  ...{ subscription_periods: money, billing_periods: money, carry_forwards: money, reconciliations: money },
  ...{ drifts: money, invoice_drifts: money, meter_errors: money, plan_changes: money },
  ...{ moves: work, removals: work, jobs: work, migration_runs: work, migration_results: work },
};

test("each control table is pruned at a place that exists, or keeps its rows for a stated reason", async () => {
  const rows = await log.sql(
    `SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'`,
  );
  const tables = rows.map(({ name }) => String(name));
  const stated = [...prunedTables, ...Object.keys(prunedElsewhere), ...Object.keys(kept)];
  expect(stated.toSorted()).toEqual(tables.toSorted());
  for (const [table, file] of Object.entries(prunedElsewhere))
    expect(await readFile(join(repository, file), "utf8"), table).toContain(`DELETE FROM ${table}`);
  const docs = await readFile(join(repository, "docs/storage.md"), "utf8");
  const retention = docs.slice(docs.indexOf("### Retention"), docs.indexOf("All other tables keep"));
  for (const table of [...prunedTables, ...Object.keys(prunedElsewhere)]) expect(retention).toContain(`\`${table}\``);
  for (const table of prunedTables) expect(retention).toContain(retentions[table].kept);
});

/** Inserts a row of the table whose retention ends after `days` days, at an instant this many days ago. */
const rowOf: Readonly<Record<PrunedTable, { days: number; insert: (daysAgo: string, id: string) => string }>> = {
  sessions: {
    days: 0,
    insert: (at, id) =>
      `INSERT INTO sessions (id_hash, issuer, subject, created_at, last_seen_at, expires_at) VALUES ('${id}', 'i', 's', now() - interval '2 days', now(), ${at})`,
  },
  operator_sessions: {
    days: 0,
    insert: (at, id) =>
      `INSERT INTO operator_sessions (id_hash, operator_id, name, role, through, bound_to, created_at, last_seen_at, expires_at) VALUES ('${id}', 'o', 'O', 'viewer', 'oidc', 'i', now() - interval '2 days', now(), ${at})`,
  },
  invitations: {
    days: 90,
    insert: (at, id) =>
      `INSERT INTO invitations (id, tenant_id, email, role, token_hash, invited_by, expires_at) VALUES ('${id}', 'tenant-1', '${id}@acme.example', 'member', '${id}', 'buyer', ${at})`,
  },
  providers: {
    days: 90,
    insert: (at, id) =>
      `INSERT INTO providers (id, tenant_id, kind, issuer, jwks_url, client_id, subject_claim, id_jag, slug, created_at, updated_at, removed_at)
       VALUES ('${id}', 'tenant-1', 'oidc', 'i', 'k', 'c', 'sub', false, 's', now(), now(), ${at})`,
  },
  impersonations: {
    days: 90,
    insert: (at, id) =>
      `INSERT INTO impersonations (id, tenant_id, operator_id, operator_name, through, reason, expires_at) VALUES ('${id}', 'tenant-1', 'o', 'O', 'oidc', 'r', ${at})`,
  },
  alerts: {
    days: 90,
    insert: (at, id) =>
      `INSERT INTO alerts (tenant_id, event, subject, channel, data, raised_at) VALUES ('tenant-1', 'key_created', '${id}', 'mail', '{}', ${at})`,
  },
  operator_token_uses: { days: 400, insert: (at) => `INSERT INTO operator_token_uses (hour) VALUES (${at})` },
  metrics_hourly: {
    days: 400,
    insert: (at, id) =>
      `INSERT INTO metrics_hourly VALUES ('tenant-1', ${at}, '${id}', 'key:k1', 'ok', '', 1, 1, 1, 1, '{1}')`,
  },
  cross_tenant_attempts: {
    days: 400,
    insert: (at) => `INSERT INTO cross_tenant_attempts (tenant_id, day) VALUES ('tenant-1', (${at})::date)`,
  },
};

test("a row is deleted once its retention is over, and not before, in small statements", async () => {
  await log.aTenant();
  for (const table of prunedTables) {
    const { days, insert } = rowOf[table];
    await log.sql(insert(`now() - interval '${days + 2} days'`, "old"));
    await log.sql(insert(`now() - interval '${days - 2} days'`, "young"));
    const count = async (): Promise<unknown> => (await log.sql(`SELECT count(*)::int AS n FROM ${table}`))[0]?.["n"];
    await retentionStore(log.control).prune(table, 0);
    expect(await count(), table).toBe(2);
    await retentionStore(log.control).prune(table);
    expect(await count(), table).toBe(1);
    await retentionStore(log.control).prune(table);
    expect(await count(), table).toBe(1);
  }
});

test("a session that has ended goes with the next sweep, and an invitation that can be accepted stays", async () => {
  await log.sql(`UPDATE sessions SET ended_at = now()`);
  await retentionStore(log.control).prune("sessions");
  expect(await log.sql(`SELECT FROM sessions`)).toEqual([]);
  await log.sql(`UPDATE invitations SET accepted_at = now() - interval '91 days'`);
  await retentionStore(log.control).prune("invitations");
  expect(await log.sql(`SELECT FROM invitations`)).toEqual([]);
});
