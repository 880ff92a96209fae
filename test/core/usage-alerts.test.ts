// Alerts about a tenant's usage: the webhook of each tenant gets ids and numbers, and one that fails delays no other.
import { Webhook, WebhookVerificationError } from "standardwebhooks";
import { expect, onTestFinished, test, vi } from "vitest";
import type { Context } from "../../src/control/context.ts";
import { planNames } from "../../src/core/plans.ts";
import { HOUR_MS } from "../../src/core/time.ts";
import { monthOf, sendUsageAlerts, signedHeaders } from "../../src/metering/usage-alerts.ts";

test("an alert is sent once to each tenant's own webhook and addresses, and a webhook that fails gets it again later", async () => {
  const alert = (tenantId: string) => ({
    ...{ tenantId, month: "2026-11-01", thresholdPercent: 80 },
    ...{ channel: "webhook", webhookUrl: `https://${tenantId}.example/hook`, emails: null, secrets: null },
  });
  const emails = ["it@mail.example", "ops@mail.example"];
  const byMail = { ...alert("good"), channel: "mail", emails };
  const sent: unknown[] = [];
  const control = {
    async query(sql: string, params: unknown[]) {
      if (sql.includes("SET sent_at")) sent.push(params);
      if (sql.includes("INSERT INTO usage_alerts")) {
        expect(params[0]).toBe("2026-11-01");
        expect(Object.keys(JSON.parse(String(params[1])) as object)).toEqual([...planNames]);
      }
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
  await sendUsageAlerts(context, Date.parse("2026-11-30T23:59:59Z"));
  expect(sent).toEqual(
    expect.arrayContaining([
      ["good", "2026-11-01", 80, "webhook"],
      ["good", "2026-11-01", 80, "mail"],
    ]),
  );
  expect(sent).toHaveLength(2);
  expect(mails).toMatchObject(emails.map((to) => ({ to, subject: expect.stringContaining("80 %") })));
  expect(Object.keys(posted)).toHaveLength(4);
  expect(posted["good.example"]).toEqual({
    ...{ event: "usage_threshold_reached", tenantId: "good", month: "2026-11", thresholdPercent: 80 },
    at: "2026-11-30T23:59:59.000Z",
    usageUrl: "https://tollgate.example/api/tenants/good/usage",
  });
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
  ["2026-01-01T00:00:00Z", "2026-01-01"],
  ["2026-12-31T23:59:59Z", "2026-12-01"],
  ["2028-02-29T12:00:00Z", "2028-02-01"],
])("the month of %s begins on %s", (instant, month) => {
  expect(monthOf(Date.parse(instant))).toBe(month);
});
