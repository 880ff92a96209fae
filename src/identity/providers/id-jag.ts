// ID-JAG assertions (enterprise-managed authorization): an organisation's provider says that a client may act for one of its people, and
// the client gets a token without a browser. The library checks the assertion; this file decides whose word counts for whom.
//
// Invariants: only the issuer of a tenant's live provider counts, and only for people of that tenant who have signed in through this
// provider. Two tenants may name one issuer: an assertion that fits to members of both is refused.
import { scopesSupported } from "../tokens/authenticate.ts";
import { claimAt, isName } from "../tokens/claims.ts";
import type { Membership } from "../members/members-store.ts";
import { toolScopesOfRole } from "../members/members.ts";
import { identityIssuer } from "./providers.ts";
import type { StoredProvider } from "./providers-store.ts";
import { log } from "../../log.ts";
import type { AssertionPorts } from "../oauth/server.ts";

/** The grant type of RFC 7523. */
export const ASSERTION_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer";

export interface AssertionSources {
  /** The live providers that take assertions of this issuer, the newest settings first. */
  providers: (issuer: string) => Promise<readonly StoredProvider[]>;
  /** The live memberships of an identity. */
  memberships: (identity: { issuer: string; subject: string }) => Promise<readonly Membership[]>;
}

export function assertionPorts({ providers, memberships }: AssertionSources): AssertionPorts {
  return {
    async keysOf(issuer) {
      // All of them have read the address in the same document of the issuer.
      return (await providers(issuer))[0]?.jwksUrl;
    },
    async memberOf(claims) {
      const found: Membership[] = [];
      for (const { id, tenantId, subjectClaim } of await providers(claims.iss)) {
        const subject = claimAt(claims, subjectClaim);
        if (!isName(subject)) continue;
        const own = await memberships({ issuer: identityIssuer(tenantId, id), subject });
        found.push(...own.filter((each) => each.tenantId === tenantId));
      }
      const [member] = found;
      if (member === undefined || found.length > 1) {
        log("info", "assertion_refused", { members: found.length });
        return undefined;
      }
      const { tenantId, memberId, role } = member;
      const scopes = toolScopesOfRole(role, scopesSupported);
      return scopes.length === 0 ? undefined : { tenantId, memberId, role, scopes };
    },
  };
}
