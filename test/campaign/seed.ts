// One run of the campaign. Customers sign up and call while processes crash, messages are lost and Stripe fails. Then all
// faults end, and every unit must be accounted for. The seed decides the actions and the faults. The program under test
// is the real one.
import { postJson } from "../../dev/demo.ts";
import { seededRandom } from "../../dev/seeded-random.ts";
import {
  type TestTenant,
  aTenant,
  fireCron,
  operator,
  simulator,
  status,
  stripeApi,
  system,
  until,
} from "../support/flow.ts";
import { callAtOnce } from "./calls.ts";
import { type Seen, chargedUnits, findViolations, fromStripe, subscriptionOf, superuserSql } from "./invariants.ts";
import { customerOf, invoiceViolations } from "./invoices.ts";
import {
  type VirtualClock,
  SWEEP,
  beSilentForLong,
  changeMind,
  comeBack,
  comeBackUnpaid,
  habits,
  leave,
  lifeEvents,
  planOfRound,
} from "./life.ts";
import { type Plan, type PointCounts, noCrashes } from "./points.ts";

const REPORT = "*/5 * * * *";
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

/**
 * The kinds of seeds: few faults, many faults, a Stripe outage longer than Stripe remembers idempotency keys, or the life of
 * an account: it leaves, returns, changes plans, ends its trial and fails to pay, often several times in one minute. Five,
 * so that each lane of `lane.ts` has all kinds.
 */
const shapes = ["light", "life", "heavy", "outage", "life"] as const;
type Shape = (typeof shapes)[number];

/** High enough that no plan limit refuses a call. The campaign checks money, not limits. */
const unlimited = { unitsPerHour: null, unitsPerMonth: null, callsPerMinute: null, callsInFlight: 128 };

/** Runs one seed. Returns how often each crash point was reached and hit. Throws the violations with the seed. */
export async function runSeed(seed: number): Promise<PointCounts> {
  const random = seededRandom(seed);
  const shape = shapes[seed % shapes.length] ?? "light";
  const before = await counts();
  const clock = await virtualClock();
  const run = { seed, shape, random, clock, reporters: 0 };
  try {
    await setPlan(planOf(seed, shape));
    await simulator("/webhooks", webhookFaults(seed, shape));
    const [paying, made] = await Promise.all([signUpThrough(run), aTenant({ plan: "pro", limits: unlimited })]);
    const tenants = [paying, made];
    const seen = new Map<string, Seen>(
      tenants.map(({ id }) => [id, { receipts: new Map<string, number>(), unknown: 0, unknownUnits: 0 }]),
    );
    await simulator("/faults", stripeFaults(seed, shape));
    const rounds = shape === "light" || shape === "life" ? 2 : 3;
    for (let round = 0; round < rounds; round += 1) {
      if (shape === "life") {
        await callAtOnce(tenants, seen, 8, random);
        await live(run, paying, seen, round === 0 ? "habit" : "chance");
        await reportInTrouble(run, tenants, () => callAtOnce(tenants, seen, 4, random), 2);
        continue;
      }
      await callAtOnce(tenants, seen, 12 + Math.floor(random() * 16), random);
      await changeMind(paying.id, random);
      if (shape === "light") await operator("POST", `/tenants/${paying.id}/plan`, { plan: planOfRound[round] });
      await reportInTrouble(run, tenants, () => callAtOnce(tenants, seen, 4, random));
    }
    const faults = await firedFaults();
    await recover(run, tenants, paying.id, seen);
    const violations = await findViolations({ tenants, seen });
    if (violations.length === 0) violations.push(...(await closeAndCompare(run, paying.id)));
    if (violations.length > 0) throw new Error(violations.join("\n"));
    const [late] = await superuserSql<{ rows: number }>(
      `SELECT count(*)::int AS rows FROM carry_forwards WHERE tenant_id = ANY ($1)`,
      [tenants.map(({ id }) => id)],
    );
    const driven = { 20: late?.rows ?? 0, 21: run.reporters };
    const more = Object.entries(driven).map(([point, times]) => [point, { met: times, hit: times }] as const);
    return { ...difference(before, await counts()), ...faults, ...Object.fromEntries(more) };
  } catch (error) {
    throw new Error(`seed ${seed} (${shape}): ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  } finally {
    await setPlan(noCrashes);
    await simulator("/faults", { rules: [] });
    await simulator("/webhooks", {});
    await simulator("/payments", {});
  }
}

interface Run {
  seed: number;
  shape: Shape;
  random: () => number;
  clock: VirtualClock;
  /** Number of times that two reporters ran concurrently. */
  reporters: number;
}

// ---- faults

function planOf(seed: number, shape: Shape): Plan {
  const chance = shape === "light" || shape === "life" ? 0.08 : 0.25;
  const rare = chance / 4; // reached at every call, so a higher chance would let no call succeed
  return {
    seed,
    chances: {
      ...{ 1: rare, 2: rare, 3: rare, 4: chance, 5: chance, 22: chance },
      ...{ 6: chance, 7: chance, 23: chance, 8: chance, 9: chance, 10: chance, 13: chance, 15: chance },
      ...{ 16: chance, 17: chance, 18: chance, 19: 0.5 },
      ...{ 24: 0.3, 25: 0.3, 26: 0.05, 27: 0.3 },
    },
    lostMessages: chance,
    doubledMessages: chance,
  };
}

function stripeFaults(seed: number, shape: Shape): unknown {
  const probability = shape === "light" || shape === "life" ? 0.05 : 0.12;
  const meterEvents = { method: "POST", path: "/v1/billing/meter_events" };
  const kinds = ["refused", "429", "error-500-before", "error-500-after", "lost"] as const;
  const away = shape === "outage" ? [{ ...meterEvents, kind: "lost", probability: 0.5 }] : [];
  return {
    seed,
    rules: [
      ...kinds.map((kind) => ({ ...meterEvents, kind, probability })),
      ...away,
      { method: "GET", path: "*/event_summaries", kind: "error-500-before", probability: 0.3 },
      { kind: "slow", ms: 20, probability: 0.1 },
    ],
  };
}

function webhookFaults(seed: number, shape: Shape): unknown {
  const probability = shape === "light" || shape === "life" ? 0.1 : 0.3;
  return {
    seed,
    drop: { probability },
    duplicate: { probability },
    reorder: { probability, windowMs: 300 },
  };
}

// ---- actions

/**
 * Signs up a customer who orders and pays, in some lives with a trial. The sweep fetches events whose webhooks are lost.
 */
async function signUpThrough({ seed, shape, random }: Run): Promise<TestTenant> {
  const trial = shape === "life" && random() < 0.3;
  const made = await operator("POST", "/checkouts", {
    ...{ plan: "pro", name: `Customer ${seed}` },
    ...(trial ? { trialDays: 2 } : {}),
  });
  const order = (await made.json()) as { tenantId: string; checkoutUrl: string; setupToken: string };
  await (await fetch(order.checkoutUrl, { method: "POST", redirect: "manual" })).arrayBuffer();
  const isActive = async (): Promise<boolean> => ["active", "trial"].includes((await status(order.tenantId)).state);
  // A sweep costs as much as the rest of a sign-up, so it runs only when a fault holds the sign-up up.
  const resumed = async (): Promise<boolean> => {
    const active = until(isActive, "it is active", 1_000).then(
      () => true,
      () => false,
    );
    if (await active) return true;
    await beSilentForLong([order.tenantId]);
    await fireCron(SWEEP).catch(() => undefined);
    return false;
  };
  await until(resumed, `the customer of seed ${seed} is active`, 60_000);
  const key = (await postJson(
    `${system.publicUrl}/api/tenants/${order.tenantId}/keys`,
    { name: "first" },
    order.setupToken,
  )) as {
    apiKey: string;
  };
  return { id: order.tenantId, apiKey: key.apiKey };
}

/** Lives a part of an account's life, most of it in one minute. Then, in some lives, the period or the trial ends. */
async function live(
  run: Run,
  tenant: TestTenant,
  seen: ReadonlyMap<string, Seen>,
  by: "habit" | "chance",
): Promise<void> {
  const { random, clock } = run;
  const pick = <Item>(items: readonly Item[]): Item | undefined => items[Math.floor(random() * items.length)];
  const events = by === "habit" ? (pick(habits) ?? []) : Array.from({ length: 4 }, () => pick(lifeEvents));
  for (const event of events) {
    if (event === "call") await callAtOnce([tenant], seen, 3, random);
    if (event === "leave") await leave(clock, tenant.id, random() < 0.85);
    if (event === "return") await comeBack(tenant.id, 4_000);
    if (event === "refused") await comeBackUnpaid(clock, tenant.id);
    if (event === "change") await operator("POST", `/tenants/${tenant.id}/plan`, { plan: pick(planOfRound) });
    if (event === "mind") await changeMind(tenant.id, random);
    if (event === "fail") await simulator("/payments", { everybody: "fail" });
    if (event === "pay") await simulator("/payments", {});
    if (event === "wait") await clock.ahead(Math.floor(random() * 40_000));
  }
  if (random() < 0.5) await clock.ahead((random() < 0.5 ? 25 : 50) * HOUR_MS);
}

/** Moves the clock while calls continue and the reporter runs, is killed, or runs twice concurrently. */
async function reportInTrouble(
  run: Run,
  tenants: readonly TestTenant[],
  callMore: () => Promise<void>,
  times = 3,
): Promise<void> {
  const { random, clock, shape } = run;
  for (let n = 0; n < times; n += 1) {
    for (const { id } of tenants) if (random() < 0.7) await sendNow(id);
    // Often too early for the newest usage, so that some usage is old enough to freeze and some is not.
    await clock.ahead(random() < 0.5 ? MINUTE_MS + 1_000 : MINUTE_MS / 2 + 1_000);
    const report = (): Promise<void> => fireCron(REPORT, clock.nowMs()).catch(() => undefined);
    const twice = random() < 0.4;
    if (twice) run.reporters += 1;
    await Promise.all([report(), ...(twice ? [report()] : []), ...(random() < 0.5 ? [callMore()] : [])]);
  }
  if (shape === "outage") await clock.ahead((1 + Math.floor(random() * 60)) * HOUR_MS);
}

/** Ends all faults and waits, with a bound, until all usage has arrived. Unknown outcomes at Stripe may need a day. */
async function recover(
  run: Run,
  tenants: readonly TestTenant[],
  payingId: string,
  seen: ReadonlyMap<string, Seen>,
): Promise<void> {
  const { clock } = run;
  await setPlan(noCrashes);
  await simulator("/faults", { rules: [] });
  await simulator("/webhooks", {});
  await simulator("/webhooks/retry", {});
  await simulator("/payments", {});
  await comeBack(payingId, 20_000);
  await payOpenInvoices(payingId);
  // Undo only what a fault prevented. Further events could repair a wrongly applied one and hide the mistake.
  const subscription = `/subscriptions/${await subscriptionOf(payingId)}`;
  if ((await fromStripe<{ cancel_at_period_end: boolean }>(subscription)).cancel_at_period_end) {
    await stripeApi(subscription, { cancel_at_period_end: "false" });
  }
  const ids = tenants.map(({ id }) => id);
  let left: Record<string, number>[] = [];
  for (let turn = 0; turn < 40; turn += 1) {
    for (const id of ids) {
      if (!(await isAcknowledged(id))) await fetch(`${system.publicUrl}/campaign/end?tenant=${id}`); // sends all anew
      await sendNow(id);
    }
    await until(async () => (await Promise.all(ids.map(isAcknowledged))).every(Boolean), "acknowledged", 3_000).catch(
      () => undefined,
    );
    await clock.ahead(turn < 6 ? MINUTE_MS + 1_000 : 7 * HOUR_MS);
    await beSilentForLong(ids);
    await fireCron(SWEEP, clock.nowMs());
    await fireCron(REPORT, clock.nowMs());
    left = await Promise.all(ids.map((id) => unsettled(id, [...(seen.get(id)?.receipts.keys() ?? [])])));
    if (left.every((each) => Object.keys(each).length === 0)) return;
  }
  throw new Error(`not settled, although nothing is broken any more: ${JSON.stringify(left)}`);
}

/** Pays the open invoices of the current subscription. Stripe no longer collects those of one that has ended. */
async function payOpenInvoices(tenantId: string): Promise<void> {
  const open = `subscription=${await subscriptionOf(tenantId)}&status=open`;
  const { data } = await fromStripe<{ data: { id: string }[] }>(`/invoices?${open}&limit=100`);
  for (const { id } of data) await stripeApi(`/invoices/${id}/pay`, {});
}

/** Ends the subscription with a last invoice, has Stripe finalize every draft, and compares all invoices with the calls. */
async function closeAndCompare({ clock }: Run, tenantId: string): Promise<string[]> {
  const subscription = await subscriptionOf(tenantId);
  const { status: state } = await fromStripe<{ status: string }>(`/subscriptions/${subscription}`);
  if (state !== "canceled") {
    const ended = await fetch(`${system.stripeUrl}/v1/subscriptions/${subscription}?invoice_now=true`, {
      method: "DELETE",
      headers: { authorization: `Bearer ${system.stripeSecretKey}` },
    });
    if (!ended.ok) throw new Error(`the subscription does not end: ${await ended.text()}`);
  }
  await clock.ahead(2 * HOUR_MS);
  return invoiceViolations(tenantId, await customerOf(tenantId), clock.nowMs());
}

async function isAcknowledged(tenantId: string): Promise<boolean> {
  const [ledger, charged] = await Promise.all([
    superuserSql<{ units: number }>(`SELECT coalesce(sum(units), 0)::int AS units FROM ledger WHERE tenant_id = $1`, [
      tenantId,
    ]),
    chargedUnits(tenantId),
  ]);
  return ledger[0]?.units === charged;
}

/** A tenant's unsettled usage, by kind. Empty when everything is settled. */
async function unsettled(tenantId: string, receipts: readonly string[]): Promise<Record<string, number>> {
  const [row = {}] = await superuserSql<Record<string, number>>(
    `SELECT (SELECT count(*) FROM ledger WHERE tenant_id = $1 AND report_id IS NULL AND carry_forward_id IS NULL)::int AS unfrozen,
            (SELECT count(*) FROM reports WHERE tenant_id = $1 AND (confirmed_at IS NULL OR doubted_at >= first_attempt_at))::int AS unconfirmed,
            (SELECT count(*) FROM carry_forwards WHERE tenant_id = $1 AND settled_at IS NULL)::int AS carried,
            (SELECT count(*) FROM plan_changes WHERE tenant_id = $1 AND state = 'waiting')::int AS "plan changes",
            (SELECT count(*) FROM webhook_inbox WHERE tenant_id = $1 AND applied_at IS NULL)::int AS events,
            (SELECT count(*) FROM usage_streams WHERE tenant_id = $1 AND watermark < highest)::int AS gaps,
            (SELECT count(*) FROM unnest($2::text[]) AS r (id) WHERE NOT EXISTS (SELECT FROM ledger l WHERE l.call_id = r.id))::int AS receipts`,
    [tenantId, receipts],
  );
  const outbox = (await isAcknowledged(tenantId)) ? 0 : 1;
  return Object.fromEntries(Object.entries({ ...row, outbox }).filter(([, count]) => count > 0));
}

async function sendNow(tenantId: string): Promise<void> {
  await (await fetch(`${system.publicUrl}/campaign/send?tenant=${tenantId}`)).arrayBuffer();
}

// ---- time

async function virtualClock(): Promise<VirtualClock> {
  let { offsetMs } = (await simulator("/clock")) as { offsetMs: number };
  return {
    nowMs: () => Date.now() + offsetMs,
    async ahead(ms: number): Promise<void> {
      offsetMs += ms;
      await simulator("/clock", { offsetMs });
      await fetch(`${system.publicUrl}/campaign/clock?offsetMs=${offsetMs}`);
    },
  };
}

// ---- the campaign's own routes

async function setPlan(plan: Plan): Promise<void> {
  await postJson(system.publicUrl + "/campaign/plan", plan);
}

async function counts(): Promise<PointCounts> {
  return (await (await fetch(`${system.publicUrl}/campaign/counts`)).json()) as PointCounts;
}

function difference(before: PointCounts, after: PointCounts): PointCounts {
  return Object.fromEntries(
    Object.entries(after).map(([point, { met, hit }]) => [
      point,
      { met: met - (before[point]?.met ?? 0), hit: hit - (before[point]?.hit ?? 0) },
    ]),
  );
}

/** The simulator's faults for the crash points that they implement. */
async function firedFaults(): Promise<PointCounts> {
  const { rules } = (await simulator("/faults")) as { rules: { kind: string; path: string; fired: number }[] };
  const fired = (what: (rule: { kind: string; path: string }) => boolean) =>
    rules.filter(what).reduce((sum, rule) => sum + rule.fired, 0);
  const summary = (rule: { path: string }): boolean => rule.path.endsWith("event_summaries");
  const done = (rule: { kind: string }): boolean => rule.kind === "lost" || rule.kind === "error-500-after";
  const [refused, lost, unread] = [
    fired((rule) => !summary(rule) && !done(rule) && rule.kind !== "slow"),
    fired((rule) => !summary(rule) && done(rule)),
    fired(summary),
  ];
  return { 11: { met: refused, hit: refused }, 12: { met: lost, hit: lost }, 14: { met: unread, hit: unread } };
}
