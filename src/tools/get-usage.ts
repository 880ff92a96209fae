// The tool `get_usage`: the tenant's quota, from memory. It is free, so that it also works when all units are used up.
import * as z from "zod";
import type { QuotaStatus, SpendStatus } from "../core/call.ts";
import { centsOf, inDollars } from "../core/plans/money.ts";
import { defineTool, isFailure } from "./tool.ts";

const Allowance = z.strictObject({
  limit: z.int().nullable().describe("Units allowed; null: no limit"),
  used: z.int().describe("Units used, running calls included"),
  left: z.int().nullable().describe("Units left; null: no limit"),
  resetSeconds: z.int(),
});

const Spend = z.strictObject({
  capCents: z.int().nullable().describe("The spend cap; null: none"),
  spentCents: z.string().describe("The price of the units beyond the included ones, in this billing period"),
  leftCents: z.string().nullable().describe("What is left of the cap; null: no cap"),
  leftUnits: z.int().nullable().describe("Units until calls stop, the included ones among them; null: no cap"),
  resetSeconds: z.int().describe("Until the next billing period begins"),
});

export const getUsage = defineTool({
  name: "get_usage",
  title: "Usage and limits",
  description:
    "Returns the units that are left this hour, this month and below the spend cap, and when more become available. " +
    "Call it before a long series of calls or before a tool that costs many units.",
  units: 0,
  scopes: ["tools:read"],
  input: z.strictObject({}),
  output: z.strictObject({
    plan: z.string(),
    hour: Allowance.describe("A sliding hour; resetSeconds: until the first of the used units become available again"),
    month: Allowance.describe("The calendar month in UTC; resetSeconds: until the next one begins"),
    key: Allowance.optional().describe("The monthly budget of your API key, if it has one"),
    spend: Spend.optional().describe("What the units beyond the included ones cost, if your plan sells them"),
  }),
  annotations: { readOnly: true, idempotent: true, destructive: false },
  failed: isFailure,

  async run(_input, context) {
    const quota = context.usage();
    const { spend } = quota;
    const { plan } = context.tenant;
    const hour = withLeft(quota.hour);
    const month = withLeft(quota.month);
    const key = quota.key && withLeft(quota.key);
    const back = hour.used === 0 ? "" : ` The first of them become available again in ${inTime(hour.resetSeconds)}.`;
    return {
      text:
        `Plan ${plan}. This hour: ${inWords(hour)}.${back} ` +
        `This month: ${inWords(month)}.${key === undefined ? "" : ` Your API key: ${inWords(key)}.`} ` +
        `The next month begins in ${inTime(month.resetSeconds)}.${spend === undefined ? "" : spendInWords(spend)}`,
      data: { plan, hour, month, ...(key && { key }), ...(spend && { spend }) },
    };
  },
});

function withLeft(part: QuotaStatus["hour"]): z.infer<typeof Allowance> {
  const { limit, used, resetSeconds } = part;
  // After a change to a smaller plan, the used units may exceed the limit.
  return { limit, used, left: limit === null ? null : Math.max(0, limit - used), resetSeconds };
}

function inWords({ limit, used, left }: z.infer<typeof Allowance>): string {
  return limit === null ? `${used} units used, no limit` : `${used} of ${limit} units used, ${left} left`;
}

function spendInWords({ capCents, spentCents, leftUnits, resetSeconds }: SpendStatus): string {
  const spent = ` Units beyond the included ones have cost ${inDollars(centsOf(spentCents))} USD in this billing period`;
  if (capCents === null) return `${spent}, without a spend cap.`;
  return (
    `${spent}, of a spend cap of ${inDollars(centsOf(String(capCents)))} USD: ${leftUnits} units until calls stop. ` +
    `The next billing period begins in ${inTime(resetSeconds)}.`
  );
}

/** A time in words, rounded up: `30 seconds`, `5 hours`, `2 days 23 hours`. */
function inTime(seconds: number): string {
  const minutes = Math.ceil(seconds / 60);
  if (seconds < 120) return counted(seconds, "second");
  if (minutes < 120) return counted(minutes, "minute");
  const hours = Math.ceil(seconds / 3_600);
  if (hours < 48) return counted(hours, "hour");
  return [counted(Math.floor(hours / 24), "day"), ...(hours % 24 === 0 ? [] : [counted(hours % 24, "hour")])].join(" ");
}

function counted(count: number, unit: string): string {
  return `${count} ${unit}${count === 1 ? "" : "s"}`;
}
