// A tenant's configuration: in force on the very next call, one winner among changes of the same version, and what a tenant was
// sold stays.
import { expect, test } from "vitest";
import { aTenant, anAgent, callTool, controlRows, fireCron, operator, system, until } from "../support/flow.ts";

interface Answer {
  status: number;
  etag: string;
  body: Record<string, unknown>;
}

async function ask(url: string, token: string, patch?: unknown, ifMatch?: string, method = "PATCH"): Promise<Answer> {
  const response = await fetch(system.publicUrl + url, {
    headers: {
      authorization: `Bearer ${token}`,
      "content-type": "application/merge-patch+json",
      ...(ifMatch !== undefined && { "if-match": ifMatch }),
    },
    ...(patch !== undefined && { method, body: JSON.stringify(patch) }),
  });
  const body = (await response.json()) as Record<string, unknown>;
  return { status: response.status, etag: response.headers.get("etag") ?? "", body };
}
const configuration = (id: string, patch?: unknown, ifMatch?: string): Promise<Answer> =>
  ask(`/admin/api/tenants/${id}/configuration`, system.operatorToken, patch, ifMatch);

test("a change needs the version that it is for, and is in force on the very next call", async () => {
  const { id, apiKey } = await aTenant();
  const code = async (): Promise<string | undefined> => (await callTool(apiKey, "get_usage")).refusal?.code;
  expect(await code()).toBeUndefined();
  const shown = await configuration(id);
  expect(shown.body).toMatchObject({ tenantId: id, plan: "free", state: "active", limits: {}, features: {} });
  expect(await configuration(id, { allowedTools: [] })).toMatchObject({ status: 428 });

  const changed = await configuration(id, { allowedTools: ["health_check"] }, shown.etag);
  expect(changed).toMatchObject({ status: 200, body: { allowedTools: ["health_check"], delivered: true } });
  expect(await code()).toBe("tool_not_allowed");
  expect((await configuration(id)).etag).toBe(changed.etag);
  expect(await configuration(id, { allowedTools: null }, shown.etag)).toMatchObject({
    ...{ status: 412, etag: changed.etag, body: { code: "precondition_failed" } },
  });
  expect(await code()).toBe("tool_not_allowed");
  const { body } = await configuration(id, { allowedTools: null, limits: { callsPerMinute: 1 } }, "*");
  expect(body).not.toHaveProperty("allowedTools");
  expect(body).toMatchObject({ limits: { callsPerMinute: 1 }, effective: { limits: { callsPerMinute: 1 } } });
  expect(await code()).toBe("rate_limited");
  expect(await configuration(id, { limits: null }, "*")).toMatchObject({ status: 200, body: { limits: {} } });
  expect(await code()).toBeUndefined();

  // A client may send back what it has read, but not another plan or state.
  const { plan, state } = shown.body;
  expect(await configuration(id, { plan, state }, "*")).toMatchObject({ status: 200 });
  expect(await configuration(id, { plan: "pro" }, "*")).toMatchObject({
    ...{ status: 409, body: { detail: `plan: change it with POST /admin/api/tenants/${id}/plan.` } },
  });
  expect(await configuration(id, { state: "suspended" }, "*")).toMatchObject({ status: 409 });
  expect(await configuration(id, { colour: "#fff" }, "*")).toMatchObject({ status: 400 });
  expect(await configuration("no-such-tenant", { features: {} }, "*")).toMatchObject({ status: 404 });
});

test("of many changes of one version one wins, and none is lost in silence", async () => {
  const { id } = await aTenant();
  const { etag } = await configuration(id);
  const numbers = Array.from({ length: 12 }, (_, index) => index + 1);
  const answers = await Promise.all(numbers.map((seats) => configuration(id, { features: { seats } }, etag)));
  const won = answers.filter(({ status }) => status === 200);
  expect(won).toHaveLength(1);
  expect(answers.filter(({ status }) => status === 412)).toHaveLength(11);
  const now = await configuration(id);
  expect(now.body["features"]).toEqual(won[0]?.body["features"]);
  expect(answers.every((answer) => answer.etag === now.etag)).toBe(true);
  // Without a version each change finds its place, field by field.
  const each = numbers.slice(0, 4);
  const all = await Promise.all(each.map((n) => configuration(id, { features: { [`f${n}`]: n } }, "*")));
  expect(all.filter(({ status }) => status === 200 || status === 409)).toHaveLength(4);
  const { features } = (await configuration(id)).body as { features: Record<string, number> };
  all.forEach(({ status }, index) => expect(features[`f${index + 1}`] !== undefined).toBe(status === 200));
});

test("a tenant's admin changes its branding, which agents see at once, its webhook and alerts, and nothing else", async () => {
  const { id, apiKey } = await aTenant();
  const made = await operator("POST", `/tenants/${id}/keys`, { scopes: ["tools:read", "tenant:admin"] });
  const admin = ((await made.json()) as { apiKey: string }).apiKey;
  const own = (patch?: unknown, ifMatch?: string, token = admin): Promise<Answer> =>
    ask(`/api/tenants/${id}/configuration`, token, patch, ifMatch);
  const { etag, body } = await own();
  expect(body).toMatchObject({ plan: "free", limits: { callsInFlight: 4 } });
  expect(body).not.toHaveProperty("effective");
  expect(await own({ branding: {} })).toMatchObject({ status: 428 });
  expect(await own({ branding: {} }, etag, apiKey)).toMatchObject({ status: 403 });
  const branding = { productName: "Acme Lager", logoUrl: "https://acme.example/logo.png" };
  const changed = await own({ branding }, etag);
  expect(changed).toMatchObject({ status: 200, body: { branding, delivered: true } });
  await using agent = await anAgent(apiKey);
  expect(agent.getServerVersion()).toMatchObject({ title: "Acme Lager", icons: [{ src: branding.logoUrl }] });
  for (const patch of [
    { limits: { unitsPerHour: 1 } },
    { features: { a: 1 } },
    { plan: "pro" },
    { allowedTools: null },
  ])
    expect(await own(patch, "*"), JSON.stringify(patch)).toMatchObject({ status: 400 });
  for (const webhookUrl of ["http://acme.example", "https://127.0.0.1/x", "https://db.internal/"])
    expect(await own({ integrations: { webhookUrl } }, "*"), webhookUrl).toMatchObject({ status: 400 });
  expect(await own({ branding: { logoUrl: null } }, changed.etag)).toMatchObject({
    ...{ status: 200, body: { branding: { productName: "Acme Lager" } } },
  });
});

test("a threshold of the month's usage is one alert by webhook and mail, and what is not taken is sent again", async () => {
  const { id, apiKey } = await aTenant({ limits: { unitsPerMonth: 4 } });
  const email = `it@${id}.example`;
  const patch = {
    alerts: { emails: [email], thresholdsPercent: [50, 100] },
    integrations: { webhookUrl: "https://hooks.no-such.example/x" },
  };
  expect(await configuration(id, patch, "*")).toMatchObject({ status: 200, body: patch });
  const units = async (): Promise<number> => {
    const sql = `SELECT coalesce(sum(units), 0) AS units FROM ledger WHERE tenant_id = $1`;
    return Number((await controlRows<{ units: string }>(sql, [id]))[0]?.units);
  };
  const alerts = () =>
    controlRows(
      `SELECT channel, (data ->> 'thresholdPercent')::int AS threshold_percent, attempts, sent_at IS NOT NULL AS sent FROM alerts
       WHERE tenant_id = $1 AND event = 'usage_threshold_reached' ORDER BY channel`,
      [id],
    );
  await fireCron("*/5 * * * *");
  expect(await alerts()).toEqual([]);
  for (let call = 0; call < 3 && (await units()) < 2; call += 1) {
    const before = await units();
    const { receipt } = await callTool(apiKey, "search_products", { query: "x" });
    await until(async () => (await units()) >= before + (receipt?.units ?? 0), "the charge is in the ledger");
  }
  const mail = { channel: "mail", threshold_percent: 50, attempts: 1, sent: true };
  for (const attempts of [1, 2]) {
    await fireCron("*/5 * * * *");
    expect(await alerts()).toEqual([mail, { channel: "webhook", threshold_percent: 50, attempts, sent: false }]);
  }
  const subjects = async (part: string): Promise<number> => {
    const mailbox = await fetch(`${system.mailboxUrl}/mails?to=${encodeURIComponent(email)}`);
    const { mails } = (await mailbox.json()) as { mails: { subject: string }[] };
    return mails.filter(({ subject }) => subject.includes(part)).length;
  };
  expect(await subjects("50 % of the units")).toBe(1);

  // A key, a member and a payment that failed: each once, however often the cron looks. The list has all, and replays each.
  await operator("POST", `/tenants/${id}/members`, { email: `new@${id}.example`, role: "member" });
  const made = await operator("POST", `/tenants/${id}/keys`, { scopes: ["tools:read", "tenant:admin"] });
  const admin = ((await made.json()) as { apiKey: string }).apiKey;
  await controlRows(
    `UPDATE tenants SET state = 'past_due', past_due_since = now(), version = version + 1 WHERE id = $1`,
    [id],
  );
  for (let run = 0; run < 2; run += 1) await fireCron("*/5 * * * *");
  const listed = await ask(`/api/tenants/${id}/alerts`, admin);
  const all = listed.body["alerts"] as { id: number; event: string; channel: string; sentAt: string | null }[];
  const mailed = all.filter(({ channel }) => channel === "mail");
  expect(
    Object.fromEntries([...Map.groupBy(mailed, ({ event }) => event)].map(([key, { length }]) => [key, length])),
  ).toEqual({ usage_threshold_reached: 1, payment_failed: 1, member_added: 1, key_created: 2 });
  expect(mailed.every(({ sentAt }) => sentAt !== null)).toBe(true);
  expect(await subjects("a payment failed")).toBe(1);
  const replay = (event: string, channel: string): Promise<Answer> => {
    const alert = all.find((each) => each.event === event && each.channel === channel);
    return ask(`/api/tenants/${id}/alerts/${alert?.id}/replay`, admin, {}, undefined, "POST");
  };
  expect(await replay("payment_failed", "mail")).toMatchObject({ status: 200, body: { alert: { error: null } } });
  expect(await subjects("a payment failed")).toBe(2);
  const again = { attempts: 1, sentAt: null, error: "It did not answer." };
  expect(await replay("payment_failed", "webhook")).toMatchObject({ status: 202, body: { alert: again } });
  expect(await ask(`/api/tenants/${id}/alerts/1x/replay`, admin, {}, undefined, "POST")).toMatchObject({ status: 404 });
});

test("a tenant keeps the limits that it was sold, and another plan brings its own", async () => {
  const { id } = await aTenant();
  // As sold a year ago, when the plan had other numbers.
  await controlRows(
    `UPDATE tenants SET limits = limits || '{"unitsPerHour": 777}', sold_limits = NULL, version = version + 1 WHERE id = $1`,
    [id],
  );
  const unitsPerHour = async (patch?: unknown): Promise<unknown> => {
    const { body } = await configuration(id, patch, patch === undefined ? undefined : "*");
    return [body["limits"], (body["effective"] as { limits: { unitsPerHour: number } }).limits.unitsPerHour];
  };
  expect(await unitsPerHour()).toEqual([{}, 777]);
  expect(await unitsPerHour({ limits: { unitsPerHour: 5_000 } })).toEqual([{ unitsPerHour: 5_000 }, 5_000]);
  expect(await unitsPerHour({ limits: { callsPerMinute: 7 } })).toEqual([
    { unitsPerHour: 5_000, callsPerMinute: 7 },
    5_000,
  ]);
  const account = await operator("PATCH", `/tenants/${id}`, { limits: { unitsPerHour: null } });
  expect(account.status).toBe(200);
  expect(await unitsPerHour()).toEqual([{ callsPerMinute: 7 }, 777]);
  expect((await operator("POST", `/tenants/${id}/plan`, { plan: "starter", limits: { sessions: 9 } })).ok).toBe(true);
  await until(async () => (await configuration(id)).body["plan"] === "starter", "the plan has changed");
  expect(await unitsPerHour()).toEqual([{ sessions: 9 }, 1_000]);
});
