// The objects of the OAuth server without a platform: tenants and registries over SQLite in memory, reached with a copy of each
// value as by an RPC, and the steps of one sign-in as a client and a browser take them.
import { sha256Hex, toBase64Url } from "../../src/core/keys/credentials.ts";
import type { TenantId } from "../../src/core/tenant/tenant.ts";
import { RegistryEntries, type SqlPort } from "../../src/identity/oauth/entries.ts";
import { type Authorization, grantAccess, readAuthorization } from "../../src/identity/oauth/authorize.ts";
import { type PresentedToken, TenantGrants } from "../../src/identity/oauth/grants.ts";
import { partsOfToken } from "../../src/identity/oauth/keys.ts";
import { type EntriesPort, type RegistryPort, oauthKv } from "../../src/identity/oauth/kv.ts";
import {
  type AssertionPorts,
  type OauthAnswer,
  type OauthEnv,
  answerRegistration,
  answerTokenRequest,
  isGenuineSubject,
  oauthServer,
  tenantOfForm,
} from "../../src/identity/oauth/server.ts";
import { resourceOf } from "../../src/identity/tokens/tenant-hosts.ts";
import { sqlitePort } from "./sqlite-port.ts";

export const PUBLIC_URL = "https://tollgate.example";
/** A deployment in which the tenant `hosted` has a host of its own. */
export const site = { PUBLIC_URL, TENANT_HOSTS: JSON.stringify({ "hosted.example": "hosted" }) };
export const CREDENTIAL_KEY = "root-key-of-these-tests";
export const REDIRECT_URI = "https://client.example/callback";

/** Copies what crosses, and answers in a later turn. */
function byRpc(port: Partial<RegistryPort> & Partial<EntriesPort>, asked: () => void): EntriesPort & RegistryPort {
  const remote = async <Value>(work: () => Value | Promise<Value>): Promise<Value> => {
    asked();
    await new Promise((resolve) => setImmediate(resolve));
    return structuredClone(await work());
  };
  return {
    get: (key) => remote(() => port.get?.(key) ?? null),
    put: (key, entry) => remote(() => port.put?.(key, structuredClone(entry))),
    claim: (key, entry) => remote(() => port.claim?.(key, structuredClone(entry)) ?? null),
    delete: (key) => remote(() => port.delete?.(key)),
    list: (prefix, options) => remote(() => port.list?.(prefix, options) ?? { keys: [] }),
  };
}

export interface Tokens {
  access_token: string;
  refresh_token: string;
  scope: string;
  resource: string;
}

/** `assertions`: who may get tokens by assertions. */
export function oauthObjects({ assertions }: { assertions?: AssertionPorts } = {}) {
  const now = (): number => Date.now();
  const registries = new Map<string, RegistryEntries>();
  const tenants = new Map<TenantId, TenantGrants>();
  const former = new Set<string>();
  /** The tenants whose objects were asked, in order. */
  const asked: string[] = [];
  let registryFails = false;
  /** Entries that the tenants' objects have read from their storage. */
  let reads = 0;
  const countingPort = (): SqlPort => {
    const port = sqlitePort();
    return {
      exec: (query, ...bindings) => {
        if (query.startsWith("SELECT value")) reads += 1;
        return port.exec(query, ...bindings);
      },
    };
  };

  const entriesOf = (name: string): RegistryEntries => {
    const entries = registries.get(name) ?? new RegistryEntries(sqlitePort(), now);
    registries.set(name, entries);
    return entries;
  };
  const registry = (name: string): RegistryPort =>
    byRpc(entriesOf(name), () => {
      if (registryFails) throw new Error("the registry object is away");
    });
  let during = (): Promise<void> => Promise.resolve();
  const isMember = async (memberId: string): Promise<boolean> => {
    await during();
    return !former.has(memberId);
  };
  const tenant = (tenantId: TenantId): TenantGrants => {
    const known = tenants.get(tenantId);
    if (known !== undefined) return known;
    const options = { tenantId, sql: countingPort(), site, credentialKey: CREDENTIAL_KEY };
    const grants = new TenantGrants({ ...options, registry, isMember, now });
    tenants.set(tenantId, grants);
    return grants;
  };
  /** What the Worker has for one request. */
  const env = (): OauthEnv => ({
    OAUTH_KV: oauthKv({
      tenant: (tenantId) => byRpc(tenant(tenantId), () => asked.push(tenantId)),
      registry,
      isGenuine: (subject) => isGenuineSubject(CREDENTIAL_KEY, subject),
      now,
    }),
    isMember,
    now,
    credentialKey: CREDENTIAL_KEY,
    ...(assertions !== undefined && { assertions }),
  });

  /** A request to the token endpoint, as the Worker passes it on. */
  const token = async (fields: Record<string, string>, authorization: string | null = null): Promise<OauthAnswer> => {
    const body = new URLSearchParams(fields).toString();
    const request = { contentType: "application/x-www-form-urlencoded", authorization, body };
    const tenantId = await tenantOfForm(CREDENTIAL_KEY, body);
    if (tenantId === undefined) return answerTokenRequest(site, request, env());
    asked.push(tenantId);
    return structuredClone(await tenant(tenantId).answerToken(structuredClone(request)));
  };

  /** Registers a client without a secret. Returns its id. */
  const register = async (metadata: Record<string, unknown> = {}): Promise<string> => {
    const given = { client_name: "A client", redirect_uris: [REDIRECT_URI], token_endpoint_auth_method: "none" };
    const answer = await answerRegistration(site, JSON.stringify({ ...given, ...metadata }), env());
    if (answer.status !== 201) throw new Error(`registration: ${answer.status} ${answer.body}`);
    const { client_id: clientId } = JSON.parse(answer.body) as { client_id: string };
    return clientId;
  };

  /** A client's request as the browser brings it. A field that is set to `undefined` is left out. */
  const ask = (fields: Record<string, string | undefined>): Promise<Authorization> => {
    const sent = Object.entries(fields).filter((field): field is [string, string] => field[1] !== undefined);
    return readAuthorization(site, new URLSearchParams(sent).toString(), env());
  };
  const requestOf = async (clientId: string, { scope = "tools:read", resource = resourceOf(PUBLIC_URL) } = {}) => {
    const verifier = toBase64Url(crypto.getRandomValues(new Uint8Array(32)));
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
    const fields = {
      ...{ response_type: "code", client_id: clientId, redirect_uri: REDIRECT_URI, scope, state: "the state" },
      ...{ code_challenge: toBase64Url(new Uint8Array(digest)), code_challenge_method: "S256" },
      resource,
    };
    return { fields, verifier };
  };

  /** The browser's part: the member signs in, consents, and is sent back to the client with a code. */
  const authorize = async (
    clientId: string,
    { tenantId, memberId = "m1", resource }: { tenantId: TenantId; memberId?: string; resource?: string },
  ): Promise<{ code: string; verifier: string; redirect: URL }> => {
    const { fields, verifier } = await requestOf(clientId, resource === undefined ? {} : { resource });
    const read = await ask(fields);
    if (read.kind !== "asks") throw new Error(`authorization: ${JSON.stringify(read)}`);
    const api = oauthServer(site).getOAuthApi(env());
    const { handle, headers } = await api.beginConsent(read.request);
    const cookie = (headers.get("set-cookie") ?? "").split(";", 1)[0] ?? "";
    const submitted = new Request(PUBLIC_URL, { method: "POST", headers: { cookie } });
    const { request } = await api.approveConsent(submitted, handle);
    const redirectTo = await grantAccess(
      {
        ...{ env: env(), site, credentialKey: CREDENTIAL_KEY },
        extend: async (name, key, expiresAtMs) => entriesOf(name).extend(key, expiresAtMs),
      },
      { request, clientName: "A client", tenantId, memberId, scopes: ["tools:read"], signedInAtMs: now() },
    );
    const redirect = new URL(redirectTo);
    return { code: redirect.searchParams.get("code") ?? "", verifier, redirect };
  };

  const redeem = (
    clientId: string,
    { code, verifier }: { code: string; verifier: string },
    resource = resourceOf(PUBLIC_URL),
  ): Promise<OauthAnswer> =>
    token({
      ...{ grant_type: "authorization_code", client_id: clientId, code, code_verifier: verifier },
      ...{ redirect_uri: REDIRECT_URI, resource },
    });
  const refresh = (clientId: string, refreshToken: string): Promise<OauthAnswer> =>
    token({ grant_type: "refresh_token", client_id: clientId, refresh_token: refreshToken });

  return {
    ...{ tenant, env, token, register, ask, requestOf, authorize, redeem, refresh, asked },
    /** The whole way from registration to the first tokens. */
    async signIn(who: { tenantId: TenantId; memberId?: string }): Promise<{ clientId: string; tokens: Tokens }> {
      const clientId = await register();
      return { clientId, tokens: tokensOf(await redeem(clientId, await authorize(clientId, who))) };
    },
    removeMember(memberId: string): void {
      former.add(memberId);
    },
    /** Work to do in the middle of each refresh, after it has read the grant and before it writes it. */
    duringRefresh(work: () => Promise<void>): void {
      during = work;
    },
    readsNow: (): number => reads,
    failRegistries(): void {
      registryFails = true;
    },
  };
}

export function tokensOf({ status, body }: OauthAnswer): Tokens {
  if (status !== 200) throw new Error(`tokens: ${status} ${body}`);
  return JSON.parse(body) as Tokens;
}

/** The error code of an answer. */
export function errorOf({ body }: OauthAnswer): string {
  return (JSON.parse(body) as { error: string }).error;
}

/** An access token as the Worker hands it to the tenant's object. */
export async function presented(token: string): Promise<PresentedToken & { tenantId: TenantId }> {
  const parts = partsOfToken(token);
  if (parts === undefined) throw new Error("no token");
  return { ...parts, tokenHash: await sha256Hex(token) };
}
