import fc from "fast-check";
import { expect, test } from "vitest";
import {
  type AlarmLevel,
  type DeploymentState,
  REMIND_AFTER_MS,
  type Notified,
  alarmLevels,
  indicators,
  mustNotify,
  readIndicators,
} from "../../src/operations/indicators.ts";

const nothing = Object.fromEntries(indicators.map(({ name }) => [name, 0])) as unknown as DeploymentState;

test("every indicator has its levels in order and says what to do", () => {
  expect(new Set(indicators.map(({ name }) => name)).size).toBe(indicators.length);
  for (const { warning, critical, runbook } of indicators) {
    expect(warning).toBeLessThanOrEqual(critical);
    expect(runbook.length).toBeGreaterThan(20);
  }
});

test("an indicator is ok up to its warning level, warns up to its critical level, is critical beyond, and is ok without a value", () => {
  for (const { name, warning, critical } of indicators) {
    const at = (value: number | null): AlarmLevel | undefined =>
      readIndicators({ ...nothing, [name]: value }).find((reading) => reading.name === name)?.level;
    expect(at(null)).toBe("ok");
    expect(at(warning)).toBe("ok");
    expect(at(critical + 1)).toBe("critical");
    if (critical > warning) expect(at(critical)).toBe("warning");
  }
});

test("the operator is notified of the newest level for any sequence of levels, and of the same level again only as a reminder", () => {
  const step = fc.record({
    level: fc.constantFrom(...alarmLevels),
    afterMs: fc.integer({ min: 0, max: REMIND_AFTER_MS }),
    taken: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      let told: Notified | undefined;
      let nowMs = 0;
      let before: AlarmLevel = "ok";
      for (const { level, afterMs, taken } of steps) {
        nowMs += afterMs;
        const tells = mustNotify(level, told, nowMs);
        if (tells && level === (told?.level ?? "ok")) {
          expect(level).toBe("critical");
          expect(nowMs - (told?.atMs ?? 0)).toBeGreaterThanOrEqual(REMIND_AFTER_MS);
        }
        if (!tells) expect(told?.level ?? "ok").toBe(level);
        if (tells && taken) told = { level, atMs: nowMs };
        before = level;
      }
      if (mustNotify(before, told, nowMs)) return;
      expect(told?.level ?? "ok").toBe(before);
    }),
  );
});
