// Plausible mistakes, each as a change of one source text. A campaign that does not detect every mutant is too weak.
// A source text that no longer exists is an error, so that no mutant goes stale.

export interface Mutant {
  name: string;
  changes: readonly { file: string; find: string; replace: string }[];
}

export const mutants: readonly Mutant[] = [
  {
    name: "the value is recomputed when it is sent",
    changes: [
      {
        file: "src/reports/reports-store.ts",
        find: `due.stripe_customer_id AS "customerId", r.units,`,
        replace: `due.stripe_customer_id AS "customerId", (SELECT sum(l.units) FROM ledger l WHERE l.tenant_id = r.tenant_id
          AND date_trunc('day', l.at, 'UTC') = date_trunc('day', r.slot, 'UTC')
          AND (l.report_id = r.id OR l.report_id IS NULL))::bigint AS units,`,
      },
    ],
  },
  {
    name: "a report is sent again blindly however late",
    changes: [
      {
        file: "src/reports/report.ts",
        find: `(nowMs - first >= BLIND_RESEND_MS || first - nowMs > CLOCK_SLACK_MS)`,
        replace: `first - nowMs > CLOCK_SLACK_MS`,
      },
    ],
  },
  {
    name: "no outbox: what the queue has taken is forgotten",
    changes: [
      {
        file: "src/metering/outbox.ts",
        find: `await this.#queue.sendBatch(`,
        replace: `rows.acknowledge(last.n, Date.now());
        await this.#queue.sendBatch(`,
      },
    ],
  },
  {
    name: "no conflict clause in the ledger",
    changes: [
      {
        file: "src/control/ledger-store.ts",
        find: "tool, units, ${incomingInstant} FROM ${incoming} ON CONFLICT DO NOTHING`",
        replace: "tool, units, ${incomingInstant} FROM ${incoming}`",
      },
    ],
  },
  {
    name: "acknowledged before it is committed",
    changes: [
      {
        file: "src/metering/consumer.ts",
        find: `    const outcome = await writeWithBisection<Part, Recorded>(parts, {`,
        replace: `    await notifyObjects(context, [{ uncounted: [], watermarks: parts.map(({ usage: { tenantId, object, epoch, rows } }) =>
      ({ tenantId, object, epoch, watermark: rows.at(-1)?.n ?? 0 })) }]);
    for (const { message } of parts) message.ack();
    const outcome = await writeWithBisection<Part, Recorded>(parts, {`,
      },
    ],
  },
  {
    name: "rows are marked by a filter instead of one by one",
    changes: [
      {
        file: "src/reports/reports-store.ts",
        find: `FROM (SELECT report_id, carry_forward_id, unnest(call_ids) AS call_id FROM named) own`,
        replace: `FROM (SELECT named.report_id, named.carry_forward_id, l.call_id FROM named JOIN ledger l ON l.tenant_id = named.tenant_id
            AND l.report_id IS NULL AND l.carry_forward_id IS NULL AND date_trunc('day', l.at, 'UTC') = named.day) own`,
      },
    ],
  },
  {
    name: "a report's minute begins after the start of the next subscription",
    changes: [
      {
        file: "src/reports/reports-store.ts",
        find: "`${stamp} <= n.now AND (closes IS NULL OR ${stamp} < closes)",
        replace: "`${stamp} <= n.now + interval '1 minute'",
      },
      {
        file: "src/reports/reports-store.ts",
        find: "date_trunc('minute', greatest(max(at), opens), 'UTC') AS newest",
        replace: "date_trunc('minute', greatest(max(at), opens) + interval '59 seconds', 'UTC') AS newest",
      },
    ],
  },
  {
    name: "a carry-forward has no row of its period",
    changes: [
      {
        file: "src/reports/periods-store.ts",
        find: "if (endedEarlyAtMs === null) return [];",
        replace: "if (endedEarlyAtMs === null || tenant.id !== '') return [];",
      },
    ],
  },
  {
    name: "a return that Stripe refuses is repeated until Stripe charges it",
    changes: [
      {
        file: "src/lifecycle/tenant-removal.ts",
        find: "      await this.#removals.abandonReactivation(removal.id, errors.payment_failed.advice, { uncertain: false });\n",
        replace: "",
      },
    ],
  },
  {
    name: "a webhook is applied from its payload",
    changes: [
      {
        file: "src/subscriptions/stripe-event.ts",
        find: `  const { id, type, livemode, account: accountId, data } = parsed.data;`,
        replace: `  const { id, type, livemode, account: accountId, data } = parsed.data;
  const { objects = new Map<string, unknown>() } = globalThis as unknown as { objects?: Map<string, unknown> };
  Object.assign(globalThis, { objects: objects.set(id, (event as { data: { object: unknown } }).data.object) });`,
      },
      {
        file: "src/adapters/stripe/subscriptions.ts",
        find: `for await (const each of stripe.subscriptions.list({ customer: customerId, status: "all", limit: 100 })) {`,
        replace: `const { told } = globalThis as unknown as { told?: Stripe.Subscription };
      for await (const each of told?.customer === customerId
        ? [told] : stripe.subscriptions.list({ customer: customerId, status: "all", limit: 100 })) {`,
      },
      {
        file: "src/subscriptions/apply-events.ts",
        find: `    case "invoice.payment_failed":
      return await sync();`,
        replace: `    case "invoice.payment_failed": {
      const object = (globalThis as unknown as { objects?: Map<string, { object: string }> }).objects?.get(event.id);
      if (object === undefined) return await sync();
      if (object.object !== "subscription") return "ignored";
      Object.assign(globalThis, { told: object });
      return await syncSubscription(context, tenantId);
    }`,
      },
    ],
  },
];
