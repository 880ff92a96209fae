// Decides from the tenant's configuration whether a verified caller's key or token still works. A key that the configuration
// does not list is revoked. A user whose organisation is not linked any more is unknown. A member who was removed is refused
// until a new invitation; a linked user who never was a member is not.
import { permissionsOfRole } from "../core/actor.ts";
import type { Caller } from "../core/call.ts";
import type { ErrorCode } from "../core/errors.ts";
import type { TenantConfig } from "../core/tenant.ts";

type Credentials = Pick<TenantConfig, "keys" | "links" | "members" | "removedMembers">;
type User = Extract<Caller, { kind: "user" }>;
export type ConfiguredMember = TenantConfig["members"][number];

/** Why this caller is refused at `nowMs`, or `undefined`. */
export function refusedCredential(config: Credentials, caller: Caller, nowMs: number): ErrorCode | undefined {
  switch (caller.kind) {
    case "key": {
      const key = config.keys.find((each) => each.id === caller.keyId);
      if (key === undefined || key.hash !== caller.keyHash) return "key_revoked";
      return key.expiresAtMs !== null && nowMs >= key.expiresAtMs ? "key_revoked" : undefined;
    }
    case "canary":
      return nowMs >= caller.expiresAtMs ? "token_expired" : undefined;
    case "user":
      if (nowMs >= caller.expiresAtMs) return "token_expired";
      if (!isLinked(config, caller)) return "tenant_unknown";
      return config.removedMembers.some((each) => isSame(each, caller)) ? "member_removed" : undefined;
    default:
      return caller satisfies never;
  }
}

/** The member who calls. `undefined`: a key, Tollgate's own call, or a linked user without a membership. */
export function memberOf({ members }: Pick<TenantConfig, "members">, caller: Caller): ConfiguredMember | undefined {
  return caller.kind === "user" ? members.find((each) => isSame(each, caller)) : undefined;
}

/** Why the caller's role does not let it use tools, or `undefined`. In force from the change of the role on. */
export function refusedToolUse(config: Pick<TenantConfig, "members">, caller: Caller): ErrorCode | undefined {
  const member = memberOf(config, caller);
  return member === undefined || permissionsOfRole[member.role].includes("tools:use") ? undefined : "role_missing";
}

function isLinked({ links }: Pick<TenantConfig, "links">, user: User): boolean {
  return links.some(({ issuer, organisation }) => issuer === user.issuer && organisation === user.organisation);
}

function isSame(member: { issuer: string | null; subject: string | null }, { issuer, subject }: User): boolean {
  return member.issuer === issuer && member.subject === subject;
}
