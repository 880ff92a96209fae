// Why calls of the account are refused, or soon will be, and the way back: above every page of the account.
import type { Child } from "hono/jsx";
import { config } from "../../core/app-config.ts";
import { type Condition, PAST_DUE_SERVICE_MS, conditionOf, tenantTable } from "../../core/tenant/tenant-state.ts";
import type { TenantConfig } from "../../core/tenant/tenant.ts";
import { Instant } from "../parts/figures.tsx";
import { Notice, type Tone } from "../parts/notice.tsx";

interface Standing {
  tone: Tone;
  text: (tenant: TenantConfig) => Child;
}

/** Conditions without a sentence are as they should be. */
const sentences: Readonly<Partial<Record<Condition, Standing>>> = {
  provisioning: { tone: "accent", text: () => "The account is being set up. Agents are served in some seconds." },
  trial: {
    tone: "accent",
    text: ({ trialUntilMs }) => trialUntilMs !== null && <>The trial runs until {<Instant at={trialUntilMs} />} UTC.</>,
  },
  trial_over: { tone: "bad", text: () => "The trial has ended, so agents are refused." },
  past_due: {
    tone: "warn",
    text: ({ pastDueSinceMs: since }) => (
      <>
        A payment has failed. Agents are served
        {since !== null && (
          <>
            {" "}
            until <Instant at={since + PAST_DUE_SERVICE_MS} /> UTC
          </>
        )}
        , while Stripe tries again.
      </>
    ),
  },
  overdue: { tone: "bad", text: () => "An invoice has been unpaid for a week, so agents are refused." },
  suspended_by_operator: { tone: "bad", text: () => "The operator has suspended the account, so agents are refused." },
  suspended_by_billing: {
    tone: "bad",
    text: () => "The subscription is paused, unpaid or has ended, so agents are refused.",
  },
  paused: { tone: "bad", text: () => "The operator has paused the subscription, so agents are refused." },
  leaving: {
    tone: "bad",
    text: ({ leavingUntilMs: until }) => (
      <>
        The account is being closed, and agents are refused.
        {until !== null && (
          <>
            {" "}
            Its data is deleted after <Instant at={until} /> UTC.
          </>
        )}
      </>
    ),
  },
};

/** Where the account's people take a way back. */
const places = {
  pay: { path: "/plan", text: "Pay at Stripe" },
  buy: { path: "/plan", text: "Choose a plan" },
  return: { path: "/data", text: "Bring the account back" },
} as const;

/** What a person of the account has to know about its state. `pathOf`: the path of a page of the account. */
export function standingOf(tenant: TenantConfig, nowMs: number, pathOf: (path: string) => string): Child {
  const condition = conditionOf(tenant, nowMs);
  const sentence = sentences[condition];
  const text = sentence?.text(tenant);
  if (sentence === undefined || text === false) return null;
  const { calls, ways } = tenantTable[condition];
  // A payment that has failed is not refused yet, and is paid in the same place.
  const own = condition === "past_due" ? (["pay"] as const) : ways.filter((way) => way in places);
  const isOperators = calls !== "served" && own.length === 0 && condition !== "provisioning";
  return (
    <Notice tone={sentence.tone}>
      {text}
      {own.map((way) => {
        const { path, text: label } = places[way as keyof typeof places];
        return (
          <>
            {" "}
            <a href={pathOf(path)}>{label}</a>
          </>
        );
      })}
      {isOperators && (
        <>
          {" "}
          Only the operator can resume it. <a href={config.product.supportUrl}>Ask support</a>
        </>
      )}
    </Notice>
  );
}
