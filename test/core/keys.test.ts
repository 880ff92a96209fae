// Who may make, change and end API keys: a key never makes a key, and no key has more rights than its maker.
import { expect, test } from "vitest";
import {
  type Actor,
  permissionsOfAdminKey,
  permissionsOfRole,
  tenantRoles,
  tokenOperator,
} from "../../src/core/actor.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { keyOf, refusedCredential, refusedToolUse } from "../../src/identity/keys/credential-check.ts";
import {
  ADMIN_SCOPE,
  KeyChange,
  KeyRequest,
  RotateRequest,
  refusedActor,
  scopesOver,
} from "../../src/identity/keys/keys.ts";

const tenantId = TenantId.parse("acme");
const member = (role: (typeof tenantRoles)[number], through: "session" | "issuer" = "session"): Actor => ({
  ...{ kind: "member", tenantId, id: "m1", role, through },
});
const client: Actor = {
  ...{ kind: "member", tenantId, id: "m1", role: "owner", through: "grant" },
  grant: { id: "g1", clientId: "c1", scopes: ["tools:read", "account:read", "account:manage"] },
};
const impersonator: Actor = {
  ...{ kind: "impersonator", tenantId, id: "i1", operator: { id: "o1", name: "Olga" }, reason: "a ticket" },
};

test.each<[string, Actor, { read: boolean; make: boolean; end: boolean }]>([
  ["the operator", tokenOperator, { read: true, make: true, end: true }],
  ["an owner", member("owner"), { read: true, make: true, end: true }],
  ["an admin", member("admin"), { read: true, make: true, end: true }],
  ["a developer", member("developer"), { read: true, make: true, end: true }],
  ["a developer with the provider's own token", member("developer", "issuer"), { read: true, make: true, end: true }],
  ["an owner's agent", client, { read: false, make: false, end: false }],
  ["a member", member("member"), { read: false, make: false, end: false }],
  ["a member for billing", member("billing"), { read: false, make: false, end: false }],
  ["an operator who acts for a customer", impersonator, { read: true, make: false, end: true }],
  ["an API key", { kind: "key", tenantId, id: "k1" }, { read: false, make: false, end: false }],
  ["a buyer", { kind: "buyer", tenantId }, { read: false, make: false, end: false }],
  ["a reader", { kind: "reader", tenantId, of: "status" }, { read: false, make: false, end: false }],
  ["a person of no account", { kind: "person", issuer: "i", subject: "s" }, { read: false, make: false, end: false }],
  ["Stripe", { kind: "stripe" }, { read: false, make: false, end: false }],
  ["a stranger", { kind: "anonymous" }, { read: false, make: false, end: false }],
])("what %s may do with keys", (_, actor, may) => {
  for (const act of ["read", "make", "end"] as const)
    expect(refusedActor(actor, act) === undefined, act).toBe(may[act]);
});

test("a role gives the admin scope only when it has every right of an admin key", () => {
  for (const role of tenantRoles) {
    const hasAll = permissionsOfAdminKey.every((permission) => permissionsOfRole[role].includes(permission));
    expect(scopesOver(member(role), [ADMIN_SCOPE]), role).toEqual(hasAll ? [] : [ADMIN_SCOPE]);
    const usesTools = permissionsOfRole[role].includes("tools:use");
    expect(scopesOver(member(role), ["tools:read", "tools:write"]).length, role).toBe(usesTools ? 0 : 2);
  }
  expect(scopesOver(member("developer"), ["tools:read", ADMIN_SCOPE])).toEqual([ADMIN_SCOPE]);
  expect(scopesOver(tokenOperator, [ADMIN_SCOPE])).toEqual([]);
});

test.each([
  ["an overlap of more than a week", RotateRequest, { overlapHours: 169 }],
  ["a negative overlap", RotateRequest, { overlapHours: -1 }],
  ["half an hour of overlap", RotateRequest, { overlapHours: 0.5 }],
  ["an expiry in the past", RotateRequest, { expiresAt: "2020-01-01T00:00:00Z" }],
  ["a budget of nothing", KeyRequest, { unitsPerMonth: 0 }],
  ["half a unit", KeyRequest, { unitsPerMonth: 0.5 }],
  ["a tool that does not exist", KeyRequest, { tools: ["no_such_tool"] }],
  ["no tool at all", KeyRequest, { tools: [] }],
  ["a tool that does not exist, in a change", KeyChange, { tools: ["no_such_tool"] }],
  ["other scopes, in a change", KeyChange, { scopes: ["tools:read"] }],
  ["an expiry in the past, in a change", KeyChange, { expiresAt: "2020-01-01T00:00:00Z" }],
])("a request with %s is refused", (_, schema, request) => {
  expect(schema.safeParse(request).success).toBe(false);
});

test("what a request leaves out has a default, and what a change leaves out stays", () => {
  expect(RotateRequest.parse({})).toEqual({ overlapHours: 24 });
  expect(KeyRequest.parse({})).toMatchObject({ name: "default", tools: null, unitsPerMonth: null });
  expect(KeyRequest.parse({ tools: ["health_check", "health_check"] }).tools).toEqual(["health_check"]);
  expect(KeyChange.parse({})).toEqual({});
  expect(KeyChange.parse({ tools: null, unitsPerMonth: null })).toEqual({ tools: null, unitsPerMonth: null });
});

test.each([
  ["the listed key", { id: "k1", hash: "h1" }, undefined],
  ["another key under its id", { id: "k1", hash: "h2" }, "key_revoked"],
  ["a key that is not listed", { id: "k2", hash: "h1" }, "key_revoked"],
])("%s", (_, { id, hash }, refused) => {
  const key = {
    id: "k1",
    hash: "h1",
    expiresAtMs: 1_000,
    lineId: "k1",
    tools: null,
    unitsPerMonth: null,
    memberId: null,
  };
  const caller = { kind: "key" as const, tenantId, keyId: id, keyHash: hash, scopes: [] };
  const config = { keys: [key], links: [], members: [], removedMembers: [] };
  expect(refusedCredential(config, caller, 999)).toBe(refused);
  expect(refusedCredential(config, caller, 1_000)).toBe("key_revoked");
  expect(keyOf(config, caller)).toBe(id === "k1" ? key : undefined);
});

test("a member's key ends with the member, and may use tools as long as the member's role does", () => {
  const key = {
    ...{ id: "k1", hash: "h1", expiresAtMs: null, lineId: "k1" },
    tools: null,
    unitsPerMonth: null,
    memberId: "m1",
  };
  const caller = { kind: "key" as const, tenantId, keyId: "k1", keyHash: "h1", scopes: [] };
  const other = { id: "m2", role: "owner" as const, issuer: null, subject: null };
  const withMaker = (role: (typeof tenantRoles)[number]) => ({
    ...{ keys: [key], links: [], removedMembers: [], members: [other, { ...other, id: "m1", role }] },
  });
  for (const role of tenantRoles) {
    expect(refusedCredential(withMaker(role), caller, 0), role).toBeUndefined();
    const usesTools = permissionsOfRole[role].includes("tools:use");
    expect(refusedToolUse(withMaker(role), caller), role).toBe(usesTools ? undefined : "role_missing");
  }
  expect(refusedCredential({ ...withMaker("owner"), members: [other] }, caller, 0)).toBe("key_revoked");
});
