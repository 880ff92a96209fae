// The authorization endpoint of the OAuth server and its consent: a client's request becomes a code, once a signed-in member has
// agreed for one tenant.
//
// Invariants: nothing is granted without a form of the consent page, from the session that saw it. The tenant is one of the
// person's own at that moment. A refusal is a page while the client's redirect is not proven. A form that is submitted twice
// shows the same success.
import { type AuthRequest, AuthorizationError } from "@cloudflare/workers-oauth-provider";
import { type AccountScope, accountScopes, accountScopesOfRole } from "../../core/actor.ts";
import { config } from "../../core/app-config.ts";
import type { TenantId } from "../../core/tenant/tenant.ts";
import { type HttpContext, actAs, noteAct } from "../../http.ts";
import { log } from "../../log.ts";
import { scopesSupported } from "../../identity/tokens/authenticate.ts";
import { isResourceOf, tenantOfResource } from "../../identity/tokens/tenant-hosts.ts";
import { type Membership, membersStore } from "../../identity/members/members-store.ts";
import { toolScopesOfRole } from "../../identity/members/members.ts";
import { oauthEnv } from "../../identity/oauth/api.ts";
import { grantAccess, queryOf, readAuthorization } from "../../identity/oauth/authorize.ts";
import { bindingOf, isBound, submitOnce, isOwn } from "../../identity/oauth/consent.ts";
import { oauthPaths, oauthServer } from "../../identity/oauth/server.ts";
import { ConsentContent, TICKED } from "./consent.tsx";
import { errorPage } from "../layout/error-page.tsx";
import { personalPage } from "../layout/layout.tsx";
import {
  type SignedIn,
  beginSignIn,
  cookiesOf,
  foreignForm,
  libraryRequest,
  nameOf,
  signedIn,
  signedInFor,
} from "./sign-in.tsx";

type Asks = Extract<Awaited<ReturnType<typeof readAuthorization>>, { kind: "asks" }>;

/** GET /oauth/authorize (RFC 6749, section 4.1.1). */
export async function showAuthorize(c: HttpContext): Promise<Response> {
  const { search, searchParams } = new URL(c.req.url);
  const read = await readAuthorization(c.env, search.slice(1), oauthEnv(c.get("context")));
  if (read.kind === "redirect") return c.redirect(read.to, 302);
  if (read.kind === "refused") return refusedPage(c, read);
  // `prompt` is for the provider, which knows the accounts. It also skips the session here.
  const prompts = (searchParams.get("prompt") ?? "").split(" ");
  const choosesAccount = prompts.includes("select_account") || prompts.includes("login");
  const organisation = searchParams.get("organisation") ?? undefined;
  const current = await signedInFor(c, { choosesAccount, organisation });
  if (current !== undefined) return showConsent(c, read, current);
  const url = `${oauthPaths.authorize}?${queryOf(read.request)}${choosesAccount ? "&prompt=select_account" : ""}`;
  return beginSignIn(c, {
    purpose: { request: read.request },
    chosen: searchParams.get("provider") ?? undefined,
    ...{ organisation, choosesAccount, url },
  });
}

function refusedPage(
  c: HttpContext,
  { reason, detail }: { reason: "bad_request" | "client_unreadable"; detail: string },
): Promise<Response> {
  const isOurs = reason === "bad_request";
  return errorPage(c, {
    title: "This client cannot be let in",
    status: isOurs ? 400 : 502,
    text: `${detail.replace(/\.$/, "")}. ${isOurs ? "Remove the connection in your client and add it again." : "Try again in a minute."}`,
  });
}

/** The resource that the client asks for. The library has put the deployment's own in place of none. */
function resourceOfRequest({ resource }: AuthRequest): string {
  return typeof resource === "string" ? resource : "";
}

interface Choice extends Membership {
  /** Of tools. The client gets all of them. */
  scopes: readonly string[];
  /** Of the account. The client gets those that the person ticks. */
  offered: readonly AccountScope[];
}

/** The tenants for which a member can let a client in, and the scopes that it can get there. `only`: the tenant of the host. */
function choicesOf(memberships: readonly Membership[], only?: TenantId): Choice[] {
  return memberships
    .filter(({ tenantId, tenantState }) => tenantState !== "gone" && (only === undefined || tenantId === only))
    .map((each) => ({
      ...each,
      scopes: toolScopesOfRole(each.role, scopesSupported),
      offered: accountScopesOfRole(each.role),
    }))
    .filter(({ scopes, offered }) => scopes.length + offered.length > 0);
}

async function showConsent(c: HttpContext, { request, client }: Asks, current: SignedIn): Promise<Response> {
  const context = c.get("context");
  const person = nameOf(current.session);
  const switchUrl = `${oauthPaths.authorize}?${queryOf(request)}&prompt=select_account`;
  const store = membersStore(context.control);
  const [memberships, left] = await Promise.all([
    store.ofIdentity(current.session),
    store.removedFrom(current.session),
  ]);
  const choices = choicesOf(memberships, tenantOfResource(c.env, resourceOfRequest(request)));
  if (choices.length === 0) return noChoice(c, person, left, switchUrl);
  const api = oauthServer(c.env).getOAuthApi(oauthEnv(context));
  const { handle, headers } = await api.beginConsent(request);
  const granted = new Set(choices.flatMap(({ scopes }) => scopes));
  const offered = new Set(choices.flatMap((choice) => choice.offered));
  return personalPage(
    c,
    { title: "Let a client in", hasForm: true, cookies: cookiesOf(headers), colour: colourOf(choices) },
    <ConsentContent
      client={client}
      person={person}
      tenants={choices.map(({ tenantId: id, tenantName: name, role }) => ({ id, name, role }))}
      abilities={Object.entries(config.scopes).flatMap(([scope, words]) => (granted.has(scope) ? [words] : []))}
      offers={accountScopes.filter((scope) => offered.has(scope))}
      handle={handle}
      binding={await bindingOf(handle, current.token)}
      switchUrl={switchUrl}
      left={left}
    />,
  );
}

/** The colour of the page is that of the organisation, where there is one to choose. */
function colourOf([first, ...more]: readonly Choice[]): string | undefined {
  return more.length > 0 ? undefined : (first?.tenantColour ?? undefined);
}

/** `left`: names of the organisations that have removed the person. Their clients bring them here. */
function noChoice(c: HttpContext, person: string, left: readonly string[], switchUrl: string): Promise<Response> {
  const isRemoved = left.length > 0;
  const why = isRemoved
    ? `${person} is no longer a member of ${left.join(", ")}. Ask an administrator there`
    : `${person} may use the tools of no organisation here. Ask an administrator of your organisation`;
  return errorPage(c, {
    ...{ title: isRemoved ? "You are no longer a member" : "No organisation for this account", status: 403 },
    text: `${why} for an invitation, or use another account.`,
    link: { url: switchUrl, text: "Use another account" },
  });
}

/** POST /oauth/consent: what the person has decided. */
export async function answerConsent(c: HttpContext): Promise<Response> {
  if (!isOwn(c)) return foreignForm(c);
  const form = new URLSearchParams(await c.req.text());
  const handle = form.get("handle") ?? "";
  const current = await signedIn(c);
  if (current === undefined) return ended(c, "Your session has ended.");
  if (!(await isBound(form.get("binding") ?? "", handle, current.token)))
    return ended(c, "You have signed in again since this page was shown.");
  const { issuer, subject } = current.session;
  actAs(c, { kind: "person", issuer, subject });
  if (form.get("decision") !== "allow") return deny(c, handle);
  const memberships = await membersStore(c.get("context").control).ofIdentity(current.session);
  const choice = choicesOf(memberships).find(({ tenantId }) => tenantId === form.get("tenant"));
  if (choice === undefined) return ended(c, "You are no member of this organisation any more.");
  const { tenantId, memberId: id, role, offered } = choice;
  actAs(c, { kind: "member", tenantId, id, role, through: "session" });
  const scopes = [...choice.scopes, ...offered.filter((scope) => form.get(scope) === TICKED)];
  if (scopes.length === 0) return ended(c, "You have ticked nothing that the client may do.");
  const to = await allow(c, handle, { ...choice, scopes }, current.session.signedInAtMs);
  return to === undefined ? usedUp(c) : leave(c, to, "Access granted");
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Grants access. Returns where the client waits, or `undefined` for a page that is not good any more. */
async function allow(
  c: HttpContext,
  handle: string,
  { tenantId, memberId, scopes }: Membership & { scopes: readonly string[] },
  signedInAtMs: number,
): Promise<string | undefined> {
  const context = c.get("context");
  const env = oauthEnv(context);
  const api = oauthServer(c.env).getOAuthApi(env);
  const ports = { registry: (name: string) => context.oauthRegistry(name), now: () => Date.now(), wait: pause };
  try {
    return await submitOnce(ports, handle, async () => {
      const submitted = libraryRequest(c, oauthPaths.consent, "POST");
      const { request } = await api.approveConsent(submitted, handle, { scope: [...scopes] });
      // The page has offered no other tenant on a tenant's host.
      if (!isResourceOf(c.env, resourceOfRequest(request), tenantId))
        throw new AuthorizationError("invalid_target", { description: "The resource is another tenant's" });
      // A client's document that cannot be read now costs only the name.
      noteAct(c, { tenantId, target: request.clientId, detail: { decision: "allowed" } });
      const { clientName } = await api.describeConsent(request).catch(() => ({ clientName: request.clientId }));
      const to = await grantAccess(
        {
          ...{ env, site: c.env, credentialKey: c.env.CREDENTIAL_KEY },
          extend: async (name, key, expiresAtMs) => context.oauthRegistry(name).extend(key, expiresAtMs),
        },
        { request, clientName, tenantId, memberId, scopes, signedInAtMs },
      );
      log("info", "oauth_access_granted", { tenantId, memberId });
      return to;
    });
  } catch (error) {
    if (error instanceof AuthorizationError) return undefined;
    throw error;
  }
}

async function deny(c: HttpContext, handle: string): Promise<Response> {
  const api = oauthServer(c.env).getOAuthApi(oauthEnv(c.get("context")));
  try {
    const { redirectTo, headers } = await api.denyConsent(libraryRequest(c, oauthPaths.consent, "POST"), handle);
    noteAct(c, { detail: { decision: "denied" } });
    return await leave(c, redirectTo, "Access refused", cookiesOf(headers));
  } catch (error) {
    if (error instanceof AuthorizationError) return usedUp(c);
    throw error;
  }
}

/** Sends the browser on to the client. */
function leave(c: HttpContext, to: string, title: string, cookies: readonly string[] = []): Promise<Response> {
  return personalPage(
    c,
    { title, continuesAt: to, cookies },
    <div class="narrow">
      <p>You can return to your client. If it does not continue by itself, follow the link.</p>
      <p class="actions">
        <a class="button" href={to}>
          Continue
        </a>
      </p>
    </div>,
  );
}

function usedUp(c: HttpContext): Promise<Response> {
  return errorPage(c, {
    ...{ title: "This page is not valid any more", status: 400 },
    text: "It was used already, or is older than ten minutes. If your client is not connected, start again from there.",
  });
}

/** A consent page that does not fit to the session any more. */
function ended(c: HttpContext, why: string): Promise<Response> {
  return errorPage(c, {
    ...{ title: "This page is not valid any more", status: 400 },
    text: `${why} Nothing was granted. Start again from your client.`,
  });
}
