// The numbered crash points of the campaign. Each lies between two durable steps on the way from a call to its payment.
// The seed decides which occurrence of a point crashes.

/**
 * The place of a crash point: an outgoing request, before it is sent or after its answer has arrived. `refused` does not
 * crash: the request is not sent and is answered with 503.
 */
export interface RequestPoint {
  point: number;
  title: string;
  when: "before" | "after" | "refused";
  /** A part of the statement for a request to a database; method and path for a request to Stripe. */
  sql?: string;
  stripe?: string;
  /** Limits the point to a tenant's object or to code outside of it. Absent: both. */
  where?: "object" | "worker";
}

export const requestPoints: readonly RequestPoint[] = [
  { point: 1, title: "held, the tool not run", when: "before", sql: "FROM products", where: "object" },
  { point: 2, title: "the tool run, nothing charged", when: "after", sql: "FROM products", where: "object" },
  // The queue's consumer sends this. So does the object during a plan change, which does not wait for the queue.
  { point: 6, title: "before the ledger's commit", when: "before", sql: "INSERT INTO ledger" },
  { point: 7, title: "in the ledger, not acknowledged", when: "after", sql: "INSERT INTO ledger" },
  { point: 23, title: "the ledger refuses for now", when: "refused", sql: "INSERT INTO ledger", where: "worker" },
  { point: 8, title: "before the freeze", when: "before", sql: "INSERT INTO reports", where: "worker" },
  { point: 9, title: "frozen, not sent", when: "after", sql: "INSERT INTO reports", where: "worker" },
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
  { point: 24, title: "subscription ended, not recorded", when: "after", stripe: "DELETE /v1/subscriptions/*" },
  { point: 25, title: "returned at Stripe, not recorded", when: "after", stripe: "POST /v1/subscriptions" },
  { point: 26, title: "before a period is recorded", when: "before", sql: "INSERT INTO subscription_periods" },
  { point: 27, title: "before a return takes effect", when: "before", sql: "WITH undone AS" },
];

/** The crash points that are not outgoing requests. The comment names what causes each. */
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

/** A run's settings for the campaign's Worker: the probability of each point, and the seed of the random numbers. */
export interface Plan {
  seed: number;
  chances: Readonly<Record<number, number>>;
  /** Faults of queue messages. */
  lostMessages: number;
  doubledMessages: number;
}

export const noCrashes: Plan = { seed: 0, chances: {}, lostMessages: 0, doubledMessages: 0 };

/** How often each point was reached and how often it crashed. */
export type PointCounts = Record<string, { met: number; hit: number }>;
