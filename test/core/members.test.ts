// The rules about a tenant's people: no actor gives more than it has, the last owner stays, and an address counts only where its
// issuer may speak for it.
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  type TenantRole,
  permissions,
  permissionsOf,
  permissionsOfAdminKey,
  permissionsOfRole,
  rolesWith,
  tenantRoles,
} from "../../src/core/actor.ts";
import type { TenantId } from "../../src/core/tenant/tenant.ts";
import {
  type Member,
  acceptanceOf,
  givableBy,
  mayBind,
  mayGive,
  refusedChange,
  roleAfterAcceptance,
  rolesNeeded,
  signInActions,
  toolScopesOfRole,
} from "../../src/identity/members/members.ts";

const role = fc.constantFrom(...tenantRoles);
const permissionSet = fc.uniqueArray(fc.constantFrom(...permissions));
const member = fc.record({ id: fc.uuid(), role, isBound: fc.boolean() });
const owner = (over: Partial<Member> = {}): Member => ({ id: "m1", role: "owner", isBound: true, ...over });

test.each<[TenantRole, TenantRole[]]>([
  ["owner", ["owner", "admin", "developer", "member", "billing"]],
  ["admin", ["admin", "developer", "member", "billing"]],
  ["developer", []],
  ["member", []],
  ["billing", []],
])("%s may invite people as %j", (own, given) => {
  expect(givableBy(own)).toEqual(given);
});

test("a role that is given has no permission that the giver lacks", () => {
  fc.assert(
    fc.property(permissionSet, role, (own, given) => {
      const excess = permissionsOfRole[given].filter((permission) => !own.includes(permission));
      expect(mayGive(own, given)).toBe(excess.length === 0);
    }),
  );
});

test("a change of a member is allowed only to actors that have both roles, and never takes the last owner who has signed in", () => {
  fc.assert(
    fc.property(
      permissionSet,
      member,
      fc.array(member, { maxLength: 4 }),
      fc.option(role, { nil: null }),
      (own, changed, others, to) => {
        const refused = refusedChange({ own, member: changed, others, role: to });
        if (refused === "role_missing") {
          expect(mayGive(own, changed.role) && (to === null || mayGive(own, to))).toBe(false);
          return;
        }
        const bound = (members: readonly Member[]): number =>
          members.filter((each) => each.role === "owner" && each.isBound).length;
        const before = bound([changed, ...others]);
        const after = bound(to === null ? others : [{ ...changed, role: to }, ...others]);
        expect(refused).toBe(before > 0 && after === 0 ? "last_owner" : undefined);
      },
    ),
  );
});

test("an admin neither makes an owner nor changes one, and an owner can leave once there is another", () => {
  const admin = permissionsOfRole.admin;
  const all = permissionsOfRole.owner;
  const other = owner({ id: "m2" });
  expect(refusedChange({ own: admin, member: owner(), others: [other], role: "member" })).toBe("role_missing");
  expect(refusedChange({ own: admin, member: owner({ role: "member" }), others: [other], role: "owner" })).toBe(
    "role_missing",
  );
  expect(refusedChange({ own: all, member: owner(), others: [], role: null })).toBe("last_owner");
  expect(refusedChange({ own: all, member: owner(), others: [owner({ id: "m2", isBound: false })], role: null })).toBe(
    "last_owner",
  );
  expect(refusedChange({ own: all, member: owner(), others: [other], role: null })).toBeUndefined();
  expect(refusedChange({ own: all, member: owner({ isBound: false }), others: [], role: null })).toBeUndefined();
});

test("a key and an impersonator make no key and no member", () => {
  const tenantId = "t1" as TenantId;
  const impersonator = permissionsOf({
    ...{ kind: "impersonator", tenantId, id: "i1", reason: "a ticket" },
    operator: { id: "o1", name: "Olga" },
  });
  for (const own of [permissionsOf({ kind: "key", tenantId, id: "k1" }), permissionsOfAdminKey, impersonator])
    for (const making of ["keys:manage", "members:manage"] as const) expect(own).not.toContain(making);
});

test("every role has words for what needs it, and each permission has a role", () => {
  for (const permission of permissions) expect(rolesWith(permission)[0]).toBe("owner");
  expect(rolesNeeded("account:remove")).toBe("It needs the role owner.");
  expect(rolesNeeded("billing:manage")).toBe("It needs one of the roles owner, admin, billing.");
});

test("a billing member has no scope of any tool, and every other role has all", () => {
  const scopes = ["tools:read", "tools:write"];
  for (const each of tenantRoles) expect(toolScopesOfRole(each, scopes)).toEqual(each === "billing" ? [] : scopes);
});

test.each([
  { emailVerified: true, verifiesEmails: true, isLinked: false, binds: true },
  { emailVerified: true, verifiesEmails: false, isLinked: true, binds: true },
  { emailVerified: true, verifiesEmails: false, isLinked: false, binds: false },
  { emailVerified: false, verifiesEmails: true, isLinked: true, binds: false },
])(
  "verified $emailVerified, issuer verifies $verifiesEmails, linked $isLinked: binds $binds",
  ({ binds, ...signIn }) => {
    expect(mayBind(signIn)).toBe(binds);
  },
);

test("an accepted invitation takes no right away, and gives none beyond the invited role's", () => {
  fc.assert(
    fc.property(role, role, (current, invited) => {
      const after = permissionsOfRole[roleAfterAcceptance(current, invited)];
      expect(after).toEqual(expect.arrayContaining([...permissionsOfRole[current]]));
      expect([permissionsOfRole[current], permissionsOfRole[invited]]).toContain(after);
    }),
  );
});

test("an acceptance makes a member, binds the one with the address, or changes the person's own", () => {
  const own = { id: "own", role: "member" as const, isBound: true };
  const added = { id: "added", role: "owner" as const, isBound: false };
  expect(acceptanceOf("admin", { own: undefined, same: undefined })).toEqual({ kind: "new" });
  expect(acceptanceOf("member", { own: undefined, same: added })).toEqual({
    ...{ kind: "change", memberId: "added", expectedRole: "owner", role: "owner", superseded: null },
  });
  expect(acceptanceOf("admin", { own, same: added })).toEqual({
    ...{ kind: "change", memberId: "own", expectedRole: "member", role: "admin", superseded: "added" },
  });
  expect(acceptanceOf("admin", { own: undefined, same: { ...added, isBound: true } })).toEqual({ kind: "taken" });
});

test("a sign-in changes a tenant only by a proved address or by the person's own organisation, and never lets a removed person back", () => {
  const tenants = ["a", "b", "c"].map((id) => id as TenantId);
  const tenant = fc.constantFrom(...tenants);
  const facts = fc.record({
    linked: fc.option(tenant, { nil: null }),
    own: fc.uniqueArray(tenant),
    removed: fc.uniqueArray(tenant),
    unbound: fc.array(fc.record({ tenantId: tenant, memberId: fc.uuid() }), { maxLength: 3 }),
    invitations: fc.array(fc.record({ tenantId: tenant, id: fc.uuid() }), { maxLength: 3 }),
  });
  const rules = fc.record({ emailVerified: fc.boolean(), linksMembers: fc.boolean(), verifiesEmails: fc.boolean() });
  fc.assert(
    fc.property(facts, rules, (known, settings) => {
      const actions = signInActions(known, settings);
      expect(new Set(actions.map(({ tenantId }) => tenantId)).size).toBe(actions.length);
      for (const { kind, tenantId } of actions) {
        if (kind === "join") {
          expect([settings.linksMembers, known.linked]).toEqual([true, tenantId]);
          expect([...known.own, ...known.removed]).not.toContain(tenantId);
        } else expect(mayBind({ ...settings, isLinked: tenantId === known.linked })).toBe(true);
        if (kind === "bind") expect(known.own).not.toContain(tenantId);
      }
    }),
  );
});
