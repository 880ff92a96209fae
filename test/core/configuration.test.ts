// A tenant's configuration as a document: what a merge patch does to it, which version a change is for, what a tenant was sold,
// and which texts and URLs its settings take.
import fc from "fast-check";
import { expect, onTestFinished, test } from "vitest";
import { toolContext } from "../../src/calls/tool-runner.ts";
import type { StoredConfiguration } from "../../src/control/tenants-store.ts";
import {
  Limits,
  type LimitChanges,
  type Plan,
  changedLimits,
  featuresOf,
  overriddenLimits,
  planNames,
  planOf,
  plans,
} from "../../src/core/plans/plans.ts";
import type { TenantConfig } from "../../src/core/tenant/tenant.ts";
import { Settings, SettingsPatch, changedSettings, mergePatch } from "../../src/core/tenant/settings.ts";
import { PublicUrl } from "../../src/core/text/web-url.ts";
import { ConfigurationPatch, changeOf, configurationOf, matchesEtag } from "../../src/operations/configuration-api.ts";

// RFC 7396, appendix A.
test.each([
  [{ a: "b" }, { a: "c" }, { a: "c" }],
  [{ a: "b" }, { b: "c" }, { a: "b", b: "c" }],
  [{ a: "b" }, { a: null }, {}],
  [{ a: "b", b: "c" }, { a: null }, { b: "c" }],
  [{ a: ["b"] }, { a: "c" }, { a: "c" }],
  [{ a: "c" }, { a: ["b"] }, { a: ["b"] }],
  [{ a: { b: "c" } }, { a: { b: "d", c: null } }, { a: { b: "d" } }],
  [{ a: [{ b: "c" }] }, { a: [1] }, { a: [1] }],
  [
    ["a", "b"],
    ["c", "d"],
    ["c", "d"],
  ],
  [{ a: "b" }, ["c"], ["c"]],
  [{ a: "foo" }, null, null],
  [{ a: "foo" }, "bar", "bar"],
  [{ e: null }, { a: 1 }, { e: null, a: 1 }],
  [[1, 2], { a: "b", c: null }, { a: "b" }],
  [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
])("the merge patch of %j with %j is %j", (target, patch, result) => {
  expect(mergePatch(target, patch)).toEqual(result);
});

test("a merge patch leaves both texts as they are, and a member named __proto__ is a member", () => {
  const json = fc.jsonValue().map((value) => JSON.parse(JSON.stringify(value)) as unknown);
  fc.assert(
    fc.property(json, json, (target, patch) => {
      const before = JSON.stringify([target, patch]);
      const merged = mergePatch(target, patch);
      expect(JSON.stringify([target, patch])).toBe(before);
      expect(mergePatch(merged, patch)).toEqual(merged);
    }),
  );
  const patch: unknown = JSON.parse('{"__proto__":{"admin":true}}');
  expect(JSON.stringify(mergePatch({}, patch))).toBe('{"__proto__":{"admin":true}}');
  expect(({} as { admin?: boolean }).admin).toBeUndefined();
});

const limitsOf = fc.constantFrom(...planNames).map((name) => planOf(name).limits);
const count = fc.integer({ min: 1, max: 100 });
const orNone = fc.option(fc.oneof(count, fc.constant("none" as const)));
const tools = fc.dictionary(fc.constantFrom("get_usage", "search_products"), fc.option(count));
const limitChanges: fc.Arbitrary<LimitChanges> = fc.record(
  {
    ...{ unitsPerHour: orNone, unitsPerMonth: orNone, callsPerMinute: orNone },
    ...{ callsInFlight: fc.option(count), sessions: fc.option(count), sessionIdleSeconds: fc.option(count) },
    unitsPerHourByTool: fc.option(tools),
  },
  { requiredKeys: [] },
);

test("overrides are what leads from the sold limits to those in force, and without them the sold ones return", () => {
  fc.assert(
    fc.property(limitsOf, limitChanges, limitChanges, (sold, first, second) => {
      const limits = changedLimits(changedLimits(sold, first, sold), second, sold);
      const overrides = overriddenLimits(limits, sold);
      expect(changedLimits(sold, overrides, sold)).toEqual(limits);
      const back = Object.fromEntries(Object.keys(Limits.shape).map((name) => [name, null]));
      expect(changedLimits(limits, back, sold)).toEqual(sold);
      expect(overriddenLimits(sold, sold)).toEqual({});
    }),
  );
});

function stored(overrides: Partial<StoredConfiguration> = {}): StoredConfiguration {
  const { limits } = planOf("pro");
  return {
    ...{ version: 1, plan: "pro", state: "active", region: null, isPlaced: true, limits, soldLimits: limits },
    ...{ allowedTools: null, features: {}, settings: Settings.parse({}) },
    ...overrides,
  };
}

/** What the database has after a change, as control/tenant-change.ts computes it. */
function changed(from: StoredConfiguration, patch: ConfigurationPatch): StoredConfiguration {
  const { limits, features, settings, allowedTools, region } = changeOf(patch);
  const merged = features === null ? {} : mergePatch(from.features, features ?? {});
  return {
    ...from,
    ...(limits !== undefined && {
      limits: limits === null ? from.soldLimits : changedLimits(from.limits, limits, from.soldLimits),
    }),
    features: merged as StoredConfiguration["features"],
    ...(settings !== undefined && { settings: changedSettings(from.settings, settings) }),
    ...(allowedTools !== undefined && { allowedTools }),
    ...(region !== undefined && { region }),
  };
}

test("a patch of the document and the change that it becomes lead to the same document", () => {
  const url = fc.constantFrom("https://a.example/x.png", "https://b.example/y");
  const feature = fc.option(fc.oneof(fc.boolean(), fc.integer({ min: 0, max: 9 }), fc.constant("x")));
  const patches = fc.record(
    {
      limits: fc.option(limitChanges.filter(({ unitsPerHourByTool }) => unitsPerHourByTool !== null)),
      features: fc.option(fc.dictionary(fc.constantFrom("a", "b"), feature)),
      allowedTools: fc.option(fc.subarray(["get_usage", "search_products"])),
      region: fc.option(fc.constantFrom("eu", "us")),
      branding: fc.option(
        fc.record({ productName: fc.option(fc.constant("Acme")), logoUrl: fc.option(url) }, { requiredKeys: [] }),
      ),
      integrations: fc.option(fc.record({ webhookUrl: fc.option(url) }, { requiredKeys: [] })),
      alerts: fc.option(fc.record({ thresholdsPercent: fc.option(fc.constant([50, 90])) }, { requiredKeys: [] })),
    },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(fc.array(patches, { maxLength: 4 }), (each) => {
      let row = stored();
      for (const patch of each) {
        const before = JSON.parse(JSON.stringify(configurationOf("t", row))) as Record<string, unknown>;
        row = changed(row, ConfigurationPatch.parse(patch));
        const expected = mergePatch(before, patch) as Record<string, unknown>;
        const after = configurationOf("t", row);
        // An override that equals the sold number is none, and an empty part stays as a part.
        expect(after.limits).toEqual(
          overriddenLimits(
            changedLimits(row.soldLimits, (expected["limits"] ?? {}) as LimitChanges, row.soldLimits),
            row.soldLimits,
          ),
        );
        for (const part of ["features", "branding", "integrations", "alerts"] as const)
          expect(after[part], part).toEqual(expected[part] ?? {});
        for (const part of ["allowedTools", "region", "plan", "state"] as const)
          expect(after[part], part).toEqual(expected[part]);
      }
    }),
  );
});

test("a tenant keeps the limits that it was sold when the plan's change, and its own override comes off to these", () => {
  const soldLastYear = { ...planOf("pro").limits, unitsPerHour: 20_000, callsPerMinute: 1_200 };
  const row = stored({ limits: soldLastYear, soldLimits: soldLastYear });
  expect(configurationOf("t", row)).toMatchObject({ limits: {}, effective: { limits: soldLastYear } });
  const raised = changed(row, { limits: { unitsPerHour: 50_000 } });
  expect(configurationOf("t", raised).limits).toEqual({ unitsPerHour: 50_000 });
  expect(raised.limits.callsPerMinute).toBe(1_200);
  for (const patch of [{ limits: { unitsPerHour: null } }, { limits: null }])
    expect(changed(raised, patch).limits).toEqual(soldLastYear);
});

test("a tenant has the features of its plan, and its own ones decide", () => {
  expect(featuresOf({ plan: "no-such-plan", features: { a: 1 } })).toEqual({ a: 1 });
  for (const plan of planNames) {
    const ofPlan = planOf(plan).features ?? {};
    expect(featuresOf({ plan, features: {} })).toEqual(ofPlan);
    const off = Object.fromEntries(Object.keys(ofPlan).map((name) => [name, false]));
    expect(featuresOf({ plan, features: off })).toEqual(off);
  }
});

test("a tool reads the features of the tenant's plan and the tenant's own ones above them", () => {
  const table = plans as Map<string, Plan>;
  const free = planOf("free");
  table.set("free", { ...free, features: { exports: true, seats: 3 } });
  onTestFinished(() => void table.set("free", free));
  const context = toolContext(
    {} as Env,
    { id: "t", name: "T", plan: "free", features: { seats: 5, beta: true } } as unknown as TenantConfig,
    { callId: "c", caller: { kind: "canary" }, tool: { name: "x", annotations: {} } } as unknown as Parameters<
      typeof toolContext
    >[2],
    {} as Parameters<typeof toolContext>[3],
  );
  expect(context.tenant.features).toEqual({ exports: true, seats: 5, beta: true });
});

test.each([
  ['"a"', true],
  ["*", true],
  [' "b" , "a"', true],
  ['"b"', false],
  ['W/"a"', false],
  ['W/"a", "a"', true],
  ["a", false],
  ["", false],
  ['"A"', false],
  ['"a', false],
  ['"aa"', false],
])('If-Match: %s names the version "a": %s', (header, matches) => {
  expect(matchesEtag(header, '"a"')).toBe(matches);
});

test.each([
  ["https://example.com", true],
  ["https://hooks.example.co.uk/a?b=c", true],
  ["http://example.com", false],
  ["ftp://example.com", false],
  ["javascript:alert(1)", false],
  ["https://localhost/x", false],
  ["https://db.internal/x", false],
  ["https://printer.local./x", false],
  ["https://intranet/x", false],
  ["https://127.0.0.1/x", false],
  ["https://0x7f.1/x", false],
  ["https://2130706433/x", false],
  ["https://[::1]/x", false],
  ["https://169.254.169.254/latest", false],
  ["https://user:pass@example.com", false],
  ["https://example.com\\@evil.example", false],
  ["https://example.com/a b", false],
  [`https://example.com/${"a".repeat(2_000)}`, false],
])("a webhook or a logo at %s: %s", (url, isTaken) => {
  expect(PublicUrl.safeParse(url).success).toBe(isTaken);
});

test("what nothing reads is not stored: an unknown setting is refused at any depth", () => {
  for (const patch of [
    { colour: "#fff" },
    { branding: { colour: "#fff" } },
    { alerts: { sms: ["1"] } },
    { limits: {} },
  ])
    expect(SettingsPatch.safeParse(patch).success, JSON.stringify(patch)).toBe(false);
  for (const patch of [{ limits: { unitsPerDay: 1 } }, { effective: {} }, { allowedTools: ["no_such_tool"] }])
    expect(ConfigurationPatch.safeParse(patch).success, JSON.stringify(patch)).toBe(false);
  for (const thresholdsPercent of [[], [0], [101], [50.5], [1, 2, 3, 4, 5, 6]])
    expect(SettingsPatch.safeParse({ alerts: { thresholdsPercent } }).success).toBe(false);
  for (const emails of [["x"], Array.from({ length: 6 }, (_, n) => `a${n}@b.example`)])
    expect(SettingsPatch.safeParse({ alerts: { emails } }).success).toBe(false);
  // No mails at all, while `null` takes the account's address again.
  expect(SettingsPatch.parse({ alerts: { emails: [] } })).toEqual({ alerts: { emails: [] } });
  expect(SettingsPatch.parse({ alerts: { emails: ["IT@acme.example", "it@acme.example"] } })).toEqual({
    alerts: { emails: ["it@acme.example"] },
  });
  expect(SettingsPatch.parse({ alerts: { thresholdsPercent: [90, 50, 90] } })).toEqual({
    alerts: { thresholdsPercent: [50, 90] },
  });
});
