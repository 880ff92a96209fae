// The page after Checkout: the steps until the account works, then its first key and how clients use it. The steps renew themselves
// every two seconds; without script the whole page does.
//
// Invariants: the account's id alone shows nothing; the guard wants a token of the order. Only the set-up token makes the first
// key, which one page shows once: a form that is sent twice shows the same key, and another form none.
import type { FC } from "hono/jsx";
import type * as z from "zod";
import { newTenantId } from "../../adapters/ids.ts";
import { TenantId } from "../../core/tenant/tenant.ts";
import { AppError } from "../../core/errors.ts";
import { type HttpContext, tenantOf } from "../../http.ts";
import { isOrderToken, orderCookie } from "../../identity/keys/order-cookie.ts";
import { makeKey } from "../../identity/keys/api.ts";
import { KeyRequest } from "../../identity/keys/keys.ts";
import { inviteFirstOwner } from "../../identity/members/api.ts";
import { type OrderStatus, type StatusQuery, currentStatus } from "../../subscriptions/api.ts";
import { pagePart, personalPage, wantsPart } from "../layout/layout.tsx";
import { Action } from "../parts/form.tsx";
import { ClientSetup } from "../parts/client-setup.tsx";
import { Copyable } from "../parts/code.tsx";
import { Notice } from "../parts/notice.tsx";
import { type StepProps, Steps } from "../parts/steps.tsx";
import { redirectWith } from "../sign-in/sign-in.tsx";

/** A step takes a second or so. */
const POLL = "every 2s";
/** A person without script reads for a moment before the page loads again. */
const RELOAD_SECONDS = 5;

/** The states in which the steps may still change. */
const isUnderWay = ({ state }: OrderStatus): boolean => state === "awaiting_payment" || state === "provisioning";
/** The states in which the account's calls are served. */
const isServed = ({ state }: OrderStatus): boolean => ["active", "trial", "past_due"].includes(state);

/** GET /checkout/:tenantId. A token in the address moves into the cookie. */
export async function showCheckout(
  c: HttpContext,
  { query: { token } }: { query: z.infer<typeof StatusQuery> },
): Promise<Response> {
  if (token !== undefined && isOrderToken(token))
    return redirectWith(c, pathOf(tenantOf(c)), [orderCookie(c.req.header("cookie"), token)]);
  const status = await currentStatus(c);
  const progress = <Progress status={status} isBuyer={c.get("actor").kind === "buyer"} />;
  if (wantsPart(c)) return pagePart(c, progress);
  return personalPage(
    c,
    {
      ...{ title: "Your account", hidesTitle: true, frame: { kind: "site" }, scripts: "live", hasForm: true },
      reloadSeconds: isUnderWay(status) ? RELOAD_SECONDS : undefined,
    },
    progress,
  );
}

const pathOf = (tenantId: TenantId): string => `/checkout/${tenantId}`;

const Progress: FC<{ status: OrderStatus; isBuyer: boolean }> = ({ status, isBuyer }) => {
  const { tenantId, error } = status;
  const polls = isUnderWay(status)
    ? { "hx-get": pathOf(tenantId), "hx-trigger": POLL, "hx-swap": "outerHTML", "hx-target": "this" }
    : {};
  const isPaid = status.state !== "awaiting_payment";
  const payment: StepProps = { title: "Payment received", status: isPaid ? "done" : "running" };
  const steps = status.steps.map(({ title, status: step, error: why }) => ({ title, status: step, note: why }));
  return (
    <div id="progress" class="progress" {...polls}>
      <div class="head">
        <div>
          <h1>{headings[status.state]}</h1>
          <p aria-live="polite">{leads[status.state]}</p>
        </div>
      </div>
      <div class="split">
        <div>{isServed(status) ? <Ready status={status} isBuyer={isBuyer} /> : <Waiting status={status} />}</div>
        <div class="card">
          <h3>Set-up</h3>
          <Steps steps={[payment, ...steps]} />
          {error !== undefined && error !== null && isUnderWay(status) && <p class="small muted">{error}</p>}
        </div>
      </div>
    </div>
  );
};

const headings: Readonly<Record<OrderStatus["state"], string>> = {
  awaiting_payment: "Waiting for your payment",
  provisioning: "Setting up your account",
  trial: "Your account is ready",
  active: "Your account is ready",
  past_due: "A payment is open",
  suspended: "Your account is suspended",
  leaving: "Your account is being closed",
  gone: "Your account was closed",
};
const leads: Readonly<Record<OrderStatus["state"], string>> = {
  awaiting_payment: "Stripe tells us of a payment within seconds. A bank transfer takes days.",
  provisioning: "This takes some seconds. Each step is retried by itself if it fails.",
  trial: "Connect your first agent.",
  active: "Connect your first agent.",
  past_due: "Agents still work. An administrator pays the open invoice in the account's portal.",
  suspended: "An administrator or support can tell why.",
  leaving: "An administrator can still reactivate it.",
  gone: "Its data is removed.",
};

const Waiting: FC<{ status: OrderStatus }> = ({ status }) => (
  <div class="card">
    {isUnderWay(status) ? (
      <>
        <h3>You can leave this page open</h3>
        <p>It continues by itself. Your first API key and the set-up of your clients appear here.</p>
      </>
    ) : (
      <>
        <h3>What you can do</h3>
        <p>Sign in to see the account, its usage and its invoices.</p>
        <p class="actions">
          <a class="button" href="/sign-in">
            Sign in
          </a>
        </p>
      </>
    )}
  </div>
);

const Ready: FC<{ status: OrderStatus; isBuyer: boolean }> = ({ status: { tenantId, mcpUrl = "" }, isBuyer }) => (
  <>
    <div class="card">
      <h3>With an API key</h3>
      {isBuyer ? (
        <>
          <p>For programs and clients that send a header. The key is shown once.</p>
          {/* The form's own number: a form that is sent twice makes one key. */}
          <Action
            action={`${pathOf(tenantId)}/key`}
            label="Get your first key"
            tone="main"
            fields={{ form: newTenantId() }}
          />
        </>
      ) : (
        <>
          <p>
            The browser that ordered makes the first key. Elsewhere, enter the <code>setupToken</code> of the order.
          </p>
          <form method="get" action={pathOf(tenantId)} class="inline">
            <label class="field">
              <span>Set-up token</span>
              <input name="token" autocomplete="off" required pattern="tgs_.+" />
            </label>
            <button>Continue</button>
          </form>
        </>
      )}
    </div>
    <div class="card">
      <h3>Without a key</h3>
      <p>People sign in from their client with your organisation's provider. First the owner joins the account.</p>
      {isBuyer && <Action action={`${pathOf(tenantId)}/owner`} label="Invite me as the owner" />}
      <ClientSetup mcpUrl={mcpUrl} />
    </div>
  </>
);

const BackToAccount: FC<{ tenantId: TenantId }> = ({ tenantId }) => (
  <p class="actions">
    <a class="button" href={pathOf(tenantId)}>
      Back to your account
    </a>
  </p>
);

/** POST /checkout/:tenantId/key: makes the first key, and shows it. */
export async function submitFirstKey(c: HttpContext): Promise<Response> {
  const form = new URLSearchParams(await c.req.text());
  const seed = TenantId.safeParse(form.get("form"));
  if (!seed.success) throw new AppError("bad_request");
  const creation = { seed: seed.data, atMs: Date.now(), isRepeat: false };
  const { apiKey, delivered } = await makeKey(c, KeyRequest.parse({ name: "first" }), creation);
  const mcpUrl = `${c.env.PUBLIC_URL}/mcp`;
  return personalPage(
    c,
    { title: "Your first API key", lead: "Copy it now: it is shown once.", frame: { kind: "site" }, scripts: "own" },
    <>
      <Copyable text={apiKey} caption="API key" />
      {!delivered && <Notice tone="warn">The key works within about a minute.</Notice>}
      <h2>Connect a client</h2>
      <ClientSetup mcpUrl={mcpUrl} apiKey={apiKey} />
      <h2>Clients that sign in instead</h2>
      <p class="muted">They need no key: a member of the account signs in.</p>
      <ClientSetup mcpUrl={mcpUrl} />
      <BackToAccount tenantId={tenantOf(c)} />
    </>,
  );
}

/** POST /checkout/:tenantId/owner: invites the order's address as the owner. Without mail, the browser opens the invitation. */
export async function submitOwner(c: HttpContext): Promise<Response> {
  const { email, url } = await inviteFirstOwner(c);
  if (url !== undefined) return redirectWith(c, url, []);
  return personalPage(
    c,
    { title: "Look into your mail" },
    <>
      <p>
        An invitation is on its way to <strong>{email}</strong>. Open its link to become the owner of the account.
      </p>
      <BackToAccount tenantId={tenantOf(c)} />
    </>,
  );
}
