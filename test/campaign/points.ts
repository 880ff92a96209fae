// The moments at which a run of the campaign ends a process, by the numbers under which they are known: each stands for
// one place between two durable steps on the way from a call to money. Which occurrence is hit follows from the seed.

/**
 * Where a crash point is met: at an outgoing request, before it is sent or after its answer has come. `refused`: no crash,
 * but the request is answered with 503 without having been sent.
 */
export interface RequestPoint {
  point: number;
  title: string;
  when: "before" | "after" | "refused";
  /** Of a request to the control database or a tenant's rows: a text of the statement. Of one to Stripe: method and path. */
  sql?: string;
  stripe?: string;
  /** Only in a tenant's object, or only outside; absent: wherever. */
  where?: "object" | "worker";
}

export const requestPoints: readonly RequestPoint[] = [
  { point: 1, title: "held, the tool not run", when: "before", sql: "FROM products", where: "object" },
  { point: 2, title: "the tool run, nothing charged", when: "after", sql: "FROM products", where: "object" },
  // By the queue's consumer, and by the object itself when a plan changes, which does not wait for the queue.
  { point: 6, title: "before the ledger's commit", when: "before", sql: "INSERT INTO ledger" },
  { point: 7, title: "in the ledger, not acknowledged", when: "after", sql: "INSERT INTO ledger" },
  { point: 23, title: "the ledger refuses for now", when: "refused", sql: "INSERT INTO ledger", where: "worker" },
  { point: 8, title: "before the seal", when: "before", sql: "INSERT INTO reports", where: "worker" },
  { point: 9, title: "sealed, not sent", when: "after", sql: "INSERT INTO reports", where: "worker" },
  {
    point: 10,
    title: "attempt recorded, not sent",
    when: "after",
    sql: "SET attempts = r.attempts + 1",
    where: "worker",
  },
  {
    point: 13,
    title: "Stripe's answer not stored",
    when: "after",
    stripe: "POST /v1/billing/meter_events",
    where: "worker",
  },
  { point: 15, title: "summary not stored", when: "after", stripe: "GET */event_summaries", where: "worker" },
  { point: 16, title: "webhook before the inbox", when: "before", sql: "INSERT INTO webhook_inbox", where: "worker" },
  { point: 17, title: "in the inbox, its 200 lost", when: "after", sql: "INSERT INTO webhook_inbox", where: "worker" },
  {
    point: 19,
    title: "drained, the plan not changed at Stripe",
    when: "before",
    stripe: "POST /v1/subscriptions/*",
    where: "object",
  },
  {
    point: 18,
    title: "applied, not marked",
    when: "before",
    sql: "UPDATE webhook_inbox SET applied_at",
    where: "object",
  },
];

/** The others, by what meets them. */
export const otherPoints: Readonly<Record<number, string>> = {
  3: "charged, the reply lost", // the object ends between its commit and the answer
  4: "an outbox row not sent", // the object ends before its alarm does anything
  5: "sent, the outbox kept", // the object ends when the queue has taken the rows
  11: "Stripe refused or failed before it did anything", // the simulator's faults
  12: "Stripe's answer lost after it did it", // the simulator's faults
  14: "a summary could not be read", // the simulator's faults
  20: "usage later than its invoice", // messages lost until the clock has passed the period's end
  21: "two reporters at once",
  22: "the object ends in the middle of its alarm",
};

/** What a run asks of the campaign's Worker: chances by point, and the seed that draws them. */
export interface Plan {
  seed: number;
  chances: Readonly<Record<number, number>>;
  /** Of queue messages. */
  lostMessages: number;
  doubledMessages: number;
}

export const noCrashes: Plan = { seed: 0, chances: {}, lostMessages: 0, doubledMessages: 0 };

/** How often each point was met and how often it was fatal. */
export type PointCounts = Record<string, { met: number; hit: number }>;
