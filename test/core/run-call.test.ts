// One call from its first check to its receipt, on a host in memory: a success is charged once, and every other end releases
// the reserved units.
import { expect, test, vi } from "vitest";
import { plainRefusal } from "../../src/calls/refusal.ts";
import { type AuthorizationHost, type CallHost, authorize } from "../../src/calls/run-call.ts";
import { type TenantRole, tenantRoles } from "../../src/core/actor.ts";
import { type CallRequest } from "../../src/core/call.ts";
import { type ErrorCode, AppError } from "../../src/core/errors.ts";
import type { TenantConfig } from "../../src/core/tenant/tenant.ts";
import { type ApiKey } from "../../src/core/tenant/tenant.ts";
import { canary, config, NOW_MS, request, rowsThat, startHost, tenantId } from "../support/call-host.ts";

test("a successful call is charged once and has a receipt", async () => {
  const { admission, call, charges, used } = startHost();
  expect(await call()).toMatchObject({
    kind: "result",
    receipt: { id: "call-1", units: 1 },
    quota: { hour: { used: 1 } },
  });
  expect(charges).toEqual([{ callId: "call-1", atMs: NOW_MS, tool: "search_products", units: 1 }]);
  expect([admission.inFlight, used()]).toEqual([0, 1]);
});

test("of two calls at once, a limit of one unit admits one", async () => {
  const { call, charges } = startHost();
  const outcomes = await Promise.all([call(), call({ ...request, callId: "call-2" })]);
  expect(outcomes.map(({ kind }) => kind)).toEqual(["result", "refused"]);
  expect(outcomes[1]).toMatchObject({
    refusal: {
      code: "window_exhausted",
      limit: 1,
      used: 1,
      cost: 1,
      retryAfterSeconds: 3_600,
      upgradeUrl: expect.any(String),
    },
    quota: { hour: { used: 1 } },
  });
  expect(charges).toHaveLength(1);
});

test("an answer whose charge may be lost is withheld, and its units are released", async () => {
  const refusal = plainRefusal("metering_unavailable");
  const { admission, call, used } = startHost({ usage: { charge: async () => refusal } });
  expect(await call()).toEqual({ kind: "refused", refusal, quota: undefined });
  expect([admission.inFlight, used()]).toEqual([0, 0]);
});

test("a charge that throws is an outage, and the units are released", async () => {
  const charge = (): never => {
    throw new AppError("tenant_gone");
  };
  const { admission, call, used } = startHost({ usage: { charge } });
  await expect(call()).rejects.toMatchObject({ code: "tenant_gone" });
  expect([admission.inFlight, used()]).toEqual([0, 0]);
});

test("a tool that fails is not charged", async () => {
  const rows = rowsThat(() => Promise.reject(new AppError("database_unavailable")));
  const { admission, call, charges, used } = startHost({ host: { rows } });
  expect(await call()).toMatchObject({ kind: "result", failure: "database_unavailable", receipt: undefined });
  expect([admission.inFlight, used(), charges.length]).toEqual([0, 0, 0]);
});

test("a cancelled call ends although its tool hangs, and is not charged", async () => {
  const { admission, call, charges, used } = startHost({ host: { rows: rowsThat(() => new Promise(() => {})) } });
  const abort = new AbortController();
  const outcome = call(request, abort);
  await expect.poll(() => admission.inFlight).toBe(1);
  abort.abort("cancelled");
  expect(await outcome).toMatchObject({ kind: "result", failure: "tool_aborted", receipt: undefined });
  expect([admission.inFlight, used(), charges.length]).toEqual([0, 0, 0]);
});

test("a second attempt of a charged call runs without a second charge", async () => {
  const again: CallRequest = { ...request, attempt: 2 };
  const charged = { callId: "call-1", atMs: NOW_MS, units: 1 };
  const usage = { chargeOf: (callId: string) => (callId === "call-1" ? charged : undefined) };
  const receipt = { id: "call-1", units: 1 };
  const ran = startHost({ usage });
  expect(await ran.call(again)).toMatchObject({ kind: "result", receipt });
  expect([ran.used(), ran.charges.length]).toEqual([0, 0]);

  const rows = rowsThat(() => Promise.reject(new AppError("database_unavailable")));
  const failed = startHost({ usage, host: { rows } });
  expect(await failed.call(again)).toMatchObject({ kind: "refused", refusal: { code: "outcome_unknown" }, receipt });
});

test("each call is counted once when it ends: charged, failed, refused, answered again or ended by an outage", async () => {
  const usual = startHost();
  await usual.call();
  await usual.call({ ...request, callId: "call-2" });
  await usual.call({ ...request, callId: "call-3", tool: "get_usage", args: {} });
  expect(usual.finished.map(({ callId, end, code, units, ran }) => [callId, end, code, units, ran])).toEqual([
    ["call-1", "ok", undefined, 1, true],
    ["call-2", "refused", "window_exhausted", 0, false],
    ["call-3", "ok", undefined, 0, true],
  ]);
  expect(usual.finished[0]).toMatchObject({ tool: "search_products", atMs: NOW_MS, ms: 0 });

  const rows = rowsThat(() => Promise.reject(new AppError("database_unavailable")));
  const failed = startHost({ host: { rows } });
  await failed.call();
  expect(failed.finished).toMatchObject([{ end: "failed", code: "database_unavailable", units: 0, ran: true }]);

  const charge = (): never => {
    throw new AppError("tenant_gone");
  };
  const outage = startHost({ usage: { charge } });
  await expect(outage.call()).rejects.toThrow();
  expect(outage.finished).toMatchObject([{ code: "tenant_gone", units: 0 }]);

  const again = startHost({ usage: { chargeOf: (callId) => ({ callId, atMs: NOW_MS, units: 1 }) } });
  await again.call({ ...request, attempt: 2 });
  expect(again.finished).toMatchObject([{ callId: "call-1", end: "repeated", units: 0 }]);

  const withheld = startHost({ usage: { charge: async () => plainRefusal("metering_unavailable") } });
  await withheld.call();
  expect(withheld.finished).toMatchObject([{ end: "refused", code: "metering_unavailable", units: 0 }]);

  // Not a customer's call, and no tenant's.
  const setUp = startHost({ host: { tenant: () => ({ ...config, state: "provisioning" }) } });
  await setUp.call(canary);
  const unknown = startHost({ host: { tenant: () => ({ refusal: plainRefusal("tenant_unknown") }) } });
  await unknown.call();
  expect([setUp.finished, unknown.finished]).toEqual([[], []]);
});

test("a count that fails changes nothing of the call", async () => {
  const finished = (): never => {
    throw new Error("no room");
  };
  const error = vi.spyOn(console, "error").mockImplementation(() => undefined);
  const { call, charges } = startHost({ host: { finished } });
  expect(await call()).toMatchObject({ kind: "result", receipt: { id: "call-1", units: 1 } });
  expect(charges).toHaveLength(1);
  expect(error).toHaveBeenCalledTimes(1);
  error.mockRestore();
});

test("a canary's call is free, and its token is valid once", async () => {
  const tokens = [true, false];
  const { admission, call, charges } = startHost({
    host: { tenant: () => ({ ...config, state: "provisioning" }) },
    usage: { spendCanary: () => tokens.shift() ?? false },
  });
  expect(await call(canary)).toMatchObject({ kind: "result", receipt: undefined });
  expect(await call(canary)).toMatchObject({ kind: "refused", refusal: { code: "token_invalid" } });
  expect([admission.inFlight, charges.length]).toEqual([0, 0]);
});

test("the first failed check decides the refusal, and a refused call uses up no token", async () => {
  const checks: [string, Partial<CallHost>][] = [
    ["control_unavailable", { tenant: () => ({ refusal: plainRefusal("control_unavailable") }) }],
    ["key_revoked", { tenant: () => ({ ...config, keys: [], state: "suspended" }) }],
    ["tenant_suspended", { tenant: () => ({ ...config, state: "suspended", allowedTools: [] }) }],
    ["tool_not_allowed", { tenant: () => ({ ...config, allowedTools: [] }), refuse: () => plainRefusal("conflict") }],
    ["metering_unavailable", { refuse: () => plainRefusal("metering_unavailable"), rows: () => "tenant_provisioning" }],
    ["isolation_unproven", { rows: () => "isolation_unproven", usage: () => ({ refusal: plainRefusal("conflict") }) }],
    ["control_unavailable", { usage: () => ({ refusal: plainRefusal("control_unavailable") }) }],
  ];
  for (const [code, host] of checks) {
    const { call, charges } = startHost({ host });
    expect(await call()).toMatchObject({ kind: "refused", refusal: { code }, quota: undefined });
    expect(charges).toEqual([]);
  }
  let spent = 0;
  const usage = { spendCanary: () => (spent += 1) > 0 };
  await startHost({ host: { rows: () => "isolation_unproven" }, usage }).call({ ...canary, caller: canary.caller });
  expect(spent).toBe(0);
});

test("a user whose organisation is not linked any more is refused, also with a token that was verified before", async () => {
  const caller = {
    kind: "user" as const,
    tenantId,
    issuer: "https://login.example",
    organisation: "org_1",
    subject: "u1",
    scopes: ["tools:read"],
    expiresAtMs: NOW_MS + 1,
  };
  const linkedTo = (links: { issuer: string; organisation: string }[]) =>
    startHost({ host: { tenant: () => ({ ...config, links }) } }).call({ ...request, caller });
  const { issuer, organisation } = caller;
  expect(await linkedTo([{ issuer, organisation }])).toMatchObject({ kind: "result" });
  for (const links of [[], [{ issuer, organisation: "org_2" }], [{ issuer: "https://other.example", organisation }]])
    expect(await linkedTo(links)).toMatchObject({ kind: "refused", refusal: { code: "tenant_unknown" } });
});

test("a removed member is refused until a new invitation, and a linked user who never was a member is not", async () => {
  const [issuer, organisation, subject] = ["https://login.example", "org_1", "u1"];
  const user = { kind: "user" as const, tenantId, issuer, organisation, subject, scopes: ["tools:read"] };
  const caller = { ...user, expiresAtMs: NOW_MS + 1 };
  const callAs = (change: Partial<TenantConfig>) =>
    startHost({
      host: { tenant: () => ({ ...config, links: [{ issuer, organisation }], ...change }) },
    }).call({ ...request, caller });
  const member = (role: TenantRole) => ({ members: [{ id: "m1", role, issuer, subject }] });
  expect(await callAs({})).toMatchObject({ kind: "result" });
  expect(await callAs({ removedMembers: [{ issuer, subject }] })).toMatchObject({
    kind: "refused",
    refusal: { code: "member_removed" },
  });
  // Another person, and the same subject at another issuer.
  for (const removed of [
    { issuer, subject: "u2" },
    { issuer: "https://other.example", subject },
  ])
    expect(await callAs({ removedMembers: [removed] })).toMatchObject({ kind: "result" });
  for (const role of tenantRoles)
    expect(await callAs(member(role)), role).toMatchObject(
      role === "billing" ? { kind: "refused", refusal: { code: "role_missing" } } : { kind: "result" },
    );
  const { refusal } = (await callAs(member("billing"))) as { refusal: { message: string } };
  expect(refusal.message).toContain("owner, admin, developer, member");
});

test("a member's client may do what the tenant's object knows of its token, and not what the Worker assumes", async () => {
  const caller = {
    ...{ kind: "grant" as const, tenantId, memberId: "m1", subject: "s", grantId: "g", tokenHash: "h" },
    scopes: ["tools:read", "tools:write"],
  };
  const members = [{ id: "m1", role: "member" as const, issuer: "https://login.example", subject: "u1" }];
  const callWith = (scopes: readonly string[] | ErrorCode, state: TenantConfig["state"] = "active") =>
    startHost({ host: { tenant: () => ({ ...config, state, members }), scopes: () => scopes } }).call({
      ...request,
      caller,
    });
  expect(await callWith(["tools:read"])).toMatchObject({ kind: "result", receipt: { units: 1 } });
  expect(await callWith(["tools:write"])).toMatchObject({ kind: "refused", refusal: { code: "scope_missing" } });
  expect(await callWith([])).toMatchObject({ refusal: { message: expect.stringContaining("tools:read") } });
  // A revoked token says nothing about the account.
  for (const state of ["active", "suspended"] as const)
    expect(await callWith("token_invalid", state)).toMatchObject({ refusal: { code: "token_invalid" } });
  expect(await callWith("token_invalid", "gone")).toMatchObject({ refusal: { code: "tenant_gone" } });
});

test("the holder of a key of a closed account reads that it is closed, and not that the key was revoked", async () => {
  const gone = { ...config, state: "gone" as const, keys: [] };
  expect(await startHost({ host: { tenant: () => gone } }).call()).toMatchObject({
    kind: "refused",
    refusal: { code: "tenant_gone" },
  });
});

test("every message that is no call counts among the requests of the minute, and its refusal has the limits", async () => {
  const limits = { ...config.limits, callsPerMinute: 2 };
  const { admission } = startHost();
  const host: AuthorizationHost = {
    env: { PUBLIC_URL: "https://x.example" },
    now: () => NOW_MS,
    tenant: () => ({ ...config, limits }),
    scopes: ({ scopes }) => scopes,
    usage: () => ({ admission, keyUsed: () => undefined }),
  };
  const { caller } = request;
  expect(await authorize(host, caller)).toMatchObject({ kind: "authorized", quota: { minute: { limit: 2, used: 1 } } });
  // Provisioning's own check is not the tenant's request.
  expect(await authorize(host, canary.caller)).toMatchObject({ quota: { minute: { used: 1 } } });
  expect(await authorize(host, caller)).toMatchObject({ kind: "authorized", quota: { minute: { used: 2 } } });
  expect(await authorize(host, caller)).toMatchObject({
    kind: "refused",
    refusal: { code: "rate_limited", limit: 2, retryAfterSeconds: 60, upgradeUrl: "https://x.example/plans" },
    quota: { minute: { limit: 2, used: 2, resetSeconds: 60 } },
  });
});

/** The tenant with its one key restricted, and more units than a test uses. */
function restricted(own: Partial<ApiKey>, overrides: Partial<TenantConfig> = {}): Partial<CallHost> {
  const limits = { ...config.limits, unitsPerHour: 100 };
  return { tenant: () => ({ ...config, limits, keys: config.keys.map((key) => ({ ...key, ...own })), ...overrides }) };
}

test("a key with a list of tools lists and calls only these, and its refusal names them", async () => {
  const tools = ["list_documents", "search_products"];
  const { call, charges } = startHost({ host: restricted({ tools }) });
  expect(await call()).toMatchObject({ kind: "result" });
  expect(await call({ ...request, tool: "health_check", args: {} })).toMatchObject({
    kind: "refused",
    refusal: {
      code: "tool_not_in_key",
      message: expect.stringContaining("It may call: list_documents, search_products."),
    },
  });
  expect(charges).toHaveLength(1);
  const listed = async (ofTenant: string[] | null, ofKey: string[] | null) => {
    const { admission } = startHost();
    const host = {
      ...{ env: { FILES: undefined as never, PUBLIC_URL: "https://x.example" }, now: () => NOW_MS },
      tenant: restricted({ tools: ofKey }, { allowedTools: ofTenant }).tenant as CallHost["tenant"],
      scopes: ({ scopes }: { scopes: readonly string[] }) => scopes,
      usage: () => ({ admission, keyUsed: () => undefined }),
    };
    return authorize(host as AuthorizationHost, request.caller);
  };
  expect(await listed(null, null)).toMatchObject({ allowedTools: null });
  expect(await listed(null, tools)).toMatchObject({ allowedTools: tools });
  expect(await listed(["search_products", "health_check"], tools)).toMatchObject({ allowedTools: ["search_products"] });
  // A tool that the tenant itself lost is refused as such.
  const lost = startHost({ host: restricted({ tools }, { allowedTools: ["health_check"] }) });
  expect(await lost.call()).toMatchObject({ refusal: { code: "tool_not_allowed" } });
});

test("a key's budget refuses with the date of its renewal, and a failed call gives its units back", async () => {
  const own = { unitsPerMonth: 2 };
  const { call, charges, lines } = startHost({ host: restricted(own) });
  expect([(await call()).kind, (await call({ ...request, callId: "call-2" })).kind]).toEqual(["result", "result"]);
  expect(await call({ ...request, callId: "call-3" })).toMatchObject({
    kind: "refused",
    refusal: {
      ...{ code: "key_budget_exhausted", limit: 2, used: 2, cost: 1, retryAfterSeconds: 4 * 3_600 },
      message: expect.stringContaining("The budget renews in 14400 seconds, at 2026-12-01T00:00:00Z."),
    },
  });
  expect([charges.length, lines]).toEqual([2, ["line-1", "line-1"]]);
  const rows = rowsThat(() => Promise.reject(new AppError("database_unavailable")));
  const failing = startHost({ host: { ...restricted(own), rows } });
  for (const callId of ["a", "b", "c"])
    expect(await failing.call({ ...request, callId })).toMatchObject({ kind: "result" });
  expect(failing.admission.usedByLine(NOW_MS)).toEqual([]);
});

test("a key is used by a call and by a message, and not by a call of another caller", async () => {
  const { call, keysUsed } = startHost();
  await call();
  await call(canary);
  expect(keysUsed).toEqual(["k1"]);
});

test("a call that fails says once whether it was charged", async () => {
  const failing = async (code: ErrorCode): Promise<string> => {
    const db = { query: () => Promise.reject(new AppError(code)) };
    const rows = () => ({ ...db, forCall: () => db }) as never;
    return JSON.stringify(await startHost({ host: { rows } }).call());
  };
  for (const code of ["database_unavailable", "sessions_exhausted", "tool_failed"] as const)
    expect((await failing(code)).match(/not charged/g), code).toHaveLength(1);
});
