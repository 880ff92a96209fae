// The data of a tenant: the export, the end of the account, and the way back, whose price is said before.
import type { FC } from "hono/jsx";
import * as z from "zod";
import { exportTenant } from "../../../backups/api.ts";
import { allows } from "../../../core/tenant/tenant-state.ts";
import type { HttpContext } from "../../../http.ts";
import { currentRemoval, reactivateTenant, removeOwnTenant } from "../../../lifecycle/api.ts";
import { type RefusedForm, answerOf, attempt, doneAt, noFields, readForm } from "../../layout/form-body.ts";
import { Instant, dollars } from "../../parts/figures.tsx";
import { Action, Field, Refusal } from "../../parts/form.tsx";
import { planTitle } from "../../parts/plan.tsx";
import { SeenPrice, risenPrice } from "./seen-price.ts";
import { accountPage, accountPath, may, tenantFor } from "../account-page.tsx";

const CloseForm = z.object({ name: z.string({ error: "is missing" }) });

/** GET /app/:tenantId/data */
export function showData(c: HttpContext): Promise<Response> {
  return dataPage(c);
}

/** GET /app/:tenantId/export */
export function downloadExport(c: HttpContext): Promise<Response> {
  return exportTenant(c);
}

/** POST /app/:tenantId/close: the account is closed, once its name is typed. */
export async function submitClose(c: HttpContext): Promise<Response> {
  const form = await readForm(c, CloseForm);
  if ("refused" in form) return dataPage(c, form.refused);
  const { name } = form.data;
  const tenant = await tenantFor(c);
  if (tenant.name !== name) {
    c.set("code", "bad_request");
    return dataPage(c, { entered: { name }, errors: { name: `Type the name as it is: ${tenant.name}` } });
  }
  const done = await attempt(c, () => removeOwnTenant(c, { body: { name } }), form.sent);
  if ("refused" in done) return dataPage(c, done.refused);
  return doneAt(
    c,
    accountPath(c, "/data"),
    "The account is being closed. For 30 days an owner can bring it back.",
    "warn",
  );
}

/**
 * POST /app/:tenantId/return: brings an account back that is being closed, or whose subscription has stopped. A price that has risen
 * since the person saw it is shown again first.
 */
export async function submitReturn(c: HttpContext): Promise<Response> {
  const form = await readForm(c, SeenPrice);
  const tenant = await tenantFor(c);
  if (tenant.state === "leaving" && "data" in form) {
    const { reactivation: terms } = await currentRemoval(c.get("context"), tenant.id);
    const risen = risenPrice(terms?.chargeCents ?? 0, form.data.seenCents);
    if (risen !== undefined) return dataPage(c, risen);
  }
  const done = await attempt(c, () => reactivateTenant(c), noFields);
  if ("refused" in done) return dataPage(c, done.refused);
  return doneAt(c, accountPath(c, "/data"), "The account is back.");
}

type Removal = Awaited<ReturnType<typeof currentRemoval>>;

async function dataPage(c: HttpContext, refused?: RefusedForm): Promise<Response> {
  const tenant = await tenantFor(c);
  const isLeaving = tenant.state === "leaving";
  const removal = isLeaving ? await currentRemoval(c.get("context"), tenant.id) : undefined;
  const isStopped = tenant.state === "suspended" && tenant.suspendedBy === "billing";
  const ends = may(c, "account:remove");
  return accountPage(
    c,
    { title: "Data", section: "/data", ...answerOf(refused) },
    <>
      <Refusal refused={refused} />
      <div class="card">
        <h3>Export</h3>
        <p>
          All rows and documents of the account, with its members, usage and audit log, as one file of JSON lines. It
          can be imported elsewhere.
        </p>
        {may(c, "data:export") && allows(tenant, "export", Date.now()) ? (
          <a class="button main" href={accountPath(c, "/export")} download="">
            Download
          </a>
        ) : (
          <p class="muted">An owner or an admin can download it.</p>
        )}
      </div>
      {removal !== undefined && <Leaving of={removal} back={ends ? accountPath(c, "/return") : undefined} />}
      {isStopped && ends && (
        <div class="card">
          <h3>Reactivate</h3>
          <p>The subscription is stopped. Once Stripe has a way to pay, the account continues in its billing period.</p>
          <Action action={accountPath(c, "/return")} label="Reactivate the account" tone="main" />
        </div>
      )}
      {ends && !isLeaving && tenant.state !== "gone" && (
        <Close name={tenant.name} path={accountPath(c, "/close")} refused={refused} />
      )}
    </>,
  );
}

const Leaving: FC<{ of: Removal; back: string | undefined }> = ({ of: removal, back }) => {
  const { leavingUntil, phase, waitsFor, reactivation: terms } = removal;
  const isOpen = terms !== undefined;
  return (
    <div class="card">
      <h3>The account is being closed</h3>
      {isOpen ? (
        <>
          <p>
            Agents are refused. The data stays
            {leavingUntil === null ? " for 30 days" : ""}
            {leavingUntil !== null && (
              <>
                {" "}
                until <Instant at={leavingUntil} /> UTC
              </>
            )}
            , and is then deleted. {waitsFor}
          </p>
          <h4>The price of coming back</h4>
          {terms === null ? (
            <p>Nothing: Stripe does not bill this account.</p>
          ) : (
            <dl class="facts">
              <dt>Now</dt>
              <dd>
                <strong>{dollars(terms.chargeCents)}</strong>
                {terms.chargeCents > 0 && <span class="muted"> or a little less</span>}
                {terms.coveredUntil !== null && (
                  <div class="small muted">
                    {planTitle(terms.plan)} until <Instant at={terms.coveredUntil} /> UTC
                  </div>
                )}
              </dd>
              <dt>Then</dt>
              <dd>
                <strong>{dollars(terms.monthlyCents)}</strong> a month
              </dd>
            </dl>
          )}
          {back === undefined ? (
            <p class="muted">An owner can bring it back.</p>
          ) : (
            <Action
              action={back}
              fields={{ seenCents: String(terms?.chargeCents ?? 0) }}
              label={
                terms === null || terms.chargeCents === 0
                  ? "Bring the account back"
                  : `Pay ${dollars(terms.chargeCents)} and bring the account back`
              }
              tone="main"
            />
          )}
        </>
      ) : (
        <p>{phase === "done" ? "Its data is deleted." : "Its data is being deleted. This cannot be undone."}</p>
      )}
    </div>
  );
};

const Close: FC<{ name: string; path: string; refused: RefusedForm | undefined }> = ({ name, path, refused }) => (
  <form method="post" action={path} class="card danger">
    <h3>Close the account</h3>
    <p>
      Agents are refused at once, and the subscription ends with a last invoice for usage. For 30 days an owner can
      bring the account back. Then its data is deleted.
    </p>
    <Field
      label={`Type the organisation's name to confirm: ${name}`}
      name="name"
      value={refused?.entered["name"]}
      error={refused?.errors["name"]}
      autocomplete="off"
      isRequired
    />
    <button class="bad">Close the account</button>
  </form>
);
