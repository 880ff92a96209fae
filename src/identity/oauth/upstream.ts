// The sign-in of a person at their provider, by authorization code with PKCE and nonce (OpenID Connect Core, RFC 9700).
//
// Invariants: a code is sent only to the provider at which the sign-in began, and an answer that names another one is refused
// (RFC 9207). The ID token is for Tollgate's client, of this issuer, for this sign-in, and signed by one of its keys. Nothing
// of the client that waits for the person is sent to the provider. No token of the provider is kept.
import * as oauth from "oauth4webapi";
import { type JWTPayload } from "jose";
import * as z from "zod";
import type { Person } from "../../core/actor.ts";
import { PROVIDER_TIMEOUT_MS, fetchFromProvider } from "../../adapters/provider-http.ts";
import { BoundedMap } from "../../core/concurrency/bounded-map.ts";
import { MINUTE_MS } from "../../core/time.ts";
import { describeError, log } from "../../log.ts";
import { CLOCK_TOLERANCE_SECONDS, personOf } from "../tokens/claims.ts";
import { verifyToken } from "../tokens/issuer-keys.ts";
import { type Issuer, acceptedAlgorithms } from "../tokens/issuers.ts";
import { Discovered, type ProviderKind, documentProblem, isInDomains } from "../providers/providers.ts";

/** Where providers send people back to. */
export const CALLBACK_PATH = "/oauth/callback";

/** Providers change their endpoints rarely, and announce it. */
const DISCOVERED_FOR_MS = 10 * MINUTE_MS;
/** Some 5 KB each. A forgotten one is read again. */
const MAX_DISCOVERED = 500;

/** What a sign-in remembers until the person comes back. It is encrypted under the handle that the browser carries. */
export const Pending = z.object({
  /** The issuer of the deployment, or the name of a tenant's provider, at which the sign-in began. */
  issuer: z.string(),
  verifier: z.string(),
  nonce: z.string(),
  /** A path of a page, for a sign-in that no client waits for. */
  returnTo: z.string().optional(),
});
export type Pending = z.infer<typeof Pending>;

type NoPerson =
  /** The person or the provider said no. */
  | { kind: "denied" }
  /** The answer is not acceptable, or the provider is away. The log has the reason. */
  | { kind: "failed"; isOutage: boolean };
export type Outcome = { kind: "person"; person: Person } | NoPerson;

export interface UpstreamClient {
  issuer: Issuer;
  /** `undefined`: a public client. */
  secret: string | undefined;
  publicUrl: string;
  /** Where the provider sends people back to. Default: `CALLBACK_PATH`. */
  callbackPath?: string;
  /** A scope to ask for beside those that name the person. */
  scope?: string;
  /** A tenant has brought the provider. `undefined`: the operator has configured it. */
  own?: {
    kind: ProviderKind;
    /** The issuer in the identities of its people. */
    identityIssuer: string;
    /** E-mail domains that the tenant has proved. */
    domains: readonly string[];
  };
}

/** New secrets of one sign-in at this provider. */
export function newPending({ issuer, own }: Pick<UpstreamClient, "issuer" | "own">, returnTo?: string): Pending {
  return {
    issuer: own?.identityIssuer ?? issuer.issuer,
    verifier: oauth.generateRandomCodeVerifier(),
    nonce: oauth.generateRandomNonce(),
    ...(returnTo !== undefined && { returnTo }),
  };
}

/**
 * Where the browser goes to sign in. `choosesAccount`: the provider asks for the person even if it knows one. Returns `undefined`
 * when the provider cannot be reached; the log has the reason.
 */
export async function signInUrl(
  client: UpstreamClient,
  {
    pending,
    state,
    choosesAccount,
    nowMs,
  }: { pending: Pending; state: string; choosesAccount: boolean; nowMs: number },
): Promise<string | undefined> {
  const { issuer, scope } = client;
  const server = await discover(client, nowMs);
  if (server?.authorization_endpoint === undefined) return undefined;
  const url = new URL(server.authorization_endpoint);
  const parameters = {
    ...issuer.signInParameters,
    client_id: issuer.clientId ?? "",
    redirect_uri: redirectUri(client),
    response_type: "code",
    scope: ["openid profile email", ...(scope === undefined ? [] : [scope])].join(" "),
    state,
    nonce: pending.nonce,
    code_challenge: await oauth.calculatePKCECodeChallenge(pending.verifier),
    code_challenge_method: "S256",
    ...(choosesAccount && { prompt: "select_account" }),
  };
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  return url.href;
}

function redirectUri({ publicUrl, callbackPath = CALLBACK_PATH }: UpstreamClient): string {
  return publicUrl + callbackPath;
}

/** What the provider sent back: `query` is that of the callback. The caller has matched its `state` with the browser. */
interface ProviderAnswer {
  query: URLSearchParams;
  pending: Pending;
  nowMs: number;
}

/** Reads the person of the provider's answer. */
export async function readAnswer(upstream: UpstreamClient, answer: ProviderAnswer): Promise<Outcome> {
  const { issuer, own } = upstream;
  const read = await readSignIn(upstream, answer);
  if (read.kind !== "claims") return read;
  const person = own === undefined ? personOf(read.claims, issuer) : personOfOwn(read.claims, issuer, own);
  if (person === undefined) log("warn", "sign_in_refused", { issuer: issuer.issuer, reason: "no_user_claim" });
  return person === undefined ? { kind: "failed", isOutage: false } : { kind: "person", person };
}

/** Reads the verified claims of the provider's answer, and the scopes that it has granted. */
export async function readSignIn(
  upstream: UpstreamClient,
  { query, pending, nowMs }: ProviderAnswer,
): Promise<{ kind: "claims"; claims: JWTPayload; scopes: string[] } | NoPerson> {
  const { issuer, secret, scope } = upstream;
  const server = await discover(upstream, nowMs);
  if (server === undefined) return { kind: "failed", isOutage: true };
  const client: oauth.Client = { client_id: issuer.clientId ?? "", [oauth.clockTolerance]: CLOCK_TOLERANCE_SECONDS };
  try {
    const answer = oauth.validateAuthResponse(server, client, query, query.get("state") ?? oauth.expectNoState);
    const response = await oauth.authorizationCodeGrantRequest(
      server,
      client,
      authenticationOf(server, secret),
      answer,
      redirectUri(upstream),
      pending.verifier,
      requestOptions(issuer),
    );
    const tokens = await oauth.processAuthorizationCodeResponse(server, client, response, {
      expectedNonce: pending.nonce,
      requireIdToken: true,
    });
    const claims = await verifiedClaims(issuer, tokens.id_token ?? "", nowMs);
    // An answer that names no scopes has granted those that were asked for (RFC 6749, 5.1).
    return { kind: "claims", claims, scopes: (tokens.scope ?? scope ?? "").split(" ") };
  } catch (error) {
    return refusal(issuer, error);
  }
}

/**
 * The person as a tenant's provider names them: with an identity of that provider alone, and of no organisation. An address in a
 * domain that the tenant has proved counts where the provider does not say whether it is verified, as Entra does not.
 */
export function personOfOwn(
  claims: JWTPayload,
  issuer: Issuer,
  { identityIssuer, domains }: Pick<NonNullable<UpstreamClient["own"]>, "identityIssuer" | "domains">,
): Person | undefined {
  const person = personOf(claims, issuer);
  if (person === undefined) return undefined;
  const isSilent = claims["email_verified"] === undefined && claims["xms_edov"] === undefined;
  const emailVerified = person.emailVerified || (isSilent && isInDomains(person.email, domains));
  return { ...person, issuer: identityIssuer, emailVerified, organisation: null };
}

/**
 * The claims of the ID token, whose signature counts although it came from the provider directly: the token endpoint of a local
 * or misconfigured issuer may have no TLS.
 */
function verifiedClaims(issuer: Issuer, idToken: string, nowMs: number): Promise<JWTPayload> {
  return verifyToken(idToken, issuer.jwksUrl, {
    issuer: issuer.issuer,
    audience: issuer.clientId ?? "",
    algorithms: acceptedAlgorithms,
    requiredClaims: ["exp", "iat"],
    clockTolerance: CLOCK_TOLERANCE_SECONDS,
    currentDate: new Date(nowMs),
  });
}

function refusal(issuer: Issuer, error: unknown): NoPerson {
  if (error instanceof oauth.AuthorizationResponseError) {
    const code = error.error.slice(0, 60);
    log("info", "sign_in_denied", { issuer: issuer.issuer, code });
    if (code === "server_error" || code === "temporarily_unavailable") return { kind: "failed", isOutage: true };
    return { kind: "denied" };
  }
  const code = error instanceof oauth.ResponseBodyError ? error.error.slice(0, 60) : undefined;
  log("warn", "sign_in_refused", { issuer: issuer.issuer, code, reason: describeError(error) });
  const isAnswer = error instanceof oauth.ResponseBodyError && error.status < 500;
  return { kind: "failed", isOutage: !isAnswer && !(error instanceof oauth.OperationProcessingError) };
}

const discovered = new BoundedMap<string, { server: oauth.AuthorizationServer; untilMs: number }>(MAX_DISCOVERED);

/** The provider's endpoints. `undefined`: it cannot be reached, names another issuer, or is not acceptable any more. */
async function discover(client: UpstreamClient, nowMs: number): Promise<oauth.AuthorizationServer | undefined> {
  const { issuer, own, publicUrl } = client;
  const server = await discovery(issuer, nowMs);
  if (server === undefined || own === undefined) return server;
  // A tenant's provider may have changed its document since it was saved.
  const settings = { kind: own.kind, issuer: issuer.issuer };
  const problem = documentProblem(Discovered.parse(server), settings, publicUrl);
  if (problem === undefined) return server;
  log("warn", "provider_refused", { provider: own.identityIssuer, problem });
  return undefined;
}

/** OpenID Connect Discovery. The document is that of the issuer itself, so all who name the issuer can share it. */
async function discovery(issuer: Issuer, nowMs: number): Promise<oauth.AuthorizationServer | undefined> {
  const known = discovered.get(issuer.issuer);
  if (known !== undefined && nowMs < known.untilMs) return known.server;
  const identifier = new URL(issuer.issuer);
  try {
    const response = await oauth.discoveryRequest(identifier, { algorithm: "oidc", ...requestOptions(issuer) });
    const server = await oauth.processDiscoveryResponse(identifier, response);
    discovered.set(issuer.issuer, { server, untilMs: nowMs + DISCOVERED_FOR_MS });
    return server;
  } catch (error) {
    log("error", "issuer_not_discovered", { issuer: issuer.issuer, reason: describeError(error) });
    return undefined;
  }
}

/** `client_secret_post` where the provider takes it: the header's encoding of special characters differs between providers. */
function authenticationOf(server: oauth.AuthorizationServer, secret: string | undefined): oauth.ClientAuth {
  if (secret === undefined) return oauth.None();
  const methods = server.token_endpoint_auth_methods_supported ?? [];
  return methods.includes("client_secret_post") ? oauth.ClientSecretPost(secret) : oauth.ClientSecretBasic(secret);
}

/** An issuer without TLS is one that the operator has configured so, such as the local one. */
function requestOptions({ issuer }: Issuer) {
  return {
    signal: AbortSignal.timeout(PROVIDER_TIMEOUT_MS),
    [oauth.allowInsecureRequests]: issuer.startsWith("http:"),
    [oauth.customFetch]: fetchFromProvider,
  };
}
