// Who acts: the person, key or program that a guard has identified, and what the roles of a tenant's people and of the
// operator's people permit. Invariant: an actor never gives more than it has, so each role lists all of its permissions.
import type { TenantId } from "./tenant/tenant.ts";

/** What a person or key may do with one tenant. Each tenant route names one of them. */
export const permissions = [
  "account:read", // state, plan, limits, removal
  "account:write", // name, e-mail, settings
  "account:remove", // leave, and come back
  "usage:read",
  "billing:manage", // plan, checkout, portal, invoices
  "documents:read",
  "documents:write", // also delete
  "data:export",
  "keys:manage",
  "secrets:manage", // the account's own secrets of tools
  "members:read",
  "members:manage", // members, invitations, sessions and grants of others
  "membership:leave", // the member's own
  "provider:manage", // the provider at which the people of the tenant sign in
  "audit:read",
  "tools:use", // call tools: through an agent, or on the playground
] as const;
export type Permission = (typeof permissions)[number];

export const tenantRoles = ["owner", "admin", "developer", "member", "billing"] as const;
export type TenantRole = (typeof tenantRoles)[number];

const all: readonly Permission[] = permissions;
/** Only an owner ends the account, and says which provider names its people: a provider can name an owner. */
const adminPermissions = all.filter(
  (permission) => permission !== "account:remove" && permission !== "provider:manage",
);

export const permissionsOfRole: Readonly<Record<TenantRole, readonly Permission[]>> = {
  owner: all,
  admin: adminPermissions,
  developer: [
    "account:read",
    "usage:read",
    "documents:read",
    "documents:write",
    "keys:manage",
    "secrets:manage",
    "members:read",
    "membership:leave",
    "tools:use",
  ],
  member: ["account:read", "usage:read", "documents:read", "documents:write", "membership:leave", "tools:use"],
  billing: ["account:read", "usage:read", "billing:manage", "membership:leave"],
};

/** The roles that include a permission, the highest first. */
export function rolesWith(permission: Permission): TenantRole[] {
  return tenantRoles.filter((role) => permissionsOfRole[role].includes(permission));
}

/** Whether every permission of `wanted` is one of `own`. The one comparison behind "an actor never gives more than it has". */
export function covers(own: readonly Permission[], wanted: readonly Permission[]): boolean {
  return wanted.every((permission) => own.includes(permission));
}

/** A key with the admin scope. It can end the account, as programs do today, and a key never makes a key or a member. */
export const permissionsOfAdminKey: readonly Permission[] = all.filter(
  (permission) => !["keys:manage", "members:manage", "membership:leave", "provider:manage"].includes(permission),
);

/** What a member can allow an OAuth client to do with the account, beside the scopes of tools. */
export const accountScopes = ["account:read", "account:manage"] as const;
export type AccountScope = (typeof accountScopes)[number];

/**
 * The permissions that a client gets by a scope, of those that the member's role has at the time of the request. None of them makes,
 * widens or ends a credential or a membership, takes the data out, or ends the account: these need the person's own session.
 */
export const permissionsOfScope: Readonly<Record<AccountScope, readonly Permission[]>> = {
  "account:read": ["account:read", "usage:read", "members:read", "audit:read"],
  "account:manage": ["account:write", "billing:manage"],
};

/** All that a client can ever do with the account. */
export const permissionsOfClients: readonly Permission[] = accountScopes.flatMap((scope) => permissionsOfScope[scope]);

/** The scopes that give a client of a member with this role anything. */
export function accountScopesOfRole(role: TenantRole): AccountScope[] {
  return accountScopes.filter((scope) =>
    permissionsOfScope[scope].some((permission) => permissionsOfRole[role].includes(permission)),
  );
}

/** viewer: reads. support: changes what can be undone, and impersonates. admin: everything. */
export const operatorRoles = ["viewer", "support", "admin"] as const;
export type OperatorRole = (typeof operatorRoles)[number];

/** Whether a role has the rights of another one. Each role has those of the roles before it. */
export function hasRole(role: OperatorRole, needed: OperatorRole): boolean {
  return operatorRoles.indexOf(role) >= operatorRoles.indexOf(needed);
}

const neverActedFor: readonly Permission[] = [
  ...(["keys:manage", "secrets:manage", "members:manage", "membership:leave"] as const),
  ...(["documents:write", "tools:use"] as const),
];

/**
 * An operator who acts as a tenant's admin. It never makes a credential, a secret, a member or a grant, which would outlive it, never
 * ends the account, calls no tools and stores no documents: rows and documents do not say who wrote them.
 */
export const permissionsOfImpersonator: readonly Permission[] = adminPermissions.filter(
  (permission) => !neverActedFor.includes(permission),
);

/** A person as an issuer names them. The issuer and the subject are the identity; the rest may change. */
export interface Person {
  issuer: string;
  subject: string;
  /** In lower case. */
  email: string | null;
  /** Whether the issuer says that the address is the person's. */
  emailVerified: boolean;
  name: string | null;
  /** The person's organisation at the issuer. */
  organisation: string | null;
}

/** Plain data: it crosses RPCs and is stored in audit rows. `id` and `name` are never secret. */
export type Actor =
  | { kind: "anonymous" }
  | { kind: "operator"; id: string; name: string; role: OperatorRole; through: "token" | "oidc" | "access" }
  /** An operator who acts as a tenant's admin for some minutes. */
  | { kind: "impersonator"; tenantId: TenantId; id: string; operator: { id: string; name: string }; reason: string }
  | { kind: "member"; tenantId: TenantId; id: string; role: TenantRole; through: "session" | "issuer" }
  /** An OAuth client on behalf of the member who has let it in. */
  | { kind: "member"; tenantId: TenantId; id: string; role: TenantRole; through: "grant"; grant: ClientGrant }
  | { kind: "key"; tenantId: TenantId; id: string }
  /** A person whom an issuer has named, before a tenant is chosen. */
  | { kind: "person"; issuer: string; subject: string }
  /** The holder of the set-up token of an order. */
  | { kind: "buyer"; tenantId: TenantId }
  /** The holder of a token that reads one page: the status or the health of a tenant. */
  | { kind: "reader"; tenantId: TenantId; of: "status" | "health" }
  | { kind: "stripe" };

/** What a member has allowed a client. */
export interface ClientGrant {
  id: string;
  clientId: string;
  scopes: readonly string[];
}

export const anonymous: Actor = { kind: "anonymous" };

export type Operator = Extract<Actor, { kind: "operator" }>;

/** The holder of the operator token. The token names no person. */
export const tokenOperator: Operator = {
  kind: "operator",
  id: "operator-token",
  name: "Operator token",
  role: "admin",
  through: "token",
};

/** What the actor may do with the tenant of the route. The guards have compared the tenants. */
export function permissionsOf(actor: Actor): readonly Permission[] {
  switch (actor.kind) {
    case "member":
      return actor.through === "grant" ? permissionsOfClient(actor) : permissionsOfRole[actor.role];
    case "key":
      return permissionsOfAdminKey;
    case "impersonator":
      return permissionsOfImpersonator;
    case "operator":
    case "anonymous":
    case "person":
    case "buyer":
    case "reader":
    case "stripe":
      return [];
    default:
      return actor satisfies never;
  }
}

function permissionsOfClient({ role, grant }: { role: TenantRole; grant: ClientGrant }): Permission[] {
  const ofScopes = accountScopes.flatMap((scope) => (grant.scopes.includes(scope) ? permissionsOfScope[scope] : []));
  return ofScopes.filter((permission) => permissionsOfRole[role].includes(permission));
}
