// The HTTP endpoints of one imitated provider: discovery, sign-in, tokens, userinfo, registration and logout.
import { type Context, Hono } from "hono";
import { getCookie, setCookie } from "hono/cookie";
import { cors } from "hono/cors";
import { type Session, answerVisit, successLocation } from "./authorization.ts";
import {
  type Client,
  type OAuthError,
  Registration,
  authenticateClient,
  readParameters,
  registrationProblem,
} from "./clients.ts";
import { ACCESS_LIFETIME_MS, BoundedMap, type Grant, Grants, type LiveGrant, randomToken } from "./grants.ts";
import { ID_JAG, ID_JAG_LIFETIME_S, ID_JAG_TYPE, TOKEN_EXCHANGE, assertionClaims } from "./id-jag.ts";
import { PAGE_POLICY, noticePage, signInPage } from "./pages.ts";
import type { People } from "./people.ts";
import { type Identity, type Provider, metadataOf } from "./provider.ts";

/** As long as a working session: a demonstration signs in once. */
const SESSION_LIFETIME_S = 3_600;
/** Registrations are open, so their number has a bound; the oldest ones go. */
const MAX_CLIENTS = 1_000;

/** Signs a JWT with the issuer's key. `typ` is its header's; `undefined` leaves it out. */
export type Sign = (claims: Record<string, unknown>, typ: string | undefined) => Promise<string>;

export interface ProviderOptions {
  provider: Provider;
  people: People;
  /** Clients that exist from the start, by id. */
  clients: ReadonlyMap<string, Client>;
  sign: Sign;
  /** The key set, as the keys endpoint sends it. */
  keySet: unknown;
  /** Milliseconds since 1970. */
  clock: () => number;
}

/** Browsers on this machine may use the endpoints that need no cookie, as web clients such as Inspector do. */
const sharesWithLoopback = cors({
  origin: (origin) => (/^http:\/\/(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/.test(origin) ? origin : undefined),
  allowHeaders: ["authorization", "content-type", "mcp-protocol-version"],
});

/** The application of one provider. Its paths are those of `endpoints`, and OIDC discovery below the issuer. */
export function providerApp(options: ProviderOptions): Hono {
  const { provider, people, clients, sign, clock } = options;
  const paths = provider.endpoints;
  const grants = new Grants();
  const sessions = new BoundedMap<Session>();
  const registered = new BoundedMap<Client>(MAX_CLIENTS);
  const findClient = (id: string): Client | undefined => clients.get(id) ?? registered.get(id);
  const nowS = (): number => Math.floor(clock() / 1_000);
  const cookie = `local_issuer_${provider.name}`;
  const app = new Hono();

  const SERVER_METADATA = "/.well-known/oauth-authorization-server";
  const open = [paths.discovery, `${SERVER_METADATA}/*`, paths.token, paths.userinfo, paths.keys, paths.register];
  for (const path of open) {
    if (path !== undefined) app.use(path, sharesWithLoopback);
  }

  const serveMetadata = (c: Context): Response => {
    const directory = c.req.param("directory");
    if (!provider.hasDirectory(directory, people.all()))
      return c.json(
        { error: "invalid_tenant", error_description: `AADSTS90002: Tenant '${directory}' not found.` },
        400,
      );
    return c.json(metadataOf(provider, directory));
  };
  app.get(paths.discovery, serveMetadata);
  if (provider.hasServerMetadata) app.get(SERVER_METADATA, serveMetadata);
  app.get(paths.keys, (c) => c.json(options.keySet as object));

  app.on(["GET", "POST"], paths.authorize, async (c) => {
    const { search, searchParams } = new URL(c.req.url);
    const form = c.req.method === "POST" ? new URLSearchParams(await c.req.text()) : undefined;
    const sub = form?.get("sub") ?? undefined;
    // OIDC Core, section 3.1.2.1: a request may also come as a form. Ours has a person in its form.
    const parameters = form === undefined || sub !== undefined ? searchParams : form;
    hardenPage(c);
    // Only our own page signs a person in. Origin cannot tell, because the page sends no referrer.
    if (sub !== undefined && (c.req.header("sec-fetch-site") ?? "same-origin") !== "same-origin")
      return c.html(noticePage(provider.name, "Sign-in failed", "The form is not from this page."), 403);
    const session = sessions.get(getCookie(c, cookie) ?? "");
    const answer = answerVisit({
      provider,
      directory: c.req.param("directory"),
      parameters,
      findClient,
      people: people.all(),
      session: session !== undefined && nowS() - session.authTimeS < SESSION_LIFETIME_S ? session : undefined,
      pick: sub === undefined ? undefined : { sub, organisation: form?.get("organisation") ?? undefined },
      nowS: nowS(),
    });
    if (answer.kind === "page") return c.html(noticePage(provider.name, answer.title, answer.message), 400);
    // After a form, 303 makes the browser continue with GET.
    if (answer.kind === "error") return c.redirect(answer.location, 303);
    if (answer.kind === "sign-in") {
      const { request, choices } = answer;
      const query = form === undefined ? search.slice(1) : parameters.toString();
      return c.html(signInPage({ provider: provider.name, request, choices, query }));
    }
    const { request, identity, authTimeS } = answer;
    if (sub !== undefined) startSession(c, { sub, organisation: identity.organisation, authTimeS });
    const grant: Grant = {
      clientId: request.client.id,
      sub: identity.person.sub,
      organisation: identity.organisation,
      scopes: provider.grantScopes(request, identity.person),
      audience: request.grantedAudience,
      nonce: request.nonce,
      authTimeS,
      hasMaxAge: request.maxAgeS !== undefined,
    };
    const code = grants.issueCode(grant, request, clock());
    return c.redirect(successLocation(provider, request, code, provider.issuer(identity.organisation)), 303);
  });

  function startSession(c: Context, session: Session): void {
    const id = randomToken();
    sessions.set(id, session);
    const path = new URL(provider.setting.baseUrl).pathname;
    setCookie(c, cookie, id, { path, httpOnly: true, sameSite: "Lax", maxAge: SESSION_LIFETIME_S });
  }

  app.post(paths.token, async (c) => {
    c.header("cache-control", "no-store");
    const fail = (refused: OAuthError, usedHeader = false): Response => {
      const status = refused.error === "invalid_client" ? 401 : 400;
      if (status === 401 && usedHeader) c.header("www-authenticate", 'Basic realm="token"');
      return c.json({ error: refused.error, error_description: refused.description }, status);
    };
    if (!isForm(c)) return fail({ error: "invalid_request", description: "the body is not a form" });
    const form = new URLSearchParams(await c.req.text());
    const { values, twice } = readParameters(form);
    if (twice.length > 0)
      return fail({ error: "invalid_request", description: `${twice.join(" and ")} is there twice` });
    const authenticated = authenticateClient(c.req.header("authorization"), values, findClient);
    if ("refused" in authenticated) return fail(authenticated.refused, authenticated.usedHeader);
    const { client } = authenticated;
    const problem = provider.resourceProblem(form.getAll("resource").filter((resource) => resource !== ""));
    if (problem !== undefined) return fail(problem);

    const grantType = values.get("grant_type");
    if (grantType === "authorization_code") {
      const code = values.get("code");
      if (code === undefined) return fail({ error: "invalid_request", description: "code is missing" });
      const redirectUri = values.get("redirect_uri");
      const verifier = values.get("code_verifier");
      const redeemed = grants.redeemCode({ code, clientId: client.id, redirectUri, verifier }, clock());
      if ("refused" in redeemed) return fail(redeemed.refused);
      return await answerTokens(c, client, redeemed.grant, { scopes: redeemed.grant.scopes, isFirst: true }, fail);
    }
    if (grantType === "refresh_token") {
      const token = values.get("refresh_token");
      if (token === undefined) return fail({ error: "invalid_request", description: "refresh_token is missing" });
      const scopes = values
        .get("scope")
        ?.split(" ")
        .filter(Boolean)
        .map((scope) => provider.scopeInGrant(scope));
      const redeemed = grants.redeemRefreshToken({ token, clientId: client.id, scopes }, clock());
      if ("refused" in redeemed) return fail(redeemed.refused);
      const { grant } = redeemed;
      return await answerTokens(c, client, grant, { scopes: redeemed.scopes ?? grant.scopes, isFirst: false }, fail);
    }
    if (grantType === TOKEN_EXCHANGE) {
      const issuer = provider.issuer(c.req.param("directory"));
      const { id: clientId, idElsewhere } = client;
      const setting = { issuer, keySet: options.keySet, clientId, idElsewhere, nowS: nowS() };
      const exchanged = await assertionClaims(values, setting);
      if ("refused" in exchanged) return fail(exchanged.refused);
      return c.json({
        access_token: await sign(exchanged.claims, ID_JAG_TYPE),
        issued_token_type: ID_JAG,
        token_type: "N_A",
        expires_in: ID_JAG_LIFETIME_S,
      });
    }
    if (grantType === undefined) return fail({ error: "invalid_request", description: "grant_type is missing" });
    return fail({ error: "unsupported_grant_type", description: `${grantType} is not supported` });
  });

  async function answerTokens(
    c: Context,
    client: Client,
    grant: LiveGrant,
    { scopes, isFirst }: { scopes: readonly string[]; isFirst: boolean },
    fail: (refused: OAuthError) => Response,
  ): Promise<Response> {
    const identity = identityOf(grant);
    if (identity === undefined) return fail({ error: "invalid_grant", description: "this person does not exist now" });
    const problem = provider.directoryProblem(c.req.param("directory"), grant.organisation);
    if (problem !== undefined) return fail(problem);
    const narrowed = { ...grant, scopes };
    const stamp = {
      nowS: nowS(),
      lifetimeS: ACCESS_LIFETIME_MS / 1_000,
      id: crypto.randomUUID(),
      nonce: isFirst ? grant.nonce : undefined,
    };
    const access = provider.accessToken(narrowed, identity, stamp);
    const accessToken = access === "opaque" ? randomToken() : await sign(access.claims, access.typ);
    grants.addAccessToken(accessToken, grant, scopes, clock());
    return c.json({
      access_token: accessToken,
      token_type: "Bearer",
      expires_in: stamp.lifetimeS,
      scope: scopes.join(" "),
      ...(client.refreshes &&
        provider.givesRefreshToken(grant.scopes) && { refresh_token: grants.issueRefreshToken(grant, clock()) }),
      ...(scopes.includes("openid") && { id_token: await sign(provider.idToken(narrowed, identity, stamp), "JWT") }),
    });
  }

  function identityOf({ sub, organisation }: Grant): Identity | undefined {
    const person = people.find(sub);
    return person && { person, organisation };
  }

  app.on(["GET", "POST"], paths.userinfo, (c) => {
    const token = /^Bearer (?<token>\S+)$/i.exec(c.req.header("authorization") ?? "")?.groups?.["token"];
    const grant = token === undefined ? undefined : grants.findByAccessToken(token, clock());
    const identity = grant && identityOf(grant);
    if (grant === undefined || identity === undefined) {
      const error = token === undefined ? "" : ' error="invalid_token"';
      c.header("www-authenticate", `Bearer${error}`);
      return c.json(
        { error: "invalid_token", error_description: "the access token is unknown, expired or revoked" },
        401,
      );
    }
    return c.json(provider.userInfo(grant, identity));
  });

  if (paths.register !== undefined) {
    app.post(paths.register, async (c) => {
      const { data, error } = Registration.safeParse(await c.req.json());
      const problem =
        error === undefined
          ? registrationProblem(data)
          : { error: "invalid_client_metadata", description: error.issues[0]?.message ?? "not readable" };
      if (data === undefined || problem !== undefined)
        return c.json({ error: problem?.error, error_description: problem?.description }, 400);
      const isPublic = data.token_endpoint_auth_method === "none";
      const client: Client = {
        id: crypto.randomUUID(),
        name: data.client_name ?? "A client without a name",
        secret: isPublic ? undefined : randomToken(),
        redirectUris: data.redirect_uris,
        refreshes: data.grant_types.includes("refresh_token"),
        ...(data.audience_client_id !== undefined && { idElsewhere: data.audience_client_id }),
      };
      registered.set(client.id, client);
      c.header("cache-control", "no-store");
      return c.json(
        {
          client_id: client.id,
          client_id_issued_at: nowS(),
          client_name: client.name,
          redirect_uris: client.redirectUris,
          token_endpoint_auth_method: data.token_endpoint_auth_method,
          grant_types: ["authorization_code", ...(client.refreshes ? ["refresh_token"] : [])],
          response_types: ["code"],
          ...(client.secret !== undefined && { client_secret: client.secret, client_secret_expires_at: 0 }),
        },
        201,
      );
    });
  }

  app.on(["GET", "POST"], paths.logout, (c) => {
    sessions.delete(getCookie(c, cookie) ?? "");
    hardenPage(c);
    return c.html(noticePage(provider.name, "Signed out", "The next sign-in asks for a person again."));
  });

  return app;
}

function hardenPage(c: Context): void {
  c.header("content-security-policy", PAGE_POLICY);
  c.header("cache-control", "no-store");
  c.header("referrer-policy", "no-referrer");
  c.header("x-content-type-options", "nosniff");
}

/** Whether a request has a form as its body. */
export function isForm(c: Context): boolean {
  return c.req.header("content-type")?.toLowerCase().startsWith("application/x-www-form-urlencoded") ?? false;
}
