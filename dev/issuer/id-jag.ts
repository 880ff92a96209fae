// The exchange of an ID token for an ID-JAG assertion (RFC 8693, draft-ietf-oauth-identity-assertion-authz-grant): the provider says to
// another authorization server that a client of that server may act for the person. Decides what the assertion says.
// Invariants: the ID token is the provider's own, for the client that asks, and valid; the assertion names the same person.
import { type JSONWebKeySet, createLocalJWKSet, jwtVerify } from "jose";
import type { OAuthError } from "./clients.ts";

export const TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
export const ID_JAG = "urn:ietf:params:oauth:token-type:id-jag";
export const ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token";
/** `typ` of the assertion's header. */
export const ID_JAG_TYPE = "oauth-id-jag+jwt";
/** As long as the longest that Tollgate accepts. */
export const ID_JAG_LIFETIME_S = 300;

export interface ExchangeSetting {
  issuer: string;
  keySet: unknown;
  /** The client that asks. */
  clientId: string;
  /** Its id at the other server, if the provider knows it. A request can name another one. */
  idElsewhere?: string | undefined;
  nowS: number;
}

/** The claims of the assertion, or why there is none. `values`: the form. */
export async function assertionClaims(
  values: ReadonlyMap<string, string>,
  { issuer, keySet, clientId, idElsewhere, nowS }: ExchangeSetting,
): Promise<{ claims: Record<string, unknown> } | { refused: OAuthError }> {
  const refuse = (description: string): { refused: OAuthError } => ({
    refused: { error: "invalid_request", description },
  });
  if (values.get("requested_token_type") !== ID_JAG) return refuse(`requested_token_type is not ${ID_JAG}`);
  if (values.get("subject_token_type") !== ID_TOKEN) return refuse(`subject_token_type is not ${ID_TOKEN}`);
  const audience = values.get("audience");
  const otherClientId = values.get("audience_client_id") ?? idElsewhere;
  if (audience === undefined || otherClientId === undefined) return refuse("audience or audience_client_id is missing");
  const keys = createLocalJWKSet(keySet as JSONWebKeySet);
  const options = { issuer, audience: clientId, currentDate: new Date(nowS * 1_000) };
  const subject = await jwtVerify(values.get("subject_token") ?? "", keys, options).catch(() => undefined);
  if (subject === undefined) return { refused: { error: "invalid_grant", description: "the ID token is not valid" } };
  const [resource, scope] = [values.get("resource"), values.get("scope")];
  return {
    claims: {
      ...{ iss: issuer, sub: subject.payload.sub, aud: audience, client_id: otherClientId, jti: crypto.randomUUID() },
      ...{ iat: nowS, exp: nowS + ID_JAG_LIFETIME_S },
      ...(typeof subject.payload["email"] === "string" && { email: subject.payload["email"] }),
      ...(resource !== undefined && { resource }),
      ...(scope !== undefined && { scope }),
    },
  };
}
