// The usage of one period on an invoice, added up from its calls: calls, reports and Stripe's count must be the same number.
import type { FC } from "hono/jsx";
import { inDollars, isRounded, usagePrice } from "../../../core/plans/money.ts";
import { plans } from "../../../core/plans/plans.ts";
import { DAY_MS } from "../../../core/time.ts";
import { addUp } from "../../../metering/invoice.ts";
import type { InvoicedPeriod } from "../../../subscriptions/invoices.ts";
import { Figure, Instant, count, counted, dollars } from "../../parts/figures.tsx";
import { Badge, Empty } from "../../parts/notice.tsx";
import { Table } from "../../parts/table.tsx";
import { query } from "../../usage/range.tsx";

export const AddItUp: FC<{ id: string; of: InvoicedPeriod; reportsPath: string }> = ({ id, of, reportsPath }) => {
  const { days, startMs, endMs } = of;
  const called = addUp(days);
  const reported = days.reduce((sum, { reportUnits }) => sum + reportUnits, 0);
  const reports = days.reduce((sum, day) => sum + day.reports, 0);
  const lastMs = Math.max(startMs, endMs - 1);
  const isEqual = called.units === reported && reported === of.units;
  return (
    <section id={id}>
      <h2>
        Usage <Instant at={startMs} isDay />
        {lastMs > startMs + DAY_MS && (
          <>
            {" "}
            to <Instant at={lastMs} isDay />
          </>
        )}{" "}
        <Badge tone={isEqual ? "good" : "warn"}>{isEqual ? "Equal to the unit" : "Not equal yet"}</Badge>
      </h2>
      <div class="card strip">
        <Figure
          name="Units of the calls"
          value={count(called.units)}
          note={`${counted(called.calls, "call")}, each with a receipt`}
        />
        <Figure name="Units in reports to Stripe" value={count(reported)} note={counted(reports, "report")} />
        <Figure name="Units on this invoice" value={count(of.units)} note={<Price of={of} />} />
      </div>
      {!isEqual && (
        <p>
          Usage that reaches Stripe after an invoice is final is on a later one. The operator compares all numbers every
          day.
        </p>
      )}
      <Table
        caption="Calls and reports by day"
        hidesCaption
        rows={days}
        empty={
          <Empty title="No units in this period">
            <p>Only calls that succeed cost units.</p>
          </Empty>
        }
        columns={[
          {
            head: "Day (UTC)",
            isHead: true,
            cell: ({ day }) => <a href={reportsPath + query(rangeOfDay(day, of))}>{day}</a>,
          },
          { head: "Calls", isNumber: true, cell: ({ calls }) => count(calls) },
          { head: "Units of calls", isNumber: true, cell: (day) => count(day.units) },
          { head: "Units in reports", isNumber: true, cell: ({ reportUnits }) => count(reportUnits) },
          { head: "Reports", isNumber: true, cell: (day) => count(day.reports) },
          {
            head: "Stripe",
            cell: ({ confirmed }) => (
              <Badge tone={confirmed ? "good" : "accent"}>{confirmed ? "has them" : "on their way"}</Badge>
            ),
          },
        ]}
        foot={["Total", count(called.calls), count(called.units), count(reported), count(reports), ""]}
      />
    </section>
  );
};

/** The price in words, from the plan's numbers of today. An invoice keeps those of its own price. */
const Price: FC<{ of: InvoicedPeriod }> = ({ of: { plan, units: billed, amountCents } }) => {
  const sold = plan === undefined ? undefined : plans.get(plan);
  if (sold?.unitAmountCents == null) return null;
  const price = usagePrice(billed, sold);
  if (!isRounded(amountCents, price)) return null;
  const included = sold.includedUnits ?? 0;
  const each = inDollars(usagePrice(1, { includedUnits: 0, unitAmountCents: sold.unitAmountCents }));
  return (
    <>
      {count(included)} included, {count(Math.max(0, billed - included))} at ${each}: {dollars(price)}
    </>
  );
};

/** The part of a day that is in the period. */
function rangeOfDay(day: string, { startMs, endMs }: InvoicedPeriod): { from: string; to: string } {
  const dayMs = Date.parse(`${day}T00:00:00Z`);
  const iso = (ms: number): string => new Date(ms).toISOString();
  return { from: iso(Math.max(dayMs, startMs)), to: iso(Math.min(dayMs + DAY_MS, endMs)) };
}
