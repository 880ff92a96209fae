// Tollgate's own client at the operator's issuer, with which the operator's people sign in to pages.
import type { OperatorEnv } from "./operators.ts";
import { OPERATOR_SCOPE, type OperatorIssuer, operatorSettings } from "./operators.ts";
import type { UpstreamClient } from "../oauth/upstream.ts";
import { clientSecret } from "../tokens/issuers.ts";

export const OPERATOR_CALLBACK_PATH = "/admin/sign-in/callback";

/**
 * The issuer in what a sign-in remembers. It is no address, so that no customer's sign-in passes for an operator's, or the other
 * way round, also where both use one issuer.
 */
export const OPERATOR_SIGN_IN = "operator";

/** The client with its settings; `undefined` when operators sign in otherwise. */
export function operatorClient(
  env: OperatorEnv & { OIDC_CLIENT_SECRETS?: string },
): { client: UpstreamClient; settings: OperatorIssuer } | undefined {
  const { issuer: settings } = operatorSettings(env);
  if (settings?.clientId === undefined) return undefined;
  const { issuer, jwksUrl, clientId, signInParameters } = settings;
  return {
    settings,
    client: {
      // Organisations and members mean nothing here.
      issuer: {
        ...{ issuer, jwksUrl, clientId, signInParameters, userClaim: "sub", tenantClaim: "org_id", clientIds: [] },
        ...{ linkNewTenants: false, linksMembers: false, verifiesEmails: false },
      },
      secret: clientSecret(env.OIDC_CLIENT_SECRETS, issuer),
      publicUrl: env.PUBLIC_URL,
      callbackPath: OPERATOR_CALLBACK_PATH,
      scope: OPERATOR_SCOPE,
    },
  };
}
