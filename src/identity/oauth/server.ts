// Tollgate's own OAuth server, on the library that implements the protocol. This file has its options, what an answer looks
// like when something of ours fails, and the metadata documents. The library keeps no state: it gets its storage with each
// request (kv.ts).
//
// Invariants: the token endpoint never answers 4xx for a fault of Tollgate's or of the network, because a client then throws
// its registration or its refresh token away. One spelling of the resource is published; the same with a slash at its end is
// understood. No answer and no log line has a token, a code or a secret.
import { GrantType, OAuthAuthorizationServer, OAuthError } from "@cloudflare/workers-oauth-provider";
import * as z from "zod";
import { type TenantRole, accountScopes } from "../../core/actor.ts";
import { config } from "../../core/app-config.ts";
import { AppError } from "../../core/errors.ts";
import { mintCredential, verifyCredential } from "../../core/keys/credentials.ts";
import type { TenantId } from "../../core/tenant/tenant.ts";
import { DAY_MS, HOUR_MS } from "../../core/time.ts";
import { describeError, log } from "../../log.ts";
import { clientIdsOf, isPrivateClientUrl } from "./client-url.ts";
import { partsOfToken } from "./keys.ts";
import type { OauthKv } from "./kv.ts";
import { type Site, resourcesOf } from "../tokens/tenant-hosts.ts";

/** Paths of the server's endpoints. The library refuses an authorization request at any other path. */
export const oauthPaths = {
  authorize: "/oauth/authorize",
  consent: "/oauth/consent",
  register: "/oauth/register",
  token: "/oauth/token",
  revoke: "/oauth/revoke",
  metadata: "/.well-known/oauth-authorization-server",
  jwks: "/.well-known/jwks.json",
} as const;

/** One hour: clients renew their tokens badly, so they should not have to do it often. Revocation does not wait for it. */
const ACCESS_SECONDS = HOUR_MS / 1_000;
/** A grant that no client has renewed for so long ends. Each refresh starts the time anew. */
const IDLE_SECONDS = (30 * DAY_MS) / 1_000;
/** After this time the member signs in again at the provider, which knows whether the person still works there. */
const SIGN_IN_LIFE_MS = 90 * DAY_MS;
/** The library renews the registration of a client that uses its tokens. */
export const REGISTRATION_MS = 90 * DAY_MS;
/** Half of what an entry of the storage may have: the library adds names and digests. */
const MAX_REGISTRATION_CHARS = 8_192;
/** Cursor registers three. */
const MAX_REDIRECT_URIS = 20;
/** When a client may repeat a request that failed on our side. An object restarts in less. */
const RETRY_SECONDS = 5;

/** What a grant remembers of the sign-in. The library encrypts it; there is no secret in it. */
export const GrantProps = z.object({
  memberId: z.string(),
  /** When the member signed in at the provider. */
  signedInAtMs: z.int(),
});
export type GrantProps = z.infer<typeof GrantProps>;

/** What admins see of a grant. */
export const GrantMetadata = z.object({ clientName: z.string().optional() });
export type GrantMetadata = z.infer<typeof GrantMetadata>;

/** The library's user id of a member. It begins every code and token, and names their tenant by a MAC. */
export function mintSubject(credentialKey: string, tenantId: TenantId, memberId: string): Promise<string> {
  return mintCredential(credentialKey, { kind: "grant", tenantId, fields: [memberId] });
}

/** Whether Tollgate minted this subject. */
export async function isGenuineSubject(credentialKey: string, subject: string): Promise<boolean> {
  return (await verifyCredential(credentialKey, subject))?.kind === "grant";
}

/**
 * The tenant whose object answers a request to the token or revocation endpoint: that of the code or token in the form.
 * `undefined` when there is none that Tollgate can have made; no object needs to be asked then.
 */
export async function tenantOfForm(credentialKey: string, body: string): Promise<TenantId | undefined> {
  const form = new URLSearchParams(body);
  const field = tokenFields[form.get("grant_type") ?? "revocation"];
  const parts = field === undefined ? undefined : partsOfToken(form.get(field) ?? "");
  return parts !== undefined && (await isGenuineSubject(credentialKey, parts.subject)) ? parts.tenantId : undefined;
}

/** The field that holds the code or token, by grant type. */
const tokenFields: Readonly<Record<string, string>> = {
  authorization_code: "code",
  refresh_token: "refresh_token",
  revocation: "token",
};

/**
 * Who may get tokens by ID-JAG assertions (enterprise-managed authorization). Both throw when the control database is away; the
 * token endpoint then answers 503.
 */
export interface AssertionPorts {
  /** The address of an issuer's keys; `undefined`: no tenant takes the issuer's assertions. */
  keysOf(issuer: string): Promise<string | undefined>;
  /** The member whom an assertion names, with the scopes of the role; `undefined`: none, or more than one. */
  memberOf(claims: Readonly<Record<string, unknown>> & { iss: string }): Promise<AssertedMember | undefined>;
}

export interface AssertedMember {
  tenantId: TenantId;
  memberId: string;
  role: TenantRole;
  scopes: readonly string[];
}

/** What the library gets with each request. */
export interface OauthEnv {
  OAUTH_KV: OauthKv;
  /**
   * Whether the member may still use the tenant by a sign-in of this instant. Asked at each exchange of a code and each refresh.
   * Throws when it is not known.
   */
  isMember: (memberId: string, signedInAtMs: number) => boolean | Promise<boolean>;
  now: () => number;
  credentialKey?: string;
  /** `undefined`: this request gets no token by an assertion. */
  assertions?: AssertionPorts;
}

export type OauthServer = OAuthAuthorizationServer<OauthEnv>;

/** A request to the token endpoint, as plain data: it crosses an RPC. */
export interface TokenRequest {
  contentType: string;
  authorization: string | null;
  /** The form. */
  body: string;
}

export interface OauthAnswer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

let made: { site: Site; server: OauthServer } | undefined;

/** The server of a deployment. PUBLIC_URL is its issuer: an origin without a slash at its end. */
export function oauthServer({ PUBLIC_URL, TENANT_HOSTS }: Site): OauthServer {
  if (made?.site.PUBLIC_URL !== PUBLIC_URL || made.site.TENANT_HOSTS !== TENANT_HOSTS) {
    const site = { PUBLIC_URL, TENANT_HOSTS };
    made = { site, server: makeServer(site) };
  }
  return made.server;
}

function makeServer(site: Site): OauthServer {
  const resources = resourcesOf(site);
  return new OAuthAuthorizationServer<OauthEnv>({
    issuer: site.PUBLIC_URL,
    resources,
    // For a client that names none.
    defaultResource: resources[0],
    authorizeEndpoint: oauthPaths.authorize,
    tokenEndpoint: oauthPaths.token,
    clientRegistrationEndpoint: oauthPaths.register,
    scopesSupported: [...Object.keys(config.scopes), ...accountScopes],
    accessTokenTTL: ACCESS_SECONDS,
    refreshTokenTTL: IDLE_SECONDS,
    refreshTokenIdleTTL: IDLE_SECONDS,
    clientRegistrationTTL: REGISTRATION_MS / 1_000,
    clientIdMetadataDocumentEnabled: true,
    clientRegistrationCallback: ({ clientMetadata }) => {
      const { redirect_uris: uris } = clientMetadata;
      if (JSON.stringify(clientMetadata).length > MAX_REGISTRATION_CHARS)
        return { description: `The metadata has more than ${MAX_REGISTRATION_CHARS} characters.` };
      if (Array.isArray(uris) && uris.length > MAX_REDIRECT_URIS)
        return { description: `The client has more than ${MAX_REDIRECT_URIS} redirect URIs.` };
      return undefined;
    },
    tokenExchangeCallback: async ({ grantType, props, env }) => {
      if (grantType !== GrantType.REFRESH_TOKEN && grantType !== GrantType.AUTHORIZATION_CODE) return;
      const { memberId, signedInAtMs } = GrantProps.parse(props);
      // The library revokes the grant on `invalid_grant`, and the client then signs in again.
      if (!(await env.isMember(memberId, signedInAtMs)))
        throw new OAuthError("invalid_grant", { description: "The member has no access any more." });
      if (env.now() - signedInAtMs >= SIGN_IN_LIFE_MS)
        throw new OAuthError("invalid_grant", { description: "The sign-in is too old. Sign in again." });
    },
    enterpriseManagedAuthorization: {
      trustedIssuers: async ({ iss, env }) => {
        const jwksUri = await env.assertions?.keysOf(iss);
        return jwksUri === undefined ? null : { issuer: iss, jwksUri, algorithms: ["RS256", "ES256"] };
      },
      mapClaims: async ({ claims, clientInfo, resource, requestedScope, env: { assertions, credentialKey, now } }) => {
        // The library compares hosts without their case.
        if (claims.resource !== resource || assertions === undefined || credentialKey === undefined) return null;
        const member = await assertions.memberOf(claims);
        if (member === undefined) return null;
        const { tenantId, memberId } = member;
        const scope = member.scopes.filter((each) => requestedScope.length === 0 || requestedScope.includes(each));
        const props: GrantProps = { memberId, signedInAtMs: now() };
        const { clientName } = clientInfo;
        const metadata: GrantMetadata = clientName === undefined ? {} : { clientName: clientName.slice(0, 100) };
        return { userId: await mintSubject(credentialKey, tenantId, memberId), scope, props, metadata };
      },
    },
    onError: ({ code, status, internal: { category, reason, detail } }) => {
      // The library calls an assertion wrong when its issuer's keys could not be read, also if the network is at fault.
      const isOutage = isClientUnreachable(category, detail) || reason === "jwks_fetch_failed";
      log(status >= 500 || isOutage ? "error" : "info", "oauth_refused", { code, status, category, reason, isOutage });
      return isOutage ? tryAgain() : undefined;
    },
  });
}

const RefusalDetail = z.looseObject({ message: z.string().optional(), reason: z.string().optional() });

/**
 * Whether the library calls a client unknown because its metadata document or its keys could not be fetched. A client that reads
 * `invalid_client` throws its registration and its tokens away, so only a document that was read and is wrong is the client's fault.
 */
function isClientUnreachable(category: string, detail: unknown): boolean {
  const { message = "", reason } = RefusalDetail.safeParse(detail).data ?? {};
  if (category === "client-id-metadata-document") return !isWrongDocument(message);
  return category === "client-authentication" && reason === "jwks_fetch_failed";
}

/**
 * What the library says about a client's metadata document that is wrong in itself, or gone from its place. It has one class of
 * errors for these and for the network, so its words decide. Words that are not here count as the network's.
 */
const wrongDocument =
  /^Client metadata must be|^Client Identifier URL|^client_id ".*" does not match|^client_name is required|^redirect_uris is required|^CIMD |^Invalid |^jwks and jwks_uri|^private_key_jwt |must be included in|: HTTP (404|410)$/;

/** Whether a client's metadata document is at fault, by the library's words, and neither its host nor the network. */
export function isWrongDocument(words: string): boolean {
  return wrongDocument.test(words);
}

/** Answers the token or the revocation endpoint. Throws nothing: a fault of ours becomes a 503. */
export async function answerTokenRequest(
  site: Site,
  { contentType, authorization, body }: TokenRequest,
  env: OauthEnv,
): Promise<OauthAnswer> {
  if (clientIdsOf(authorization, body).some(isPrivateClientUrl)) return plain(unknownClient());
  const headers = new Headers({ "content-type": contentType });
  if (authorization !== null) headers.set("authorization", authorization);
  const request = new Request(site.PUBLIC_URL + oauthPaths.token, {
    method: "POST",
    headers,
    body: isForm(contentType) ? withResource(body, site) : body,
  });
  const { assertions, ...rest } = env;
  if (assertions === undefined) return answer(() => oauthServer(site).fetch(request, env, noExecution));
  // The library takes an outage of ours for an assertion that is not accepted.
  let failure: AppError | undefined;
  const noted = async <Value>(work: Promise<Value>): Promise<Value> =>
    work.catch((error: unknown) => {
      failure = new AppError("control_unavailable", undefined, { cause: error });
      throw error;
    });
  const watched: AssertionPorts = {
    keysOf: (issuer) => noted(assertions.keysOf(issuer)),
    memberOf: (claims) => noted(assertions.memberOf(claims)),
  };
  return answer(async () => {
    const response = await oauthServer(site).fetch(request, { ...rest, assertions: watched }, noExecution);
    if (failure !== undefined) throw failure;
    return response;
  });
}

/** Answers a registration of a client (RFC 7591). `body` is its JSON. Throws nothing. */
export async function answerRegistration(site: Site, body: string, env: OauthEnv): Promise<OauthAnswer> {
  const headers = { "content-type": "application/json" };
  const request = new Request(site.PUBLIC_URL + oauthPaths.register, { method: "POST", headers, body });
  return answer(() => oauthServer(site).fetch(request, env, noExecution));
}

/** The library's authorization server gets an execution context by its type and does not use it. */
const noExecution = {} as ExecutionContext;

async function answer(work: () => Promise<Response>): Promise<OauthAnswer> {
  let response: Response;
  try {
    response = await work();
  } catch (error) {
    log("error", "oauth_failed", { error: describeError(error) });
    response = tryAgain();
  }
  return plain(response);
}

/** The answer to a request that failed on our side. */
export function unavailable(): Promise<OauthAnswer> {
  return plain(tryAgain());
}

async function plain(response: Response): Promise<OauthAnswer> {
  return { status: response.status, headers: Object.fromEntries(response.headers), body: await response.text() };
}

function tryAgain(): Response {
  const body = { error: "temporarily_unavailable", error_description: "Try again shortly." };
  const headers = { "cache-control": "no-store", "retry-after": String(RETRY_SECONDS) };
  return Response.json(body, { status: 503, headers });
}

function unknownClient(): Response {
  const body = { error: "invalid_client", error_description: "Client not found" };
  return Response.json(body, { status: 401, headers: { "cache-control": "no-store" } });
}

function isForm(contentType: string): boolean {
  return contentType.split(";", 1)[0]?.trim().toLowerCase() === "application/x-www-form-urlencoded";
}

/**
 * The form or query with the resource in its published spelling. The library compares it byte for byte, and people and clients
 * add a slash to URLs. Another resource stays, and is refused.
 */
export function withResource(form: string, site: Site): string {
  const spellings = new Map(resourcesOf(site).map((resource) => [`${resource}/`, resource]));
  const fields = new URLSearchParams(form);
  const sent = fields.getAll("resource");
  if (!sent.some((each) => spellings.has(each))) return form;
  fields.delete("resource");
  for (const each of sent) fields.append("resource", spellings.get(each) ?? each);
  return fields.toString();
}

const Metadata = z.looseObject({ issuer: z.string() });

/**
 * The server's metadata. `oauth`: RFC 8414. `openid`: the same document with the fields that OpenID Connect's form requires,
 * for clients that read only that one. The server issues no ID tokens.
 */
export async function serverMetadata(site: Site, form: "oauth" | "openid"): Promise<Record<string, unknown>> {
  const { PUBLIC_URL: publicUrl } = site;
  const request = new Request(publicUrl + oauthPaths.metadata);
  const response = await oauthServer(site).fetch(request, withoutStorage, noExecution);
  const document = Metadata.parse(await response.json());
  return {
    ...document,
    revocation_endpoint: publicUrl + oauthPaths.revoke,
    service_documentation: config.product.supportUrl,
    op_policy_uri: config.product.privacyUrl,
    op_tos_uri: config.product.termsUrl,
    ...(form === "openid" && {
      jwks_uri: publicUrl + oauthPaths.jwks,
      subject_types_supported: ["public"],
      id_token_signing_alg_values_supported: ["RS256"],
    }),
  };
}

const refuse = (): Promise<never> => Promise.reject(new Error("the metadata needs no storage"));
const withoutStorage: OauthEnv = {
  OAUTH_KV: { get: refuse, put: refuse, delete: refuse, list: refuse },
  isMember: refuse,
  now: () => 0,
};
