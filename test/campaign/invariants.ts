// Checks the invariants of a run after all faults have ended, and describes each violation. The checks read from outside
// the program: the databases as their owner, Stripe's counts, and the clients' receipts.
import { type TestTenant, asSuperuser, rowsOf, simulator, system } from "../support/flow.ts";

/** A client's record of its calls. */
export interface Seen {
  /** Receipts of the calls that succeeded: id and units. */
  receipts: Map<string, number>;
  /** Number of calls whose outcome the client does not know. Each may have been charged once. */
  unknown: number;
  /** Upper bound of the units that those calls cost. */
  unknownUnits: number;
}

type LedgerRow = {
  callId: string;
  units: number;
  reportId: string | null;
  carryId: string | null;
};
type Report = {
  id: string;
  units: number;
  calls: number;
  slotSeconds: number;
  customerId: string;
  /** The report never reached Stripe. A carry-forward replaced it. */
  carried: boolean;
};
type Carry = { id: string; units: number; reportId: string | null };
interface MeterEvent {
  identifier: string;
  customer: string;
  value: number;
  timestamp: number;
}

/** Returns a description of each violation. Empty if all invariants hold. */
export async function findViolations(run: {
  tenants: readonly TestTenant[];
  seen: ReadonlyMap<string, Seen>;
}): Promise<string[]> {
  const found = await Promise.all(run.tenants.map(({ id }) => ofTenant(id, run.seen.get(id))));
  const conflicts = await superuserSql(
    `SELECT c.call_id FROM ledger_conflicts c JOIN ledger l USING (call_id) WHERE l.tenant_id = ANY ($1)`,
    [run.tenants.map(({ id }) => id)],
  );
  const letters = await superuserSql<{ why: string }>(
    `SELECT why FROM dead_letters WHERE replayed_at IS NULL AND body LIKE ANY ($1)`,
    [run.tenants.map(({ id }) => `%${id}%`)],
  );
  return [
    ...found.flat(),
    ...letters.map(({ why }) => `a message has become a dead letter: ${why}`),
    ...conflicts.map(({ call_id: id }) => `call ${String(id)} came with two payloads`),
  ];
}

async function ofTenant(tenantId: string, seen: Seen | undefined): Promise<string[]> {
  if (seen === undefined) return [`nothing is known of ${tenantId}`];
  const [ledger, reports, carries, events, charged] = await Promise.all([
    superuserSql<LedgerRow>(
      `SELECT call_id AS "callId", units, report_id AS "reportId", carry_forward_id AS "carryId" FROM ledger WHERE tenant_id = $1`,
      [tenantId],
    ),
    superuserSql<Report>(
      `SELECT r.id, r.units::int AS units, r.calls::int AS calls, extract(epoch FROM slot)::bigint::int AS "slotSeconds",
              t.stripe_customer_id AS "customerId", coalesce(r.answer = 'carried', false) AS carried
       FROM reports r JOIN tenants t ON t.id = r.tenant_id WHERE r.tenant_id = $1`,
      [tenantId],
    ),
    superuserSql<Carry>(
      `SELECT id, units::int AS units, report_id AS "reportId" FROM carry_forwards WHERE tenant_id = $1 AND calls > 0`,
      [tenantId],
    ),
    simulator("/meter-events") as Promise<MeterEvent[]>,
    chargedUnits(tenantId),
  ]);
  const wrong: string[] = [];
  const check = (holds: boolean, violation: string): void => void (holds || wrong.push(`${tenantId}: ${violation}`));

  // The ledger has each receipt once, at its price. Additional rows can only be calls with an unknown outcome.
  const rows = new Map(ledger.map((row) => [row.callId, row]));
  for (const [id, units] of seen.receipts) {
    check(
      rows.get(id)?.units === units,
      `receipt ${id} over ${units} units is in the ledger as ${rows.get(id)?.units}`,
    );
  }
  const beyond = ledger.filter(({ callId }) => !seen.receipts.has(callId));
  check(beyond.length <= seen.unknown, `${beyond.length} calls without a receipt; ${seen.unknown} were unknown`);
  check(sum(beyond) <= seen.unknownUnits, `${sum(beyond)} units beyond what clients saw succeed`);

  // The object, the ledger, the reports and Stripe have the same units, and each call is in one report.
  check(charged === sum(ledger), `its object charged ${charged} units, the ledger has ${sum(ledger)}`);
  const sent = reports.filter(({ carried }) => !carried);
  check(
    sum(sent) + sum(carries) === sum(ledger),
    `${sum(sent)} reported + ${sum(carries)} carried, of ${sum(ledger)} units`,
  );
  for (const { id, units, reportId } of carries) {
    const own = ledger.filter((row) => (reportId === null ? row.carryId === id : row.reportId === reportId));
    check(sum(own) === units, `${id} carries ${units} units, its calls have ${sum(own)}`);
  }
  const members = Map.groupBy(ledger, ({ reportId }) => reportId);
  for (const { id, units, calls } of reports) {
    const own = members.get(id) ?? [];
    check(sum(own) === units && own.length === calls, `report ${id} says ${units}, its calls ${sum(own)}`);
  }
  // Compare Stripe minute by minute.
  const customerId = reports[0]?.customerId;
  const counted = events.filter(({ customer }) => customer === customerId);
  const minutes = Map.groupBy(counted, ({ timestamp }) => timestamp - (timestamp % 60));
  for (const { id, units, slotSeconds } of sent) {
    const there = (minutes.get(slotSeconds) ?? []).reduce((sumSoFar, { value }) => sumSoFar + value, 0);
    check(there === units, `report ${id} has ${units} units, Stripe ${there} in its minute`);
  }
  const stripe = counted.reduce((sumSoFar, { value }) => sumSoFar + value, 0);
  check(stripe === sum(sent), `Stripe has ${stripe} units, ${sum(sent)} were reported`);
  wrong.push(...(await ofSubscription(tenantId)));
  return wrong;
}

/** The tenant's row matches Stripe's current subscription, for any order of the events. */
async function ofSubscription(tenantId: string): Promise<string[]> {
  const [row] = await superuserSql<{ state: string; plan: string; cancels: boolean; subscription: string | null }>(
    `SELECT state, plan, cancel_at IS NOT NULL AS cancels, stripe_subscription_id AS subscription FROM tenants WHERE id = $1`,
    [tenantId],
  );
  if (row === undefined || row.subscription === null) return [];
  const at = await fromStripe<Subscription>(`/subscriptions/${row.subscription}`);
  if (at.status === "trialing") at.status = "trial";
  const plan = at.items.data[0]?.price.lookup_key.split("_")[1];
  const [is, wanted] = [
    `${row.state}, ${row.plan}${row.cancels ? ", ends" : ""}`,
    `${at.status}, ${plan}${at.cancel_at_period_end ? ", ends" : ""}`,
  ];
  return is === wanted ? [] : [`${tenantId}: its row says ${is}, Stripe ${wanted}`];
}

interface Subscription {
  status: string;
  cancel_at_period_end: boolean;
  items: { data: { price: { lookup_key: string } }[] };
}

/** Reads from Stripe's API, not from the program's tables. */
export async function fromStripe<Read>(path: string): Promise<Read> {
  const response = await fetch(`${system.stripeUrl}/v1${path}`, {
    headers: { authorization: `Bearer ${system.stripeSecretKey}` },
  });
  return (await response.json()) as Read;
}

export async function subscriptionOf(tenantId: string): Promise<string> {
  const [row] = await superuserSql<{ id: string }>(`SELECT stripe_subscription_id AS id FROM tenants WHERE id = $1`, [
    tenantId,
  ]);
  if (row === undefined) throw new Error(`there is no tenant ${tenantId}`);
  return row.id;
}

function sum(rows: readonly { units: number }[]): number {
  return rows.reduce((total, { units }) => total + units, 0);
}

/** All charges of a tenant's object, from the rows it keeps and the rows it has folded. */
export async function chargedUnits(tenantId: string): Promise<number> {
  const answer = await fetch(`${system.publicUrl}/campaign/charged?tenant=${tenantId}`);
  return ((await answer.json()) as { units: number }).units;
}

/** Rows of the control database, read as its owner. No login of the product can read all of them. */
export function superuserSql<Row extends Record<string, unknown>>(
  text: string,
  params: readonly unknown[],
): Promise<Row[]> {
  return rowsOf<Row>(asSuperuser(system.controlUrl), text, params);
}
