// The local issuer: an OpenID provider with a sign-in page at its own URL, and imitations of Auth0, Cognito and Entra ID below
// `/auth0`, `/cognito` and `/entra`. `POST /token` with JSON signs any claims, for tests and scripts.
// Decides how short names become claims. Invariants: `iss` of signed claims is exactly the URL; tokens stay valid over
// restarts, because the key is stored; only the owner of the file can read the private key. All else is in memory.
import { Hono } from "hono";
import type { Context } from "hono";
import { bodyLimit } from "hono/body-limit";
import { calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, SignJWT } from "jose";
import type { CryptoKey, JWK } from "jose";
import { readFile, rename, writeFile } from "node:fs/promises";
import { z } from "zod";
import { serveOnLoopback } from "../loopback.ts";
import { type Auth0Quirks, auth0Provider } from "./auth0.ts";
import type { Client } from "./clients.ts";
import { type CognitoQuirks, cognitoProvider } from "./cognito.ts";
import { dnsApp } from "./dns.ts";
import { type EntraQuirks, entraProvider } from "./entra.ts";
import { People, type PersonInput } from "./people.ts";
import { publicIssuer } from "./public-names.ts";
import { type Sign, isForm, providerApp } from "./provider-app.ts";
import { type Setting, metadataOf, plainProvider } from "./provider.ts";

const ALGORITHM = "RS256";
const DEFAULT_LIFETIME_S = 3_600;
/** A larger token would not fit into a header. */
const MAX_BODY_BYTES = 64 * 1024;

/** Every claim passes through. Those listed here have a meaning of their own. */
const ClaimsRequest = z.looseObject({
  /** The first of these three becomes the claim `tenant_id`. */
  tenant_id: z.string().optional(),
  tenant: z.string().optional(),
  org_id: z.string().optional(),
  /** Becomes `sub`, and replaces a given `sub`. */
  user: z.string().optional(),
  sub: z.string().optional(),
  /** Each of these two becomes `scope`, separated by spaces. */
  scopes: z.array(z.string()).optional(),
  scope: z.string().optional(),
  /** Seconds from now. Negative for an expired token. */
  expiresIn: z.number().optional(),
  /** Seconds since 1970. */
  expiry: z.number().optional(),
  exp: z.number().optional(),
});
export type ClaimsRequest = z.input<typeof ClaimsRequest>;

export interface Issuer {
  url: string;
  jwksUrl: string;
  tokenUrl: string;
  /** The resolver of the customers' domains. */
  dnsUrl: string;
  /** The value of `iss` of each imitated provider. Entra has one for each directory, and `common`, which no token has. */
  issuers: { plain: string; auth0: string; cognito: string; entra: (directory: string) => string };
  /** The token that `POST /token` would give for these claims. Throws a ZodError when a claim has the wrong type. */
  sign(claims: ClaimsRequest): Promise<string>;
  /** The people who can sign in, at each provider. */
  people: People;
  close(): Promise<void>;
}

export interface IssuerOptions {
  /** 0 takes a free one. */
  port: number;
  /** Created if missing. */
  keyFile: string;
  /** The default `aud`, and the API that the providers know: the URL of the MCP endpoint. */
  audience: string;
  /** The scopes of this API. */
  scopes?: readonly string[];
  /** The operator's API: the audience of tokens with its scope, beside the usual one. */
  operator?: { audience: string; scope: string };
  people?: readonly PersonInput[];
  /** Clients that exist from the start, at each provider. Others register themselves, where the provider allows it. */
  clients?: readonly { id: string; name: string; secret?: string; redirectUris: readonly string[] }[];
  /** Settings of the imitated providers. */
  auth0?: Partial<Auth0Quirks>;
  cognito?: Partial<CognitoQuirks>;
  entra?: Partial<EntraQuirks>;
  log?: (line: string) => void;
  /** Milliseconds since 1970, for codes, sessions and their tokens. Default `Date.now`. */
  clock?: () => number;
}

/** Starts the issuer on 127.0.0.1. */
export async function startIssuer(options: IssuerOptions): Promise<Issuer> {
  const key = await keepKey(options.keyFile);
  const people = new People(options.people ?? []);
  // Providers need the URL, and the port is known only once the server listens. Requests wait until then.
  const { promise: ready, resolve: serve } = Promise.withResolvers<Hono>();
  const listening = await serveOnLoopback(async (request) => (await ready).fetch(request), options.port);
  const { url } = listening;

  const sign: Sign = (claims, typ) => {
    const header = { alg: ALGORITHM, kid: key.kid, ...(typ !== undefined && { typ }) };
    return new SignJWT(claims).setProtectedHeader(header).sign(key.privateKey);
  };
  const signClaims = async (request: unknown): Promise<{ token: string; expiresInS: number }> => {
    const nowS = Math.floor(Date.now() / 1_000);
    const claims = claimsOf(request, { iss: url, aud: options.audience, iat: nowS });
    // A scope belongs to an API, so a token with the operator's scope is for the operator's API, too.
    const { operator } = options;
    const scope = typeof claims["scope"] === "string" ? claims["scope"].split(" ") : [];
    const isOperators = operator !== undefined && scope.includes(operator.scope);
    if (isOperators && claims["aud"] === options.audience) claims["aud"] = [options.audience, operator.audience];
    return { token: await sign(claims, "JWT"), expiresInS: claims.exp - nowS };
  };
  const settingAt = (path: string): Setting => ({
    baseUrl: `${url}${path}`,
    audience: options.audience,
    scopes: options.scopes ?? [],
  });
  const plain = plainProvider({ ...settingAt(""), operator: options.operator });
  const auth0 = auth0Provider(settingAt("/auth0"), options.auth0);
  const cognito = cognitoProvider(settingAt("/cognito"), options.cognito);
  const entra = entraProvider(settingAt("/entra"), options.entra);

  const app = new Hono();
  app.use(bodyLimit({ maxSize: MAX_BODY_BYTES, onError: tooLarge }));
  app.post("/token", async (c, next) => {
    // curl sends a body as a form unless a header says otherwise. Claims begin with a brace, and no form does.
    if (isForm(c) && !(await c.req.text()).trimStart().startsWith("{")) return await next();
    const { token, expiresInS } = await signClaims(await c.req.json());
    return c.json({ access_token: token, token_type: "Bearer", expires_in: expiresInS });
  });
  app.route("/people", peopleApp(people));
  app.route("/dns", dnsApp());
  const clients = new Map(
    (options.clients ?? []).map(({ secret, ...client }): [string, Client] => [
      client.id,
      { ...client, secret, refreshes: true },
    ]),
  );
  const shared = { people, clients, sign, keySet: { keys: [key.publicJwk] }, clock: options.clock ?? Date.now };
  app.route("/", providerApp({ provider: plain, ...shared }));
  for (const provider of [auth0, cognito, entra]) {
    app.route(`/${provider.name}`, providerApp({ provider, ...shared }));
    // RFC 8414, section 3.1: the path of an issuer comes after the well-known part. Clients disagree about a last slash.
    for (const path of provider.hasServerMetadata ? [`/${provider.name}`, `/${provider.name}/`] : [])
      app.get(`/.well-known/oauth-authorization-server${path}`, (c) => c.json(metadataOf(provider, undefined)));
  }
  // A customer's provider at a public name of its own. Who sends a request there finds it here.
  const customers = new Map<string, Hono>();
  app.all("/idp/:name/*", (c) => {
    const name = c.req.param("name");
    const known = customers.get(name);
    const setting = { ...settingAt(""), baseUrl: publicIssuer(name) };
    const own = known ?? providerApp({ provider: plainProvider(setting), ...shared });
    customers.set(name, own);
    const inside = new URL(c.req.url);
    inside.pathname = inside.pathname.slice(`/idp/${name}`.length);
    return own.fetch(new Request(inside, c.req.raw));
  });
  app.notFound((c) => c.json({ error: "not_found", error_description: `${c.req.method} ${c.req.path}` }, 404));
  app.onError((error, c) => {
    const isMalformed = error instanceof SyntaxError || error instanceof z.ZodError;
    if (!isMalformed) options.log?.(`issuer: ${error.message}`);
    const [code, status] = isMalformed ? (["invalid_request", 400] as const) : (["server_error", 500] as const);
    const reason = error instanceof z.ZodError ? z.prettifyError(error) : error.message;
    return c.json({ error: code, error_description: reason }, status);
  });
  serve(app);

  return {
    url,
    jwksUrl: `${url}/.well-known/jwks.json`,
    tokenUrl: `${url}/token`,
    dnsUrl: `${url}/dns/query`,
    issuers: {
      plain: url,
      auth0: auth0.issuer(undefined),
      cognito: cognito.issuer(undefined),
      entra: (directory) => entra.issuer(directory),
    },
    people,
    sign: async (claims) => (await signClaims(claims)).token,
    close: () => listening.close(),
  };
}

/** The claims of a request, with the defaults of those that it lacks. */
function claimsOf(
  request: unknown,
  defaults: { iss: string; aud: string; iat: number },
): Record<string, unknown> & { exp: number } {
  const { user, scopes, expiresIn, expiry, ...claims } = ClaimsRequest.parse(request);
  const tenant = claims.tenant_id ?? claims.tenant ?? claims.org_id;
  const scope = scopes?.join(" ") ?? claims.scope;
  return {
    ...defaults,
    ...claims,
    sub: user ?? claims.sub ?? "user",
    exp: Math.floor(claims.exp ?? expiry ?? defaults.iat + (expiresIn ?? DEFAULT_LIFETIME_S)),
    ...(tenant !== undefined && { tenant_id: tenant }),
    ...(scope !== undefined && { scope }),
  };
}

/** Lets tests in other processes change the people: `GET /people`, and `PUT` and `DELETE /people/:sub`. */
function peopleApp(people: People): Hono {
  const app = new Hono();
  app.get("/", (c) => c.json({ people: people.all() }));
  app.put("/:sub", async (c) => {
    const body = z.looseObject({}).parse(await c.req.json());
    return c.json(people.put({ ...body, sub: c.req.param("sub") }));
  });
  app.delete("/:sub", (c) => {
    people.remove(c.req.param("sub"));
    return c.body(null, 204);
  });
  return app;
}

function tooLarge(c: Context): Response {
  return c.json({ error: "invalid_request", error_description: `more than ${MAX_BODY_BYTES} bytes` }, 413);
}

const PrivateJwk = z.looseObject({ kty: z.literal("RSA"), n: z.string(), e: z.string(), d: z.string() });

async function keepKey(file: string): Promise<{ kid: string; privateKey: CryptoKey | Uint8Array; publicJwk: JWK }> {
  const kept = await readFile(file, "utf8").catch(() => undefined);
  const text =
    kept ?? JSON.stringify(await exportJWK((await generateKeyPair(ALGORITHM, { extractable: true })).privateKey));
  if (kept === undefined) {
    // Replace the file in one step: after a kill, half a key would break every later start.
    await writeFile(`${file}.new`, text, { mode: 0o600, flush: true });
    await rename(`${file}.new`, file);
  }
  const jwk = PrivateJwk.parse(JSON.parse(text));
  const kid = await calculateJwkThumbprint(jwk);
  const publicJwk: JWK = { kty: jwk.kty, n: jwk.n, e: jwk.e, use: "sig", alg: ALGORITHM, kid };
  return { kid, privateKey: await importJWK(jwk, ALGORITHM), publicJwk };
}
