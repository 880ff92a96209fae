// The operator's form of a tenant's configuration: what it shows leads back to the same document, and a form that is late undoes
// nothing.
import fc from "fast-check";
import { expect, test } from "vitest";
import type { StoredConfiguration } from "../../src/control/tenants-store.ts";
import { planOf } from "../../src/core/plans/plans.ts";
import { Settings } from "../../src/core/tenant/settings.ts";
import { ConfigurationPatch, changeOf, configurationOf } from "../../src/operations/configuration-api.ts";
import {
  ConfigurationForm,
  configurationPatch,
  configurationTexts,
  fieldOfPath,
} from "../../src/pages/admin/tenants/configuration/fields.ts";
import { settingsPatch, settingsShape, settingsTexts } from "../../src/pages/parts/settings-fields.tsx";
import { versionedForm } from "../../src/pages/parts/versioned-form.tsx";
import * as z from "zod";

const TOOLS = ["get_usage", "health_check", "search_products"];

function stored(overrides: Partial<StoredConfiguration> = {}): StoredConfiguration {
  const { limits } = planOf("pro");
  return {
    ...{ version: 1, plan: "pro", state: "active", region: null, isPlaced: false, limits, soldLimits: limits },
    ...{ allowedTools: null, features: {}, settings: Settings.parse({}) },
    ...overrides,
  };
}

/** The fields that a browser sends: an empty one counts as absent. */
function sent(texts: Record<string, string>): Record<string, unknown> {
  const given = Object.entries(texts).filter(([, text]) => text !== "");
  const { allowedTools, ...fields } = Object.fromEntries(given);
  return { ...fields, etag: `"1"`, ...(allowedTools !== undefined && { allowedTools: allowedTools.split(" ") }) };
}

const patchOf = (texts: Record<string, string>, from: StoredConfiguration): unknown =>
  configurationPatch(ConfigurationForm.parse(sent(texts)), configurationOf("t", from), from.isPlaced);

const name = fc.string({ minLength: 1, maxLength: 60 }).filter((text) => text !== "__proto__");
const value = fc.oneof(
  fc.boolean(),
  fc.integer(),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((n) => (Number.isInteger(n) ? 0.5 : n)),
  fc.string({ maxLength: 50 }),
  fc.constantFrom("true", "12", "1e3", `"quoted"`, "a = b", " spaced ", "two\nlines", "", "none"),
);

test("the fields of a configuration lead back to it, with features of any name", () => {
  const limit = fc.option(fc.integer({ min: 1, max: 1_000_000 }));
  const configuration = fc.record({
    limits: fc.record({ unitsPerHour: limit, callsPerMinute: limit, spendCapCents: limit, maxSpendCapCents: limit }),
    byTool: fc.dictionary(fc.constantFrom(...TOOLS), fc.integer({ min: 1, max: 9_999 })),
    features: fc.dictionary(name, value, { maxKeys: 5 }),
    allowedTools: fc.option(fc.subarray(TOOLS)),
    region: fc.option(fc.constant("eu")),
    emails: fc.option(fc.subarray(["a@b.example", "c@d.example"]), { nil: undefined }),
  });
  fc.assert(
    fc.property(configuration, ({ limits, byTool, features, allowedTools, region, emails }) => {
      const { limits: sold } = planOf("pro");
      const from = stored({
        ...{ limits: { ...sold, ...limits, unitsPerHourByTool: byTool }, features, allowedTools, region },
        settings: Settings.parse({ alerts: { emails }, spend: { capCents: 1_250 } }),
      });
      const document = configurationOf("t", from);
      const patch = ConfigurationPatch.parse(patchOf(configurationTexts(document, TOOLS), from));
      const change = changeOf(patch);
      expect(change.features).toEqual(features);
      expect(change.allowedTools ?? null).toEqual(allowedTools);
      expect(change.region).toBe(region);
      expect(change.settings?.alerts?.emails ?? undefined).toEqual(emails);
      expect(change.settings?.spend).toEqual({ capCents: 1_250 });
      const { unitsPerHourByTool, ...single } = change.limits ?? {};
      expect(unitsPerHourByTool).toEqual(byTool);
      for (const [each, now] of Object.entries(single))
        expect(now, each).toEqual(document.limits[each as keyof typeof document.limits] ?? null);
    }),
  );
});

test("what a field no longer says returns to the number that was sold, or is removed", () => {
  const { limits: sold } = planOf("pro");
  const from = stored({
    limits: { ...sold, unitsPerHour: 5, unitsPerHourByTool: { get_usage: 7 } },
    features: { seats: 5, beta: true },
    allowedTools: ["get_usage"],
  });
  const texts = configurationTexts(configurationOf("t", from), TOOLS);
  const patch = patchOf(
    { ...texts, unitsPerHour: "", unitsPerHourByTool: "", features: "seats = 6", tools: "all" },
    from,
  );
  expect(ConfigurationPatch.parse(patch)).toMatchObject({
    limits: { unitsPerHour: null, unitsPerHourByTool: { get_usage: null } },
    ...{ features: { seats: 6, beta: null }, allowedTools: null },
  });
});

test("each refusal names the field that it is about", () => {
  const problems = (texts: Record<string, string>): string[] => {
    const from = stored();
    const form = ConfigurationForm.safeParse(sent({ tools: "all", ...texts }));
    if (!form.success) return form.error.issues.map(({ path }) => String(path[0]));
    const patch = ConfigurationPatch.safeParse(configurationPatch(form.data, configurationOf("t", from), false));
    return patch.success ? [] : patch.error.issues.map(({ path }) => fieldOfPath(path));
  };
  expect(problems({})).toEqual([]);
  for (const [field, text] of Object.entries({
    ...{ unitsPerHour: "many", callsInFlight: "none", sessions: "1000000", maxSpendCapCents: "1.234", capCents: "x" },
    ...{
      unitsPerHourByTool: "no_such_tool = 5",
      features: "seats",
      logoUrl: "http://intranet/x",
      emails: "no-address",
    },
    ...{ colour: "blue", thresholdsPercent: "50, 500", webhookUrl: "https://127.0.0.1/" },
  }))
    expect([field, problems({ [field]: text })[0]]).toEqual([field, field]);
  expect(problems({ tools: "chosen", allowedTools: "no_such_tool" })).toEqual(["allowedTools"]);
});

test("no mails at all is not the same as the account's address", () => {
  const texts = settingsTexts(Settings.parse({ alerts: { emails: [] } }));
  const fields = z.object(settingsShape).parse({ emails: texts["emails"] });
  expect(settingsPatch(fields).alerts).toMatchObject({ emails: [] });
  expect(settingsPatch(z.object(settingsShape).parse({})).alerts).toMatchObject({ emails: null });
});

const text = fc.constantFrom("", "a", "b", "two\nlines");

test("a late form undoes no change of another person, and loses none of its own", () => {
  fc.assert(
    fc.property(text, text, text, (was, mine, now) => {
      const entered = { etag: `"1"`, "before.x": was.replaceAll("\n", "\r\n"), x: mine.replaceAll("\n", "\r\n") };
      const form = versionedForm({ etag: `"2"`, stored: { x: now }, refused: { entered, errors: {} } });
      const { value: shown, note } = form.of("x");
      expect(form.isLate).toBe(true);
      expect(form.changed).toEqual(was === now ? [] : ["x"]);
      expect(shown).toBe(mine === was ? now : mine);
      // What is not shown of the two changes is in the note.
      expect(note === undefined).toBe(was === now || mine === now);
      // The same form, sent again without a further change, stores what it shows.
      const again = versionedForm({
        etag: `"2"`,
        stored: { x: now },
        refused: { entered: { etag: `"2"`, "before.x": now, x: shown }, errors: {} },
      });
      expect([again.isLate, again.of("x").value]).toEqual([false, shown]);
    }),
  );
});
