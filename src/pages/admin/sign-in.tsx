// The sign-in of the operator's people: at the operator's issuer, or with the operator token in an emergency.
//
// Invariants: a session is new at each sign-in, and ends the one that the browser had. The way back is bound to the browser that
// began. A page leads only to a path below /admin. The use of the operator token is counted and raises the alarm, as in the API.
import { anonymous, tokenOperator } from "../../core/actor.ts";
import { isOneOf } from "../../core/keys/credentials.ts";
import { type HttpContext, Problem, recordAct } from "../../http.ts";
import { acts } from "../../identity/audit/audit.ts";
import { oauthEnv } from "../../identity/oauth/api.ts";
import { isOwn } from "../../identity/oauth/consent.ts";
import { oauthServer } from "../../identity/oauth/server.ts";
import { newPending, readSignIn, signInUrl } from "../../identity/oauth/upstream.ts";
import { OPERATOR_SIGN_IN, operatorClient } from "../../identity/operators/operator-client.ts";
import {
  endedOperatorCookie,
  operatorOfSession,
  operatorTokenOf,
  startOperatorSession,
} from "../../identity/operators/operator-sessions.ts";
import { operatorSessionsStore } from "../../identity/operators/operator-sessions-store.ts";
import { actAsOperator } from "../../identity/operators/operator-requests.ts";
import { operatorOfClaims, operatorSettings } from "../../identity/operators/operators.ts";
import { issuerName } from "../../identity/tokens/issuers.ts";
import { describeError, log } from "../../log.ts";
import { errorPage } from "../layout/error-page.tsx";
import { personalPage } from "../layout/layout.tsx";
import { Field } from "../parts/form.tsx";
import { Notice } from "../parts/notice.tsx";
import { cookiesOf, foreignForm, noRequest, redirectWith, resume, safePath } from "../sign-in/sign-in.tsx";

const SIGN_IN_PATH = "/admin/sign-in";

/** A path of the operator's pages that a sign-in may return to. */
function operatorPath(path: string | null | undefined): string {
  const safe = safePath(path ?? undefined);
  return /^\/admin(?:$|[/?])/.test(safe) && !safe.startsWith(SIGN_IN_PATH) ? safe : "/admin";
}

/** GET /admin/sign-in. `?return=` names the page to continue with. */
export async function showOperatorSignIn(c: HttpContext): Promise<Response> {
  const returnTo = operatorPath(new URL(c.req.url).searchParams.get("return"));
  const token = operatorTokenOf(c.req.header("cookie"));
  if (token !== undefined && (await operatorOfSession(c.get("context"), token, Date.now())) !== undefined)
    return redirectWith(c, returnTo, []);
  return signInPage(c, { returnTo });
}

function signInPage(c: HttpContext, { returnTo, refused }: { returnTo: string; refused?: string }): Promise<Response> {
  const { found, access } = waysOf(c);
  const use = c.env.OPERATOR_TOKEN_USE;
  const takesToken = use !== "off" && (c.env.OPERATOR_TOKEN ?? "") !== "";
  const form = (
    <form method="post" action={SIGN_IN_PATH}>
      <input type="hidden" name="return" value={returnTo} />
      <Field
        label="Operator token"
        name="token"
        type="password"
        autocomplete="off"
        isRequired
        error={refused}
        hint={use === "normal" ? undefined : "Each use is counted and raises an alarm."}
      />
      <button class="full">Sign in with the token</button>
    </form>
  );
  return personalPage(
    c,
    { title: "Operator sign-in", hasForm: true, scripts: "own", ...(refused !== undefined && { status: 401 }) },
    <>
      {found === undefined && access === undefined && !takesToken && (
        <Notice tone="warn">No way to sign in is set up. docs/operators.md describes three.</Notice>
      )}
      {found !== undefined && (
        <a class="button main full" href={`${SIGN_IN_PATH}/issuer?return=${encodeURIComponent(returnTo)}`}>
          Sign in with {issuerName(found.settings)}
        </a>
      )}
      {access !== undefined && <p>Cloudflare Access signs you in when you open a page of the operator.</p>}
      {takesToken && found === undefined && form}
      {takesToken && found !== undefined && (
        <details open={refused !== undefined}>
          <summary>In an emergency, use the operator token</summary>
          {form}
        </details>
      )}
    </>,
  );
}

/** The ways to sign in without the operator token, which must work while their settings are malformed. */
function waysOf(c: HttpContext) {
  try {
    return { found: operatorClient(c.env), access: operatorSettings(c.env).access };
  } catch (error) {
    log("error", "operator_settings_malformed", { error: describeError(error) });
    return { found: undefined, access: undefined };
  }
}

/** GET /admin/sign-in/issuer: sends the person to the operator's issuer. */
export async function beginOperatorSignIn(c: HttpContext): Promise<Response> {
  const found = operatorClient(c.env);
  if (found === undefined) throw new Problem("not_found", "The operator's issuer has no client for this sign-in.");
  const { searchParams } = new URL(c.req.url);
  const returnTo = operatorPath(searchParams.get("return"));
  const pending = { ...newPending(found.client, returnTo), issuer: OPERATOR_SIGN_IN };
  const api = oauthServer(c.env).getOAuthApi(oauthEnv(c.get("context")));
  const { state, headers } = await api.beginUpstream(noRequest, { data: pending });
  const choosesAccount = searchParams.get("prompt") === "select_account";
  const to = await signInUrl(found.client, { pending, state, choosesAccount, nowMs: Date.now() });
  return to === undefined ? issuerAway(c) : redirectWith(c, to, cookiesOf(headers));
}

function issuerAway(c: HttpContext): Promise<Response> {
  return errorPage(c, {
    ...{ title: "The sign-in does not work at the moment", status: 503 },
    text: "The operator's issuer does not answer. Try again in a minute. In an emergency, use the operator token.",
    link: { url: SIGN_IN_PATH, text: "Back to the sign-in" },
  });
}

/** GET /admin/sign-in/callback: the issuer sends the person back. */
export async function finishOperatorSignIn(c: HttpContext): Promise<Response> {
  const { pathname, search, searchParams } = new URL(c.req.url);
  const resumed = await resume(c, pathname + search);
  const found = operatorClient(c.env);
  if (resumed === undefined || resumed.pending.issuer !== OPERATOR_SIGN_IN || found === undefined)
    return errorPage(c, {
      ...{ title: "This sign-in has ended", status: 400 },
      text: "It was finished already, took longer than ten minutes, or began in another browser.",
      link: { url: SIGN_IN_PATH, text: "Start again" },
    });
  const { pending, cookies } = resumed;
  const { client, settings } = found;
  const nowMs = Date.now();
  const answer = await readSignIn(client, { query: searchParams, pending, nowMs });
  if (answer.kind === "failed" && answer.isOutage) return issuerAway(c);
  const signIn = { action: acts.signIn, tenantId: null, detail: { issuer: settings.issuer, for: "operator" } };
  const read = answer.kind === "claims" ? operatorOfClaims(answer.claims, settings, answer.scopes) : undefined;
  if (read === undefined || "refused" in read) {
    log("warn", "operator_refused", { code: read?.refused ?? answer.kind, route: c.req.routePath });
    recordAct(c, { ...signIn, actor: anonymous, outcome: "refused" });
    return errorPage(c, {
      ...{ title: "You are not signed in", status: 403, cookies, code: read?.refused },
      text:
        read === undefined
          ? "The operator's issuer did not confirm who you are."
          : "Your identity has no access here. An administrator of the identity provider can give you a role.",
      link: { url: `${SIGN_IN_PATH}/issuer?prompt=select_account`, text: "Use another account" },
    });
  }
  const session = await startOperatorSession(c.get("context"), read.operator, { issuer: settings.issuer }, nowMs);
  await endFormer(c, nowMs);
  recordAct(c, { ...signIn, actor: read.operator, outcome: "succeeded" });
  return redirectWith(c, operatorPath(pending.returnTo), [...cookies, session]);
}

/** POST /admin/sign-in: with the operator token. */
export async function submitOperatorToken(c: HttpContext): Promise<Response> {
  if (!isOwn(c)) return foreignForm(c);
  const form = new URLSearchParams(await c.req.text());
  const returnTo = operatorPath(form.get("return"));
  const token = form.get("token")?.trim() ?? "";
  if (token === "") return signInPage(c, { returnTo, refused: "Enter the operator token." });
  if (c.env.OPERATOR_TOKEN_USE === "off" || !(await isOneOf(c.env.OPERATOR_TOKEN ?? "", token))) {
    c.set("hasWrongCredential", true);
    log("warn", "operator_refused", { code: "token_invalid", route: c.req.routePath });
    recordAct(c, {
      ...{ action: acts.refusedOperatorToken, actor: anonymous, tenantId: null, outcome: "refused" },
      detail: { route: c.req.routePath },
    });
    return signInPage(c, { returnTo, refused: "This is not the operator token." });
  }
  actAsOperator(c, tokenOperator);
  const nowMs = Date.now();
  const session = await startOperatorSession(c.get("context"), tokenOperator, { operatorToken: token }, nowMs);
  await endFormer(c, nowMs);
  return redirectWith(c, returnTo, [session]);
}

/** The token of a session that this browser had before could have been planted. */
async function endFormer(c: HttpContext, nowMs: number): Promise<void> {
  const former = operatorTokenOf(c.req.header("cookie"));
  if (former !== undefined) await operatorSessionsStore(c.get("context").control).end(former, nowMs);
}

/** POST /admin/sign-out */
export async function signOutOperator(c: HttpContext): Promise<Response> {
  if (!isOwn(c)) return foreignForm(c);
  await endFormer(c, Date.now());
  return redirectWith(c, SIGN_IN_PATH, [endedOperatorCookie]);
}
