// Rules about a tenant's people: who may give which role, when the last owner stays, which sign-in becomes which member, and
// what an accepted invitation changes. Pure.
//
// Invariants: a role is given, changed or taken away only by an actor that has all of its permissions. A tenant whose owner has
// signed in keeps one who has. A verified address counts only where its issuer may speak for it.
import * as z from "zod";
import {
  type Permission,
  type TenantRole,
  covers,
  permissionsOfRole,
  rolesWith,
  tenantRoles,
} from "../../core/actor.ts";
import type { TenantId } from "../../core/tenant/tenant.ts";
import { DAY_MS } from "../../core/time.ts";
import type { Issuer } from "../tokens/issuers.ts";

/** How long an invitation can be accepted: a holiday week. */
export const INVITATION_LIFE_MS = 7 * DAY_MS;
/** The people of one tenant. Its object reads all of them with its configuration, some 150 bytes each. */
export const MAX_MEMBERS = 1_000;
/** Identities of one tenant, removed ones included, which its object refuses. Bounds the configuration's size. */
export const MAX_IDENTITIES = 3_000;
/** Open invitations of one tenant. */
export const MAX_OPEN_INVITATIONS = 100;
/** Invitations of one tenant in 24 hours. Each can be a mail in the operator's name to any address. */
export const MAX_INVITATIONS_A_DAY = 200;

/** An address as it is stored and compared. */
export const Email = z
  .email()
  .max(320)
  .transform((email) => email.toLowerCase());

export interface Member {
  id: string;
  role: TenantRole;
  /** Whether the person has signed in. */
  isBound: boolean;
}

/** Whether an actor with these permissions may give the role: it has every permission of the role. */
export function mayGive(own: readonly Permission[], role: TenantRole): boolean {
  return covers(own, permissionsOfRole[role]);
}

/** The roles that a member with this role may invite people to: none without the right to manage members. */
export function givableBy(role: TenantRole): TenantRole[] {
  const own = permissionsOfRole[role];
  return own.includes("members:manage") ? tenantRoles.filter((each) => mayGive(own, each)) : [];
}

/** Why a member may not get `role`, or be removed (`null`). `undefined`: the change is allowed. `others`: the tenant's other members. */
export function refusedChange(change: {
  own: readonly Permission[];
  member: Member;
  others: readonly Member[];
  role: TenantRole | null;
}): "role_missing" | "last_owner" | undefined {
  const { own, member, others, role } = change;
  if (!mayGive(own, member.role) || (role !== null && !mayGive(own, role))) return "role_missing";
  if (member.role !== "owner" || role === "owner" || !member.isBound) return undefined;
  return others.some((other) => other.role === "owner" && other.isBound) ? undefined : "last_owner";
}

/** What a route or tool needs, in words. */
export function rolesNeeded(permission: Permission): string {
  const roles = rolesWith(permission);
  return roles.length === 1 ? `It needs the role ${roles[0]}.` : `It needs one of the roles ${roles.join(", ")}.`;
}

/** The scopes of tools that a member with this role may use: all, or none. */
export function toolScopesOfRole(role: TenantRole, scopesSupported: readonly string[]): readonly string[] {
  return permissionsOfRole[role].includes("tools:use") ? scopesSupported : [];
}

/**
 * Whether a sign-in with this e-mail address makes its person the member who was invited or added under the address. An issuer that
 * does not verify addresses itself speaks for the tenant of the person's own organisation only: otherwise a customer's
 * directory could claim the address of another customer's member.
 */
export function mayBind(signIn: { emailVerified: boolean; verifiesEmails: boolean; isLinked: boolean }): boolean {
  return signIn.emailVerified && (signIn.verifiesEmails || signIn.isLinked);
}

/** An invitation never takes a right away from a member who accepts it. */
export function roleAfterAcceptance(current: TenantRole, invited: TenantRole): TenantRole {
  return covers(permissionsOfRole[invited], permissionsOfRole[current]) ? invited : current;
}

/**
 * What the acceptance of an invitation changes. `same`: the live member with the invitation's address. `own`: the live member
 * with the identity of the person who accepts.
 */
export type Acceptance =
  | { kind: "new" }
  /** The member gets the identity, if it has none, and the role. `superseded`: a row without identity that ends. */
  | { kind: "change"; memberId: string; expectedRole: TenantRole; role: TenantRole; superseded: string | null }
  /** The address belongs to another identity. */
  | { kind: "taken" };

export function acceptanceOf(
  invited: TenantRole,
  { own, same }: { own: Member | undefined; same: Member | undefined },
): Acceptance {
  const change = (row: Member, superseded: string | null): Acceptance => ({
    kind: "change",
    memberId: row.id,
    expectedRole: row.role,
    role: roleAfterAcceptance(row.role, invited),
    superseded,
  });
  if (own !== undefined) return change(own, same !== undefined && !same.isBound ? same.id : null);
  if (same === undefined) return { kind: "new" };
  return same.isBound ? { kind: "taken" } : change(same, null);
}

/** What the control tables say about a person who signs in. */
export interface SignInFacts {
  /** The tenant that the person's organisation is linked to. */
  linked: TenantId | null;
  /** The tenants of which the person is a member. */
  own: readonly TenantId[];
  /** The tenants that have removed the person. */
  removed: readonly TenantId[];
  /** Members with the person's address who have not signed in. */
  unbound: readonly { tenantId: TenantId; memberId: string }[];
  /** Invitations for the person's address that can be accepted. */
  invitations: readonly { tenantId: TenantId; id: string }[];
}

/** What a sign-in may do, by its provider. */
export interface SignInRules {
  /** Default: those of an issuer whose addresses count in the tenant of the organisation only. */
  rules: Pick<Issuer, "linksMembers" | "verifiesEmails">;
  /** The one tenant that the provider speaks for. `undefined`: those that its organisations are linked to. */
  speaksFor?: TenantId;
}

export type SignInAction =
  | { kind: "accept"; tenantId: TenantId; invitationId: string }
  | { kind: "bind"; tenantId: TenantId; memberId: string }
  /** Becomes a member with the role `member`. */
  | { kind: "join"; tenantId: TenantId };

/** What a sign-in changes: at most one action for each tenant. */
export function signInActions(
  { linked, own, removed, unbound, invitations }: SignInFacts,
  {
    emailVerified,
    linksMembers,
    verifiesEmails,
  }: { emailVerified: boolean } & Pick<Issuer, "linksMembers" | "verifiesEmails">,
): SignInAction[] {
  const actions = new Map<TenantId, SignInAction>();
  const counts = (tenantId: TenantId): boolean =>
    mayBind({ emailVerified, verifiesEmails, isLinked: tenantId === linked }) && !actions.has(tenantId);
  for (const { tenantId, id } of invitations)
    if (counts(tenantId)) actions.set(tenantId, { kind: "accept", tenantId, invitationId: id });
  for (const { tenantId, memberId } of unbound)
    if (counts(tenantId) && !own.includes(tenantId)) actions.set(tenantId, { kind: "bind", tenantId, memberId });
  const joins = linked !== null && linksMembers && !own.includes(linked) && !removed.includes(linked);
  if (joins && !actions.has(linked)) actions.set(linked, { kind: "join", tenantId: linked });
  return [...actions.values()];
}
