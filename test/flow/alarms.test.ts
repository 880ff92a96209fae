// Alarms: Tollgate notifies the operator's webhook once when an indicator gets worse and once when it recovers. It repeats a
// notification that the webhook did not accept.
import { afterAll, expect, test } from "vitest";
import {
  aTenant,
  asSuperuser,
  callTool,
  controlRows,
  fireCron,
  operator,
  queueRefuses,
  rowsOf,
  system,
  until,
} from "../support/flow.ts";

const SWEEP = "* * * * *";
const NAME = "unknownTenantWebhooks";
const eventId = `evt_${crypto.randomUUID()}`;

interface Alarm {
  name: string;
  level: string;
  was: string;
  value: number;
  runbook: string;
}

const notified = async (): Promise<Alarm[]> => {
  const { alarms } = (await (await fetch(`${system.monitorUrl}/alarms`)).json()) as { alarms: { alarms: Alarm[] }[] };
  return alarms.flatMap((message) => message.alarms).filter(({ name }) => name === NAME);
};
const takesAlarms = (takes: boolean) =>
  fetch(`${system.monitorUrl}/alarms`, {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ takesAlarms: takes }),
  });
const sql = (text: string) => rowsOf(asSuperuser(system.controlUrl), text, [eventId]);
const shown = async (indicator = NAME) => {
  const { indicators } = (await (await operator("GET", "/billing")).json()) as {
    indicators: { name: string; level: string; value: number | null; told: { level: string } | null }[];
  };
  return indicators.find(({ name }) => name === indicator);
};

afterAll(async () => {
  await takesAlarms(true);
  await sql(`DELETE FROM webhook_inbox WHERE event_id = $1`);
});

test("the operator is notified once when an indicator gets worse, with its runbook, and again when it recovers", async () => {
  await fireCron(SWEEP);
  const before = await notified();
  expect(await shown()).toMatchObject({ level: "ok", value: 0 });

  await sql(
    `INSERT INTO webhook_inbox (event_id, type, applied_at, outcome) VALUES ($1, 'x', now(), 'unknown_tenant')`,
  );
  await takesAlarms(false);
  await fireCron(SWEEP);
  expect(await notified()).toEqual(before);
  expect(await shown()).toMatchObject({
    level: "warning",
    value: 1,
    told: before.length === 0 ? null : { level: "ok" },
  });

  await takesAlarms(true);
  await fireCron(SWEEP);
  await fireCron(SWEEP);
  expect((await notified()).slice(before.length)).toEqual([
    expect.objectContaining({
      level: "warning",
      was: "ok",
      value: 1,
      runbook: expect.stringContaining("webhook_inbox"),
    }),
  ]);

  await sql(`DELETE FROM webhook_inbox WHERE event_id = $1`);
  await fireCron(SWEEP);
  expect((await notified()).slice(before.length + 1)).toEqual([
    expect.objectContaining({ level: "ok", was: "warning" }),
  ]);
  expect(await shown()).toMatchObject({ level: "ok", told: { level: "ok" } });
});

test("a charge that the queue does not accept shows by its age until the ledger has it", async () => {
  const tenant = await aTenant();
  await queueRefuses(tenant.id, true);
  try {
    expect((await callTool(tenant.apiKey, "search_products", { query: "lamp" })).isError).toBeFalsy();
    const noted = () => controlRows(`SELECT n::int AS n FROM late_outboxes WHERE tenant_id = $1`, [tenant.id]);
    await until(async () => (await noted()).length > 0, "the object has recorded the late charge");
    expect(await noted()).toEqual([{ n: 1 }]);
    expect(await shown("outboxSeconds")).toMatchObject({ value: expect.any(Number) as number });
    await controlRows(`UPDATE late_outboxes SET at = at - interval '2 hours' WHERE tenant_id = $1`, [tenant.id]);
    expect(await shown("outboxSeconds")).toMatchObject({ level: "critical" });
  } finally {
    await queueRefuses(tenant.id, false);
  }
  await until(async () => (await shown("outboxSeconds"))?.value === null, "the charge reaches the ledger");
});
