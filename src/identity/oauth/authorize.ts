// One authorization at the OAuth server, without its pages: what a client's request asks for, and the code that it gets once a
// member has agreed.
//
// Invariants: a browser is sent to a redirect URI only after the client and the URI are proven; every other error is a page. A
// grant is for one member of one tenant. The registration of a client that a member has let in lives on.
import { type AuthRequest, AuthorizationError, CimdFetchError } from "@cloudflare/workers-oauth-provider";
import type { TenantId } from "../../core/tenant/tenant.ts";
import { describeError, log } from "../../log.ts";
import { isPrivateClientUrl } from "./client-url.ts";
import type { Site } from "../tokens/tenant-hosts.ts";
import { placeOfKey } from "./keys.ts";
import {
  type GrantMetadata,
  type GrantProps,
  type OauthEnv,
  REGISTRATION_MS,
  isWrongDocument,
  mintSubject,
  oauthPaths,
  oauthServer,
  withResource,
} from "./server.ts";

/** What a consent page says about a client. All texts but `domain` and `redirectHost` are the client's own claims. */
export interface AskingClient {
  id: string;
  name: string;
  /** The domain that publishes the client's metadata document. `undefined`: the client registered itself, unverified. */
  domain: string | undefined;
  /** Where the code goes. */
  redirectHost: string;
  /** The code goes to a program on the user's own machine, and any program there can ask. */
  isLocal: boolean;
}

export type Authorization =
  | { kind: "asks"; request: AuthRequest; client: AskingClient }
  /** The request is wrong, and its sender is proven: the client reads the error at its redirect URI. */
  | { kind: "redirect"; to: string }
  /** The request is wrong, and its sender is not proven: only a page may say so. `detail` has no text of the request. */
  | { kind: "refused"; reason: "bad_request" | "client_unreadable"; detail: string };

/** Reads an authorization request. `query`: that of its URL. Throws when the storage fails. */
export async function readAuthorization(site: Site, query: string, env: OauthEnv): Promise<Authorization> {
  if (isPrivateClientUrl(new URLSearchParams(query).get("client_id") ?? ""))
    return { kind: "refused", reason: "bad_request", detail: "The client's own description is at no public address." };
  // The library compares the address with its own, also where a proxy stands in front.
  const url = `${site.PUBLIC_URL}${oauthPaths.authorize}?${withResource(query, site)}`;
  const api = oauthServer(site).getOAuthApi(env);
  try {
    const request = await api.parseAuthRequest(new Request(url));
    const { clientId: id, clientName: name, clientDomain: domain, ...described } = await api.describeConsent(request);
    const client = {
      id,
      name: shortName(name),
      domain,
      redirectHost: described.redirectHost,
      isLocal: described.redirectIsLoopback,
    };
    return { kind: "asks", request, client };
  } catch (error) {
    if (error instanceof CimdFetchError) {
      const isWrong = isWrongDocument(error.detail);
      log("info", "oauth_client_unreadable", { reason: error.reason, isWrong });
      return isWrong
        ? { kind: "refused", reason: "bad_request", detail: "The client's own description is wrong, or is gone." }
        : { kind: "refused", reason: "client_unreadable", detail: "The client's own description cannot be read." };
    }
    if (!(error instanceof AuthorizationError)) throw error;
    log("info", "oauth_authorization_refused", { code: error.code, detail: describeError(error) });
    return error.redirectTo === undefined
      ? { kind: "refused", reason: "bad_request", detail: error.description }
      : { kind: "redirect", to: error.redirectTo };
  }
}

/** The query of an authorization request, to ask for the same again. */
export function queryOf(request: AuthRequest): string {
  const { clientId, redirectUri, scope, state, codeChallenge, codeChallengeMethod, resource } = request;
  const fields = {
    ...{ response_type: request.responseType, client_id: clientId, redirect_uri: redirectUri },
    scope: scope.join(" "),
    ...{ state, code_challenge: codeChallenge, code_challenge_method: codeChallengeMethod, resource },
  };
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined && value !== "") query.set(name, value);
  }
  return query.toString();
}

/** Longest name of a client on a page. The client chooses it, and it must not push the rest out of sight. */
const MAX_CLIENT_NAME_CHARS = 100;

function shortName(name: string): string {
  return name.length > MAX_CLIENT_NAME_CHARS ? `${name.slice(0, MAX_CLIENT_NAME_CHARS)}…` : name;
}

export interface Consent {
  request: AuthRequest;
  clientName: string;
  tenantId: TenantId;
  memberId: string;
  /** All that the member may do, so that no client has to ask for more later: many cannot. */
  scopes: readonly string[];
  signedInAtMs: number;
}

export interface ConsentPorts {
  env: OauthEnv;
  site: Site;
  credentialKey: string;
  /** Prolongs an entry of the registry object with this name. */
  extend: (name: string, key: string, expiresAtMs: number) => Promise<void>;
}

/** Stores the grant of a member who agreed, in place of an earlier one for the same client. Returns where the browser goes. */
export async function grantAccess(
  { env, site, credentialKey, extend }: ConsentPorts,
  { request, clientName, tenantId, memberId, scopes, signedInAtMs }: Consent,
): Promise<string> {
  const key = `client:${request.clientId}`;
  const place = placeOfKey(key);
  // First, so that no grant is left whose client is forgotten the next day. A client with a document has no such entry.
  if (place?.in === "registry") await extend(place.name, key, env.now() + REGISTRATION_MS);
  const props: GrantProps = { memberId, signedInAtMs };
  const metadata: GrantMetadata = { clientName: shortName(clientName) };
  const { redirectTo } = await oauthServer(site)
    .getOAuthApi(env)
    .completeAuthorization({
      request,
      userId: await mintSubject(credentialKey, tenantId, memberId),
      metadata,
      scope: [...scopes],
      props,
    });
  return redirectTo;
}
