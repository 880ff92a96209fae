// Alerts of tenants: which thresholds are reached, to the unit; the webhook of each tenant gets ids and numbers, and one that fails
// delays no other.
import { Webhook, WebhookVerificationError } from "standardwebhooks";
import { expect, onTestFinished, test, vi } from "vitest";
import type { Context } from "../../src/control/context.ts";
import { planOf } from "../../src/core/plans/plans.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { HOUR_MS } from "../../src/core/time.ts";
import { measuresOf, reached, sendAlerts, signedHeaders } from "../../src/metering/alerts.ts";

const NOW_MS = Date.parse("2026-11-30T23:59:59Z");

test("an alert is sent to each tenant's own webhook and addresses, and one that was not taken is recorded with its reason", async () => {
  const ids = new Map(["good", "broken", "away", "moved", "mailed"].map((name, index) => [name, index + 1]));
  const alert = (tenantId: string) => ({
    ...{ id: ids.get(tenantId), tenantId, event: "usage_threshold_reached", channel: "webhook", attempts: 1 },
    ...{
      data: { month: "2026-11", thresholdPercent: 80 },
      raisedAt: "2026-11-30T12:00:00.000Z",
      sentAt: null,
      nextAt: null,
    },
    ...{ error: null, webhookUrl: `https://${tenantId}.example/hook`, emails: [], secrets: null },
  });
  const emails = ["it@mail.example", "ops@mail.example"];
  const byMail = { ...alert("mailed"), channel: "mail", emails };
  const ended = new Map<unknown, unknown>();
  const control = {
    async query(sql: string, params: unknown[]) {
      if (sql.includes("SET sent_at = CASE")) ended.set(params[0], params[1]);
      return sql.includes("attempts + 1")
        ? [alert("good"), alert("broken"), alert("away"), alert("moved"), byMail]
        : [];
    },
  };
  const posted: Record<string, unknown> = {};
  const mails: unknown[] = [];
  const asked = vi.spyOn(globalThis, "fetch").mockImplementation(async (input, init) => {
    const { hostname } = new URL(input instanceof Request ? input.url : input);
    const body: unknown = JSON.parse(typeof init?.body === "string" ? init.body : "");
    if (hostname === "mailbox.example") return new Response(null, { status: mails.push(body) > 0 ? 204 : 500 });
    posted[hostname] = body;
    if (hostname === "away.example") throw new TypeError("no route");
    return new Response(null, { status: { "broken.example": 500, "moved.example": 302 }[hostname] ?? 204 });
  });
  onTestFinished(() => asked.mockRestore());
  const env = { PUBLIC_URL: "https://tollgate.example", MAIL_URL: "https://mailbox.example", MAIL_FROM: "a@b.example" };
  const context = { control, env } as unknown as Context;
  await sendAlerts(context, NOW_MS);
  expect(Object.fromEntries([...ids].map(([name, id]) => [name, ended.get(id)]))).toEqual({
    ...{ good: null, mailed: null, broken: "It answered 500.", away: "It did not answer.", moved: "It answered 302." },
  });
  expect(mails).toMatchObject(emails.map((to) => ({ to, subject: expect.stringContaining("80 %") })));
  expect(Object.keys(posted)).toHaveLength(4);
  expect(posted["good.example"]).toEqual({
    ...{ event: "usage_threshold_reached", tenantId: "good", month: "2026-11", thresholdPercent: 80 },
    at: "2026-11-30T12:00:00.000Z",
    usageUrl: "https://tollgate.example/api/tenants/good/usage",
  });
});

const tenantId = TenantId.parse("acme");
const billing = {
  ...{ periodStartMs: Date.UTC(2026, 10, 14), periodEndMs: Date.UTC(2026, 11, 14), planSinceMs: null },
  ...{ spentBeforeCents: "0", ownCapCents: 10 },
};

/** The alerts of a tenant with these units in each span. */
function alertsOf(plan: string, units: number, thresholdsPercent: number[] | null = null): string[] {
  const tenant = { tenantId, plan, limits: planOf(plan).limits, billing, thresholdsPercent };
  return measuresOf(tenant, NOW_MS).flatMap((measure) =>
    reached(tenant, measure, units).map(
      ({ event, data }) => `${event.split("_")[0]} ${String(data["thresholdPercent"])}`,
    ),
  );
}

test.each([
  ["free", 499, []],
  ["free", 500, ["usage 50"]],
  ["free", 800, ["usage 50", "usage 80"]],
  ["free", 1_000, ["usage 50", "usage 80", "usage 100"]],
  ["pro", 49_999, ["usage 50", "usage 80"]],
  ["pro", 50_049, ["usage 50", "usage 80", "usage 100"]],
  ["pro", 50_050, ["usage 50", "usage 80", "usage 100", "spend 50"]],
  ["pro", 50_099, ["usage 50", "usage 80", "usage 100", "spend 50", "spend 80"]],
  ["pro", 50_100, ["usage 50", "usage 80", "usage 100", "spend 50", "spend 80", "spend 100"]],
  ["enterprise", 1_000_000, []],
])("a tenant of %s with %i units has reached %j of its allowance and its spend cap", (plan, units, expected) => {
  expect(alertsOf(plan, units)).toEqual(expected);
  expect(alertsOf(plan, units, [100])).toEqual(expected.filter((each) => each.endsWith("100")));
});

test("an allowance counts in the calendar month or, with a price per unit, in the billing period", () => {
  const spans = (plan: string) =>
    measuresOf({ tenantId, plan, limits: planOf(plan).limits, billing, thresholdsPercent: null }, NOW_MS).map(
      ({ span }) => span.startMs,
    );
  expect(spans("free")).toEqual([Date.UTC(2026, 10)]);
  expect(spans("pro")).toEqual([billing.periodStartMs, billing.periodStartMs]);
});

test("receivers with the published library of Standard Webhooks accept a signed webhook, and refuse one that was changed", async () => {
  const secretOf = (): string => `whsec_${Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("base64")}`;
  const [current, former, other] = [secretOf(), secretOf(), secretOf()];
  const message = {
    id: "msg_usage_good_2026-11_80",
    atMs: Date.now(),
    body: '{"event":"usage_threshold_reached","at":"é"}',
  };
  const headers = await signedHeaders(message, [current, former]);
  // A tenant changes the secret at its receivers one by one.
  for (const secret of [current, former])
    expect(new Webhook(secret).verify(message.body, headers)).toEqual(JSON.parse(message.body));
  const refused = (changed: Partial<typeof message>, secret = current, sent = headers): void => {
    expect(() => new Webhook(secret).verify(changed.body ?? message.body, sent)).toThrow(WebhookVerificationError);
  };
  refused({}, other);
  refused({ body: message.body.replace("é", "e") });
  refused({}, current, { ...headers, "webhook-id": "msg_usage_good_2026-11_90" });
  refused({}, current, { ...headers, "webhook-timestamp": String(Number(headers["webhook-timestamp"]) + 1) });
  // One that is sent again later is old.
  refused({}, current, await signedHeaders({ ...message, atMs: message.atMs - HOUR_MS }, [current]));

  // Byte for byte as the library signs.
  const at = new Date(message.atMs);
  expect(headers["webhook-signature"]?.split(" ")).toEqual(
    [current, former].map((secret) => new Webhook(secret).sign(message.id, at, message.body)),
  );
  expect(await signedHeaders(message, [])).not.toHaveProperty("webhook-signature");
});

test.each([
  ["2026-01-01T00:00:00Z", "2026-01"],
  ["2026-12-31T23:59:59Z", "2026-12"],
  ["2028-02-29T12:00:00Z", "2028-02"],
])("the month of %s is %s, from its first day on", (instant, month) => {
  const tenant = { tenantId, plan: "free", limits: planOf("free").limits, billing, thresholdsPercent: null };
  expect(measuresOf(tenant, Date.parse(instant))).toMatchObject([
    { subject: month, span: { startMs: Date.parse(`${month}-01T00:00:00Z`) } },
  ]);
});
