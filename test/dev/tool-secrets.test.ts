// The secrets of tenants in a real PostgreSQL: a tenant has twenty at most, and a removal that cannot be undone deletes them.
import { afterAll, beforeAll, expect, test } from "vitest";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { removalsStore } from "../../src/lifecycle/removals-store.ts";
import { secretsStore } from "../../src/operations/secrets/secrets-store.ts";
import { type AuditLog, startAuditLog } from "../support/audit-log.ts";

let log: AuditLog;
beforeAll(async () => void (log = await startAuditLog()), 60_000);
afterAll(() => log[Symbol.asyncDispose]());

const by = { kind: "member", id: "m1" };

test("a tenant has twenty secrets at most, and may still replace one of them", async () => {
  const tenantId = TenantId.parse(await log.aTenant());
  const secrets = secretsStore(log.control);
  const set = (n: number) => secrets.set({ tenantId, name: `key_${n}`, value: "v1.k.a.b" }, by, Date.now());
  const outcomes = [];
  for (let n = 1; n <= 21; n += 1) outcomes.push(await set(n));
  expect(outcomes).toEqual([...Array.from({ length: 20 }, () => "set"), "full"]);
  expect(await set(7)).toBe("set");
  expect(await secrets.list(tenantId)).toHaveLength(20);
});

test("the secrets of a tenant end with the grace of its removal", async () => {
  const tenantId = TenantId.parse(await log.aTenant());
  const secrets = secretsStore(log.control);
  await secrets.set({ tenantId, name: "api_key", value: "v1.k.a.b" }, by, Date.now());
  await log.sql(`UPDATE tenants SET state = 'leaving', leaving_until = now() WHERE id = $1`, [tenantId]);
  await log.sql(
    `INSERT INTO removals (tenant_id, asked_by, from_state, step) VALUES ($1, 'tenant', 'active', 'grace')`,
    [tenantId],
  );
  expect(await removalsStore(log.control).beginDropping(10, tenantId)).toEqual([tenantId]);
  expect(await secrets.list(tenantId)).toEqual([]);
  expect(await secrets.set({ tenantId, name: "api_key", value: "v1.k.a.b" }, by, Date.now())).toBe("gone");
});
