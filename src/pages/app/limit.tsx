// The page to which a refused call leads: what the limit is, what more costs, and the form that raises it. An agent that waits
// completes its call as soon as the limit is raised.
// Invariants: the address opens nothing, only a session of the tenant with the right does. A form says from which limit it starts, so
// that two people, or one person twice, raise it once.
import type { FC } from "hono/jsx";
import * as z from "zod";
import { notifyObject } from "../../control/notify-object.ts";
import { changeAccount } from "../../control/tenant-change.ts";
import { type SpendWindow, costOf, spendCapOf, spendWindow, spentIn } from "../../core/plans/money.ts";
import { type HttpContext, tenantOf } from "../../http.ts";
import type { Allowance } from "../../metering/tenant-usage.ts";
import { refusedChange } from "../../operations/admin-api.ts";
import { changeOwnPlan, ownPlan } from "../../subscriptions/api.ts";
import { soldPlans } from "../../subscriptions/checkout.ts";
import { type RefusedForm, doneAt, readForm } from "../layout/form-body.ts";
import { Figure, Instant, count, dollars, units } from "../parts/figures.tsx";
import { Action, Field } from "../parts/form.tsx";
import { Notice } from "../parts/notice.tsx";
import { planTitle } from "../parts/plan.tsx";
import { accountPage, accountPath, may, tenantFor } from "./account-page.tsx";
import { LargerPlans } from "./limit-plans.tsx";

const CENTS = 100;
/** Prices of single units are fractions of a cent. */
const UNITS_OF_PRICE = 1_000;
const BACK = "Return to your agent. A call that waits completes by itself; otherwise send it again.";

const Form = z.object({
  /** In dollars. */
  cap: z.coerce.number("Enter an amount in dollars.").min(0, "Enter an amount of 0 or more.").max(1e7).optional(),
  plan: z.enum(soldPlans).optional(),
  /** The cap in cents, or the plan, that the form showed. */
  from: z.string(),
});

/** GET /app/:tenantId/limit */
export async function showLimit(c: HttpContext, _input?: unknown, refused?: RefusedForm): Promise<Response> {
  const tenant = await tenantFor(c);
  const [used, { subscription: account }] = await Promise.all([
    c.get("context").tenantObject(tenantOf(c)).allowance() as Promise<Allowance>,
    ownPlan(c),
  ]);
  const window = spendWindow(tenant, Date.now());
  return accountPage(
    c,
    { title: "Raise a limit", section: "", hasForm: true, status: refused === undefined ? 200 : 400 },
    <>
      {!may(c, "billing:manage") && (
        <Notice tone="warn">
          Only an owner, an administrator or a billing member can raise a limit. Send one of them this page's address:
          it works with their own sign-in.
        </Notice>
      )}
      {window === undefined ? null : <SpendCap {...{ c, window, used, refused }} />}
      <LargerPlans {...{ c, tenant, used, account }} />
    </>,
  );
}

const SpendCap: FC<{ c: HttpContext; window: SpendWindow; used: Allowance; refused: RefusedForm | undefined }> = ({
  c,
  window,
  used,
  refused,
}) => {
  const { capCents, maxCapCents, includedUnits, unitAmountCents, endMs } = window;
  const spent = spentIn(window, used.spendUnits);
  const most = maxCapCents === null ? undefined : maxCapCents / CENTS;
  const canRaise = capCents !== null && (maxCapCents === null || maxCapCents > capCents);
  return (
    <section>
      <h2>Spend cap</h2>
      <div class="grid">
        <Figure
          name="Spent in this billing period"
          value={dollars(spent)}
          note={
            capCents === null ? "There is no cap." : `The cap is ${dollars(capCents)}. At the cap, calls are refused.`
          }
          meter={{ label: "Units", used: used.spendUnits, limit: window.maxUnits }}
        />
        <Figure
          name="Units"
          value={count(used.spendUnits)}
          note={`${units(includedUnits)} are included. ${units(UNITS_OF_PRICE)} more cost ${dollars(costOf(UNITS_OF_PRICE, unitAmountCents))}.`}
        />
      </div>
      <p>
        The next billing period begins on <Instant at={endMs} isDay />.
      </p>
      {capCents !== null && may(c, "billing:manage") && canRaise && (
        <Action
          action={accountPath(c, "/limit")}
          label="Set the spend cap"
          tone="main"
          fields={{ from: String(capCents) }}
        >
          <Field
            label="New spend cap in dollars"
            name="cap"
            type="number"
            min={0}
            {...(most !== undefined && { max: most })}
            value={refused?.entered["cap"] ?? String(suggested(capCents, maxCapCents) / CENTS)}
            error={refused?.errors["cap"]}
            hint={`What units beyond the included ones may cost in one billing period${most === undefined ? "" : `, up to ${dollars(most * CENTS)}`}. Your invoice never has more of them.`}
            isRequired
          />
        </Action>
      )}
      {capCents !== null && !canRaise && <p>The cap is the highest that you can set. Ask support for more.</p>}
    </section>
  );
};

/** Twice the cap, as far as the bound allows. */
function suggested(capCents: number, maxCapCents: number | null): number {
  return Math.min(Math.max(2 * capCents, CENTS), maxCapCents ?? Infinity);
}

/** POST /app/:tenantId/limit: sets the spend cap or changes the plan, unless another request was faster. */
export async function raiseLimit(c: HttpContext): Promise<Response> {
  const tenant = await tenantFor(c);
  const here = accountPath(c, "/limit");
  const form = await readForm(c, Form);
  if ("refused" in form) return showLimit(c, undefined, form.refused);
  const { plan, cap, from } = form.data;
  if (plan !== undefined) {
    if (tenant.plan !== from) return doneAt(c, here, `The plan is ${planTitle(tenant.plan)} already. ${BACK}`);
    const answer = await changeOwnPlan(c, { body: { plan } });
    if (answer.status === 200) return doneAt(c, here, `The plan is ${planTitle(plan)}. ${BACK}`);
    return doneAt(c, here, "The change waits until all usage is confirmed, which takes minutes. Your agent can wait.");
  }
  if (cap === undefined)
    return showLimit(c, undefined, { entered: {}, errors: { cap: "Enter an amount in dollars." } });
  const capCents = Math.round(cap * CENTS);
  const refused = await changeAccount(
    c.get("context"),
    tenantOf(c),
    { settings: { spend: { capCents } } },
    ({ limits, settings }) => Promise.resolve(String(spendCapOf(limits, settings.spend.capCents ?? null)) === from),
  );
  if (refused === "unexpected") return doneAt(c, here, `The spend cap was changed meanwhile. ${BACK}`, "warn");
  if (refused === "cap_over_bound")
    return showLimit(c, undefined, {
      entered: { cap: String(cap) },
      errors: { cap: "This is more than you can set." },
    });
  if (refused !== undefined) throw refusedChange(refused);
  await notifyObject(c.get("context"), tenantOf(c));
  return doneAt(c, here, `The spend cap is ${dollars(capCents)}. ${BACK}`);
}
