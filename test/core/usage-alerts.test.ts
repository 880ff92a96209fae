// Alerts about a tenant's usage: the webhook of each tenant gets ids and numbers, and one that fails delays no other.
import { expect, onTestFinished, test, vi } from "vitest";
import type { Context } from "../../src/control/context.ts";
import { planNames } from "../../src/core/plans.ts";
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

test("a webhook is signed as the published library of Standard Webhooks signs it, once for each secret that works", async () => {
  const message = {
    ...{ id: "msg_usage_good_2026-11_80", atMs: Date.parse("2026-11-29T23:59:59.500Z") },
    body: '{"event":"usage_threshold_reached"}',
  };
  // Signed with standardwebhooks 1.1.1.
  const [secret, signature] = [
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "v1,hirBl86spth+Yy0+M5GgyBRCbo8Mt6WmflgGjHiFTko=",
  ];
  expect(await signedHeaders(message, [secret])).toEqual({
    ...{ "webhook-id": message.id, "webhook-timestamp": "1795996799", "webhook-signature": signature },
  });
  const former = `whsec_${btoa("x".repeat(32))}`;
  const both = (await signedHeaders(message, [former, secret]))["webhook-signature"]?.split(" ") ?? [];
  expect(both).toHaveLength(2);
  expect(both[1]).toBe(signature);
  expect(await signedHeaders(message, [])).not.toHaveProperty("webhook-signature");
});

test.each([
  ["2026-01-01T00:00:00Z", "2026-01-01"],
  ["2026-12-31T23:59:59Z", "2026-12-01"],
  ["2028-02-29T12:00:00Z", "2028-02-01"],
])("the month of %s begins on %s", (instant, month) => {
  expect(monthOf(Date.parse(instant))).toBe(month);
});
