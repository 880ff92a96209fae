// What an OAuth client may do on the routes of the account, on behalf of the member who has let it in. core/actor.ts has the
// permissions of each scope.
//
// Invariants: the tenant's object knows which tokens have ended, and is asked on every request. While it cannot be reached, the
// client is refused. A client that was let in for tools alone reads and changes nothing of the account.
import type { Context } from "../../control/context.ts";
import { type ClientGrant, type Permission, accountScopes, permissionsOfScope } from "../../core/actor.ts";
import type { Caller } from "../../core/call.ts";
import { AppError } from "../../core/errors.ts";
import { Problem } from "../../http.ts";
import type { ValidToken } from "./grants.ts";

/**
 * What a member has allowed the client that sends this token. Throws `token_invalid` for a token that has ended, `scope_missing`
 * for one that is for tools alone, and `tenant_unavailable` when the tenant's object does not answer.
 */
export async function clientGrant(
  context: Context,
  { tenantId, subject, grantId, tokenHash }: Extract<Caller, { kind: "grant" }>,
): Promise<ClientGrant> {
  let found: ValidToken | undefined;
  try {
    found = await context.tenantObject(tenantId).findGrant({ subject, grantId, tokenHash });
  } catch (error) {
    throw new AppError("tenant_unavailable", undefined, { cause: error });
  }
  if (found === undefined) throw new AppError("token_invalid");
  const { clientId, scopes } = found;
  if (!accountScopes.some((scope) => scopes.includes(scope)))
    throw new Problem("scope_missing", `The client needs one of the scopes ${accountScopes.join(", ")}.`);
  return { id: grantId, clientId, scopes: [...scopes] };
}

/** The refusal of a client whose member has the permission by their role. */
export function clientLacks(permission: Permission): Problem {
  const scope = accountScopes.find((each) => permissionsOfScope[each].includes(permission));
  return new Problem(
    "scope_missing",
    scope === undefined
      ? "No client can do this for a member. Sign in with a browser."
      : `The client needs the scope ${scope}. Sign in again and allow it.`,
  );
}
