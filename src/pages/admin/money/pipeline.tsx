// The way of a call to the invoice as a picture: each stage with its ages, what is wrong there, and what to do first.
import type { FC } from "hono/jsx";
import { joinBatches } from "../../../adapters/neon.ts";
import type { HttpContext } from "../../../http.ts";
import { currentIndicators } from "../../../operations/api.ts";
import type { AlarmLevel, Indicator } from "../../../operations/indicators.ts";
import { pagePart, wantsPart } from "../../layout/layout.tsx";
import { Instant, count } from "../../parts/figures.tsx";
import { Badge, type Tone } from "../../parts/notice.tsx";
import { TextWithCode } from "../../parts/code.tsx";
import { operatorPage } from "../operator-page.tsx";

const PATH = "/admin/billing";
/** The sweep reads the indicators every minute. */
const POLL = "every 15s";

type Shown = Awaited<ReturnType<typeof currentIndicators>>["indicators"][number];
type Name = Indicator["name"];

interface Stage {
  title: string;
  text: string;
  names: readonly Name[];
}

const stages: readonly Stage[] = [
  {
    ...{ title: "Tenants' objects", text: "A call is charged here, and waits in the outbox." },
    names: ["outboxSeconds", "uncountedCallSeconds"],
  },
  {
    ...{ title: "Queue and ledger", text: "Each call is one row, written once." },
    names: ["deadLetters", "conflicts", "sequenceGaps"],
  },
  {
    ...{ title: "Reports", text: "The cron freezes usage by minute." },
    names: ["unsealedSeconds", "aheadSeconds", "lastReportRunSeconds"],
  },
  {
    ...{ title: "Stripe's meter", text: "Stripe confirms each report." },
    names: [
      ...(["unconfirmedSeconds", "ambiguousReports", "refusedReports", "mismatchedReports", "meterErrors"] as const),
      "lastStripeAnswerSeconds",
    ],
  },
  {
    ...{ title: "Invoices", text: "Late usage goes onto the next one." },
    names: ["carryForwardSeconds", "refusedCarryForwards", "unpricedSeconds"],
  },
  {
    ...{ title: "Reconciliation", text: "Both sides are compared each day." },
    names: ["driftUnits", "driftTenants", "invoiceDriftUnits", "lastReconciliationSeconds"],
  },
];
const fromStripe: readonly Name[] = [
  "inboxLagSeconds",
  "unknownTenantWebhooks",
  "setAsideWebhooks",
  "subscriptionIssues",
];

/** The page with the items behind an indicator. */
const pages: Partial<Record<Name, string>> = {
  ...{ deadLetters: "/admin/dead-letters", conflicts: "/admin/conflicts", sequenceGaps: "/admin/dead-letters" },
  ...{ inboxLagSeconds: "/admin/stripe-events", unknownTenantWebhooks: "/admin/stripe-events" },
  ...{ setAsideWebhooks: "/admin/stripe-events", subscriptionIssues: "/admin/failures" },
  ...{ driftUnits: "/admin/reconciliation", driftTenants: "/admin/reconciliation" },
  ...{ invoiceDriftUnits: "/admin/reconciliation", lastReconciliationSeconds: "/admin/reconciliation" },
  ...{ repeatedFailures: "/admin/failures", stuckTenants: "/admin/provisioning", stuckRemovals: "/admin/work" },
  ...{ tenantsBehind: "/admin/migrations", crossTenantAttempts: "/admin/audit?action=tenant.cross" },
  ...{ operatorTokenUses: "/admin/audit?action=operator_token.use", brokenAuditChains: "/docs/audit" },
};

const tones: Readonly<Record<AlarmLevel, Tone>> = { ok: "good", warning: "warn", critical: "bad" };

/** `12 s`, `5 min`, `3 h`, `2 d`. */
function duration(seconds: number): string {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  return seconds < 48 * 3_600 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} d`;
}

export function shownValue({ value, unit }: Pick<Shown, "value" | "unit">): string {
  if (value === null) return "none";
  if (unit === "seconds") return duration(value);
  return unit === "percent" ? `${count(value)} %` : count(value);
}

/** GET /admin/billing */
export async function showPipeline(c: HttpContext): Promise<Response> {
  const context = c.get("context");
  const { level, at, indicators } = await currentIndicators(
    { ...context, control: joinBatches(context.control) },
    Date.now(),
  );
  const byName = new Map<string, Shown>(indicators.map((each) => [each.name, each]));
  const of = (names: readonly Name[]): Shown[] => names.flatMap((name) => byName.get(name) ?? []);
  const onPicture = new Set([...stages.flatMap(({ names }) => names), ...fromStripe]);
  const wrong = indicators.filter((each) => each.level !== "ok");
  const part = (
    <div id="pipeline" hx-get={PATH} hx-trigger={POLL} hx-swap="outerHTML" hx-target="this">
      <p>
        <Badge tone={tones[level]}>{level === "ok" ? "all in order" : level}</Badge>{" "}
        <span class="muted">
          as of <Instant at={at} /> UTC
        </span>
      </p>
      <ol class="grid" aria-label="From a call to the invoice">
        {stages.map(({ title, text, names }) => (
          <StageCard title={title} text={text} shown={of(names)} />
        ))}
      </ol>
      <h2>From Stripe</h2>
      <ol class="grid">
        <StageCard title="Webhooks" text="Stored first, applied once." shown={of(fromStripe)} />
      </ol>
      <h2>{wrong.length === 0 ? "Everything else" : "What to do"}</h2>
      {wrong.map((each) => (
        <Runbook shown={each} isOpen />
      ))}
      {indicators
        .filter(({ name, level: own }) => own === "ok" && !onPicture.has(name))
        .map((each) => (
          <Runbook shown={each} />
        ))}
    </div>
  );
  if (wantsPart(c)) return pagePart(c, part);
  return operatorPage(
    c,
    {
      title: "Billing pipeline",
      section: PATH,
      scripts: "live",
      lead: "Every call goes this way, and none may get lost on it.",
    },
    part,
  );
}

const StageCard: FC<{ title: string; text: string; shown: readonly Shown[] }> = ({ title, text, shown }) => {
  const level = shown.some((each) => each.level === "critical")
    ? "critical"
    : shown.some((each) => each.level === "warning")
      ? "warning"
      : "ok";
  return (
    <li class={`card stage ${tones[level]}`}>
      <strong>{title}</strong>
      <p class="small muted">{text}</p>
      <dl class="facts">
        {shown.map((each) => {
          const to = pages[each.name];
          return (
            <>
              <dt>{to === undefined ? each.title : <a href={to}>{each.title}</a>}</dt>
              <dd class="nowrap">
                {each.level === "ok" ? (
                  shownValue(each)
                ) : (
                  <Badge tone={tones[each.level]}>{`${shownValue(each)}, ${each.level}`}</Badge>
                )}
              </dd>
            </>
          );
        })}
      </dl>
    </li>
  );
};

/** An indicator with the first thing to do. */
export const Runbook: FC<{ shown: Shown; isOpen?: boolean }> = ({ shown, isOpen = false }) => {
  const to = pages[shown.name];
  return (
    <details class="card runbook" open={isOpen} id={shown.name}>
      <summary>
        <Badge tone={tones[shown.level]}>{shown.level}</Badge> {shown.title}: <strong>{shownValue(shown)}</strong>
      </summary>
      <p>
        <TextWithCode text={shown.runbook} />
      </p>
      <p class="small muted">
        {shown.since !== null && (
          <>
            Since <Instant at={shown.since} /> UTC.{" "}
          </>
        )}
        {to !== undefined && <a href={to}>Open the list</a>}
      </p>
    </details>
  );
};
