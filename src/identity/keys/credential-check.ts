// Decides from the tenant's configuration whether a verified caller's key or token still works. A key that the configuration
// does not list is revoked. A user whose organisation is not linked any more is unknown. A member who was removed is refused
// until a new invitation; a linked user who never was a member is not.
import { permissionsOfRole } from "../../core/actor.ts";
import type { Caller } from "../../core/call.ts";
import type { ErrorCode } from "../../core/errors.ts";
import type { ApiKey, TenantConfig } from "../../core/tenant/tenant.ts";

type Credentials = Pick<TenantConfig, "keys" | "links" | "members" | "removedMembers">;
type User = Extract<Caller, { kind: "user" }>;
export type ConfiguredMember = TenantConfig["members"][number];

/** Why this caller is refused at `nowMs`, or `undefined`. */
export function refusedCredential(config: Credentials, caller: Caller, nowMs: number): ErrorCode | undefined {
  switch (caller.kind) {
    case "key": {
      const key = keyOf(config, caller);
      if (key === undefined || key.hash !== caller.keyHash) return "key_revoked";
      if (key.memberId !== null && makerOf(config, caller) === undefined) return "key_revoked"; // a member's keys end with the member
      return key.expiresAtMs !== null && nowMs >= key.expiresAtMs ? "key_revoked" : undefined;
    }
    case "canary":
      return nowMs >= caller.expiresAtMs ? "token_expired" : undefined;
    // The tenant's object has looked a grant's token up, and the guard a session.
    case "grant":
    case "member":
      return config.members.some(({ id }) => id === caller.memberId) ? undefined : "member_removed";
    case "user":
      if (nowMs >= caller.expiresAtMs) return "token_expired";
      if (!isLinked(config, caller)) return "tenant_unknown";
      return config.removedMembers.some((each) => isSame(each, caller)) ? "member_removed" : undefined;
    default:
      return caller satisfies never;
  }
}

/** Whether what rests on a sign-in of this instant still counts: the provider of the sign-in was not removed since. */
export function countsSignIn(
  member: Pick<ConfiguredMember, "signInsSinceMs"> | undefined,
  signedInAtMs: number,
): boolean {
  const since = member?.signInsSinceMs ?? null;
  // The instant of a token is rounded down to the second, so that one from before never passes for a later one.
  return since === null || signedInAtMs > since;
}

/** The caller's API key; `undefined` for another kind of caller, and for a key that is not valid any more. */
export function keyOf({ keys }: Pick<TenantConfig, "keys">, caller: Caller): ApiKey | undefined {
  return caller.kind === "key" ? keys.find(({ id }) => id === caller.keyId) : undefined;
}

/** The member who calls. `undefined`: a key, Tollgate's own call, or a linked user without a membership. */
export function memberOf({ members }: Pick<TenantConfig, "members">, caller: Caller): ConfiguredMember | undefined {
  if (caller.kind === "grant" || caller.kind === "member") return members.find(({ id }) => id === caller.memberId);
  return caller.kind === "user" ? members.find((each) => isSame(each, caller)) : undefined;
}

/** The member who made the caller's API key. `undefined`: another kind of caller, or a key of the operator or the buyer. */
export function makerOf(config: Pick<TenantConfig, "keys" | "members">, caller: Caller): ConfiguredMember | undefined {
  const memberId = keyOf(config, caller)?.memberId ?? null;
  return memberId === null ? undefined : config.members.find(({ id }) => id === memberId);
}

/** Why the role of the caller, or of its key's maker, does not let it use tools. In force from the change of the role on. */
export function refusedToolUse(config: Pick<TenantConfig, "keys" | "members">, caller: Caller): ErrorCode | undefined {
  const member = memberOf(config, caller) ?? makerOf(config, caller);
  return member === undefined || permissionsOfRole[member.role].includes("tools:use") ? undefined : "role_missing";
}

function isLinked({ links }: Pick<TenantConfig, "links">, user: User): boolean {
  return links.some(({ issuer, organisation }) => issuer === user.issuer && organisation === user.organisation);
}

function isSame(member: { issuer: string | null; subject: string | null }, { issuer, subject }: User): boolean {
  return member.issuer === issuer && member.subject === subject;
}

/** The tools that the caller may call; `null`: every tool. */
export function allowedTools(config: TenantConfig, caller: Caller): readonly string[] | null {
  if (caller.kind === "canary") return ["health_check"];
  const ofTenant = config.allowedTools;
  const ofKey = keyOf(config, caller)?.tools ?? null;
  if (ofKey === null) return ofTenant;
  return ofTenant === null ? ofKey : ofKey.filter((tool) => ofTenant.includes(tool));
}
