// The secrets that sign tenants' webhooks, in a real PostgreSQL: encrypted, with an overlap, and encrypted again when the key rotates.
import { createHmac } from "node:crypto";
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from "vitest";
import type { Context } from "../../src/control/context.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { renewWebhookSecret, sendAlerts } from "../../src/metering/alerts.ts";
import { alertsStore } from "../../src/metering/alerts-store.ts";
import { rotateEncryptionKeys } from "../../src/operations/key-rotation.ts";
import { type AuditLog, startAuditLog } from "../support/audit-log.ts";

let log: AuditLog;
beforeAll(async () => void (log = await startAuditLog()), 60_000);
afterAll(() => log[Symbol.asyncDispose]());

const key = (id: string) => ({ id, secret: `the ${id} key of this test, long enough for it` });
const contextWith = (...keys: string[]): Context =>
  ({
    control: log.control,
    env: { PUBLIC_URL: "https://tollgate.example", ENCRYPTION_KEYS: JSON.stringify(keys.map(key)) },
  }) as unknown as Context;

/** Sends the tenant's alert. Returns the signatures that its webhook gets, and those that these secrets make. */
async function delivered(context: Context, secrets: string[]): Promise<{ got: string[]; expected: string[] }> {
  await log.sql(`UPDATE alerts SET sent_at = NULL, attempts = 0, next_at = now()`);
  let sent: Request | undefined;
  const real = globalThis.fetch;
  const spy = vi.spyOn(globalThis, "fetch").mockImplementation(async (input, init) => {
    const url = input instanceof Request ? input.url : input.toString();
    if (url !== "https://hooks.acme.example/x") return real(input, init);
    sent = new Request(input, init);
    return new Response(null, { status: 204 });
  });
  onTestFinished(() => spy.mockRestore());
  await sendAlerts(context, Date.now());
  spy.mockRestore();
  const headers = new Headers(sent?.headers);
  const content = `${headers.get("webhook-id")}.${headers.get("webhook-timestamp")}.${await sent?.text()}`;
  const expected = secrets.map((secret) => {
    const bytes = Buffer.from(secret.replace("whsec_", ""), "base64");
    return `v1,${createHmac("sha256", bytes).update(content).digest("base64")}`;
  });
  return { got: headers.get("webhook-signature")?.split(" ") ?? [], expected };
}

test("a tenant's webhook is signed with its secret, after a rotation with both for a day, and after a rotation of ENCRYPTION_KEYS", async () => {
  const tenantId = TenantId.parse(await log.aTenant());
  await log.sql(`UPDATE tenants SET settings = $2 WHERE id = $1`, [
    tenantId,
    { integrations: { webhookUrl: "https://hooks.acme.example/x" } },
  ]);
  await log.sql(
    `INSERT INTO alerts (tenant_id, event, subject, channel, data) VALUES ($1, 'key_created', 'k1', 'webhook', '{"keyId": "k1"}')`,
    [tenantId],
  );
  const context = contextWith("old");
  expect(await delivered(context, [])).toEqual({ got: [], expected: [] });
  const first = await renewWebhookSecret(context, tenantId);
  expect(first).toEqual({ secret: expect.stringMatching(/^whsec_[A-Za-z0-9+/]{43}=$/), formerUntil: null });
  const one = await delivered(context, [first.secret]);
  expect(one.got).toEqual(one.expected);
  const second = await renewWebhookSecret(context, tenantId);
  expect(Date.parse(second.formerUntil ?? "") - Date.now()).toBeGreaterThan(23 * 3_600_000);
  const both = await delivered(context, [second.secret, first.secret]);
  expect(both.got).toEqual(both.expected);
  const [row] = await log.sql(`SELECT secret, former_secret FROM webhook_secrets`);
  for (const { secret } of [first, second]) expect(JSON.stringify(row)).not.toContain(secret.slice(6));

  const rotated = contextWith("new", "old");
  await rotateEncryptionKeys(rotated);
  expect(await alertsStore(log.control).secretsNotUnder("new", 10)).toEqual([]);
  const later = await delivered(contextWith("new"), [second.secret, first.secret]);
  expect(later.got).toEqual(later.expected);
  await log.sql(`UPDATE webhook_secrets SET former_until = now()`);
  const last = await delivered(contextWith("new"), [second.secret]);
  expect(last.got).toEqual(last.expected);
});
