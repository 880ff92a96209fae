// Pages of the sign-in: the way to a provider and back, the account that is signed in, and the sign-out.
//
// Invariants: a session is new at each sign-in. The way back is bound to the browser that began, and to the provider. A page
// sends a person only to a path of Tollgate's own, to a configured provider, or to a client that has proven itself.
import { AuthorizationError, type AuthRequest, authorizationErrorRedirect } from "@cloudflare/workers-oauth-provider";
import { anonymous } from "../../core/actor.ts";
import { type HttpContext, recordAct } from "../../http.ts";
import { acts } from "../../identity/audit/audit.ts";
import { describeError, log } from "../../log.ts";
import { signInIssuers } from "../../identity/tokens/issuers.ts";
import { identityIssuer } from "../../identity/providers/providers.ts";
import { providersStore } from "../../identity/providers/providers-store.ts";
import {
  configuredClient,
  organisationProvider,
  ownClient,
  rulesOf,
  signInProvider,
} from "../../identity/providers/sign-in-providers.ts";
import { signInMember } from "../../identity/members/membership.ts";
import { membersStore } from "../../identity/members/members-store.ts";
import { oauthEnv } from "../../identity/oauth/api.ts";
import { queryOf } from "../../identity/oauth/authorize.ts";
import { isOwn } from "../../identity/oauth/consent.ts";
import { oauthPaths, oauthServer } from "../../identity/oauth/server.ts";
import {
  CALLBACK_PATH,
  Pending,
  type UpstreamClient,
  newPending,
  readAnswer,
  signInUrl,
} from "../../identity/oauth/upstream.ts";
import { type Session, sessionsStore } from "../../identity/sessions/sessions-store.ts";
import { endedSessionCookie, sessionCookie, sessionTokenOf } from "../../identity/sessions/sessions.ts";
import { choosePage, withParameter } from "./choose-provider.tsx";
import { errorPage } from "../layout/error-page.tsx";
import { personalPage } from "../layout/layout.tsx";

const SIGN_IN_PATH = "/sign-in";

export interface SignedIn {
  token: string;
  session: Session;
}

/** Who is signed in at this browser. */
export async function signedIn(c: HttpContext): Promise<SignedIn | undefined> {
  const token = sessionTokenOf(c.req.header("cookie"));
  const session = token && (await sessionsStore(c.get("context").control).find(token, Date.now()));
  return token !== undefined && session !== undefined && session !== "" ? { token, session } : undefined;
}

/** The request as the library reads it: at the public address, with the browser's cookies. */
export function libraryRequest(c: HttpContext, path: string, method = "GET"): Request {
  const headers = { cookie: c.req.header("cookie") ?? "" };
  return new Request(`${c.env.PUBLIC_URL}${path}`, { method, headers });
}

/** The `Set-Cookie` headers of an answer of the library. */
export const cookiesOf = (headers: Headers): string[] => headers.getSetCookie();

/** What a sign-in is for: a client's request, or a page of Tollgate. */
type Purpose = { request: AuthRequest } | { returnTo: string };

/** The library stores a request with each sign-in. A sign-in for a page has none. */
export const noRequest: AuthRequest = { responseType: "none", clientId: "", redirectUri: "", scope: [], state: "" };

export interface BeginOptions {
  purpose: Purpose;
  /** The issuer that the person chose. */
  chosen: string | undefined;
  /** The name of the organisation whose own provider signs the person in. */
  organisation: string | undefined;
  /** The provider asks which account to use. */
  choosesAccount: boolean;
  /** The URL of this sign-in, to which `provider` can be added. */
  url: string;
}

/** Sends the person to their provider. Where there are several, a page asks for one first. */
export async function beginSignIn(c: HttpContext, options: BeginOptions): Promise<Response> {
  const { purpose, chosen, organisation, choosesAccount, url } = options;
  const issuers = signInIssuers(c.env.OIDC_ISSUERS);
  let upstream: UpstreamClient | undefined;
  if (organisation !== undefined) {
    const stored = await organisationProvider(c.get("context"), organisation);
    upstream = stored && (await ownClient(c.env, stored));
    if (upstream === undefined) return choosePage(c, { issuers, url, isUnknown: true });
  } else {
    const issuer =
      issuers.find((each) => each.issuer === chosen) ??
      (issuers.length === 1 && !(await anyTenantHasProvider(c)) ? issuers[0] : undefined);
    if (issuers.length === 0 && !(await anyTenantHasProvider(c)))
      return errorPage(c, {
        ...{ title: "Signing in is not set up yet", status: 503 },
        text: "The operator has not set up a provider for sign-ins. An API key works without one.",
      });
    if (issuer === undefined) return choosePage(c, { issuers, url });
    upstream = configuredClient(c.env, issuer);
  }
  const isForClient = "request" in purpose;
  const pending = newPending(upstream, isForClient ? undefined : purpose.returnTo);
  const api = oauthServer(c.env).getOAuthApi(oauthEnv(c.get("context")));
  const request = isForClient ? purpose.request : noRequest;
  const { state, headers } = await api.beginUpstream(request, { data: pending });
  const to = await signInUrl(upstream, { pending, state, choosesAccount, nowMs: Date.now() });
  if (to === undefined) return providerAway(c, url);
  const response = c.redirect(to, 302);
  for (const cookie of cookiesOf(headers)) response.headers.append("set-cookie", cookie);
  return response;
}

/** Without the control database a person still reaches the one provider, and the way back then says what is wrong. */
async function anyTenantHasProvider(c: HttpContext): Promise<boolean> {
  try {
    return await providersStore(c.get("context").control).hasAny();
  } catch (error) {
    log("warn", "providers_not_read", { error: describeError(error) });
    return false;
  }
}

/** POST /sign-in: the organisation that a person typed on the page. The form's answer leads on, and its address has no e-mail. */
export async function findOrganisation(c: HttpContext): Promise<Response> {
  if (!isOwn(c)) return foreignForm(c);
  const form = new URLSearchParams(await c.req.text());
  const url = safePath(form.get("continue") ?? undefined, MAX_CONTINUED_CHARS);
  const found = await organisationProvider(c.get("context"), (form.get("organisation") ?? "").slice(0, 400));
  if (found === undefined) return choosePage(c, { issuers: signInIssuers(c.env.OIDC_ISSUERS), url, isUnknown: true });
  const continuesAt = withParameter(url, "organisation", found.slug);
  return personalPage(
    c,
    { title: "Sign in", continuesAt },
    <p class="narrow">
      <a class="button" href={continuesAt}>
        Continue to your organisation's sign-in
      </a>
    </p>,
  );
}

function providerAway(c: HttpContext, url: string): Promise<Response> {
  return errorPage(c, {
    ...{ title: "The sign-in does not work at the moment", status: 503 },
    text: "Your organisation's provider does not answer. Try again in a minute.",
    link: { url, text: "Try again" },
  });
}

function providerGone(c: HttpContext, url: string): Promise<Response> {
  return errorPage(c, {
    ...{ title: "You are not signed in", status: 403 },
    text: "Your organisation has changed where it signs in.",
    link: { url, text: "Sign in again" },
  });
}

/** GET /oauth/callback: the provider sends the person back. */
export async function finishSignIn(c: HttpContext): Promise<Response> {
  const { PUBLIC_URL } = c.env;
  const context = c.get("context");
  const { search, searchParams } = new URL(c.req.url);
  const resumed = await resume(c, `${CALLBACK_PATH}${search}`);
  if (resumed === undefined)
    return errorPage(c, {
      ...{ title: "This sign-in has ended", status: 400 },
      text: "It was finished already, took longer than ten minutes, or began in another browser. Start again from your client.",
    });
  const { request, pending, cookies } = resumed;
  const { returnTo } = pending;
  const retryUrl = returnTo === undefined ? `${oauthPaths.authorize}?${queryOf(request)}` : signInUrlFor(returnTo);
  const upstream = await signInProvider(context, pending.issuer);
  if (upstream === undefined) return providerGone(c, retryUrl);
  const nowMs = Date.now();
  const outcome = await readAnswer(upstream, { query: searchParams, pending, nowMs });
  const signIn = {
    action: acts.signIn,
    detail: { issuer: pending.issuer, for: returnTo === undefined ? "client" : "page" },
  };
  if (outcome.kind === "denied" || (outcome.kind === "failed" && !outcome.isOutage))
    recordAct(c, { ...signIn, actor: anonymous, tenantId: null, outcome: "refused" });
  if (outcome.kind === "denied" && returnTo === undefined)
    return redirectWith(c, authorizationErrorRedirect(request, "access_denied"), cookies);
  if (outcome.kind === "failed" && outcome.isOutage) return providerAway(c, retryUrl);
  if (outcome.kind !== "person")
    return errorPage(c, {
      ...{ title: "You are not signed in", status: 403, cookies },
      text: "Your organisation's provider did not confirm who you are.",
      link: { url: retryUrl, text: "Try again" },
    });
  const { person } = outcome;
  const memberships = await signInMember(context, { ...person, nowMs, ...rulesOf(upstream, person) });
  const sessions = sessionsStore(context.control);
  // A session that this browser had before ends: its token could have been planted.
  const former = sessionTokenOf(c.req.header("cookie"));
  if (former !== undefined) await sessions.end(former, nowMs);
  const token = await sessions.start({ ...person, nowMs });
  // A row in the chain of each tenant that the session opens, or in the deployment's.
  const opened = memberships.filter(({ tenantState }) => tenantState !== "gone");
  for (const { tenantId, memberId: id, role } of opened)
    recordAct(c, {
      ...signIn,
      ...{ actor: { kind: "member", tenantId, id, role, through: "session" }, tenantId, outcome: "succeeded" },
    });
  if (opened.length === 0) {
    const { issuer: of, subject } = person;
    recordAct(c, { ...signIn, actor: { kind: "person", issuer: of, subject }, tenantId: null, outcome: "succeeded" });
  }
  // The address with the code leaves the browser's history.
  return redirectWith(c, PUBLIC_URL + (returnTo ?? retryUrl), [...cookies, sessionCookie(token)]);
}

/** The sign-in that the callback's `state` belongs to; `undefined` when this browser has no such sign-in under way. */
export async function resume(
  c: HttpContext,
  path: string,
): Promise<{ request: AuthRequest; pending: Pending; cookies: string[] } | undefined> {
  const api = oauthServer(c.env).getOAuthApi(oauthEnv(c.get("context")));
  try {
    const { request, data, headers } = await api.finishUpstream(libraryRequest(c, path));
    return { request, pending: Pending.parse(data), cookies: cookiesOf(headers) };
  } catch (error) {
    if (error instanceof AuthorizationError) return undefined;
    throw error;
  }
}

export function redirectWith(c: HttpContext, to: string, cookies: readonly string[]): Response {
  const response = c.redirect(to, 303);
  for (const cookie of cookies) response.headers.append("set-cookie", cookie);
  return response;
}

/** A path of Tollgate's own that a sign-in may return to. Two slashes, or a slash and a backslash, would name another host. */
export function safePath(path: string | undefined, maxChars = 500): string {
  const isSafe = path !== undefined && path.length <= maxChars && /^\/(?![/\\])[\x21-\x5b\x5d-\x7e]*$/.test(path);
  return isSafe ? path : SIGN_IN_PATH;
}

/** The longest authorization request that continues after the choice of an organisation. */
const MAX_CONTINUED_CHARS = 8_000;

/** Whether the session is one of the organisation's own provider. */
async function isOfOrganisation(c: HttpContext, { session }: SignedIn, organisation: string): Promise<boolean> {
  const stored = await organisationProvider(c.get("context"), organisation);
  return stored !== undefined && session.issuer === identityIssuer(stored.tenantId, stored.id);
}

/** Who is signed in at this browser, if the request asks neither for another account nor for another organisation's provider. */
export async function signedInFor(
  c: HttpContext,
  { choosesAccount, organisation }: Pick<BeginOptions, "choosesAccount" | "organisation">,
): Promise<SignedIn | undefined> {
  const current = choosesAccount ? undefined : await signedIn(c);
  if (current === undefined || organisation === undefined) return current;
  return (await isOfOrganisation(c, current, organisation)) ? current : undefined;
}

function signInUrlFor(returnTo: string): string {
  return `${SIGN_IN_PATH}?return=${encodeURIComponent(returnTo)}`;
}

/** GET /sign-in: signs a person in to pages, and then shows who is signed in. `?return=` names the page to continue with. */
export async function showSignIn(c: HttpContext): Promise<Response> {
  const { searchParams } = new URL(c.req.url);
  const returnTo = safePath(searchParams.get("return") ?? undefined);
  const choosesAccount = searchParams.get("prompt") === "select_account";
  const organisation = searchParams.get("organisation") ?? undefined;
  const current = await signedInFor(c, { choosesAccount, organisation });
  if (current === undefined) {
    const url = signInUrlFor(returnTo) + (choosesAccount ? "&prompt=select_account" : "");
    const chosen = searchParams.get("provider") ?? undefined;
    return beginSignIn(c, { purpose: { returnTo }, chosen, organisation, choosesAccount, url });
  }
  if (returnTo !== SIGN_IN_PATH) return redirectWith(c, c.env.PUBLIC_URL + returnTo, []);
  const { session } = current;
  const memberships = await membersStore(c.get("context").control).ofIdentity(session);
  return personalPage(
    c,
    { title: "Signed in", hasForm: true },
    <div class="narrow">
      <p>
        You are signed in as <strong>{nameOf(session)}</strong>.
      </p>
      {memberships.length === 0 ? (
        <p>You are a member of no organisation here.</p>
      ) : (
        <ul>
          {memberships.map(({ tenantName, role }) => (
            <li>
              {tenantName}: {role}
            </li>
          ))}
        </ul>
      )}
      <form method="post" action="/sign-out">
        <p class="actions">
          <button class="main">Sign out</button>
          <a class="button" href={`${SIGN_IN_PATH}?prompt=select_account`}>
            Use another account
          </a>
        </p>
      </form>
    </div>,
  );
}

/** A person's name for themselves. */
export function nameOf({ email, name, subject }: Pick<Session, "email" | "name" | "subject">): string {
  return email ?? name ?? subject;
}

/** POST /sign-out: ends the session. Grants of clients stay. */
export async function signOut(c: HttpContext): Promise<Response> {
  if (!isOwn(c)) return foreignForm(c);
  const token = sessionTokenOf(c.req.header("cookie"));
  if (token !== undefined) await sessionsStore(c.get("context").control).end(token, Date.now());
  return personalPage(
    c,
    { title: "Signed out", cookies: [endedSessionCookie] },
    <div class="narrow">
      <p>You are signed out. Clients that you have let in keep their access.</p>
      <p class="actions">
        <a class="button" href={`${SIGN_IN_PATH}?prompt=select_account`}>
          Sign in again
        </a>
      </p>
    </div>,
  );
}

/** The form came from another site. */
export function foreignForm(c: HttpContext): Promise<Response> {
  return errorPage(c, {
    ...{ title: "This form is not from here", status: 403 },
    text: "Another site has sent it, or your browser hides where it comes from. Nothing was changed.",
  });
}
