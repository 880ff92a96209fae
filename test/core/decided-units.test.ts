// Calls whose tool decides their price: the maximum is held, what was used is charged, and a repeated run has the first price.
import { expect, test } from "vitest";
import type { CallHost } from "../../src/calls/run-call.ts";
import type { CallRequest } from "../../src/core/call.ts";
import { UnitMeter } from "../../src/tools/tool.ts";
import { NOW_MS, config, request, startHost } from "../support/call-host.ts";
import { toolContext } from "../support/tool-context.ts";

const variable: CallRequest = { ...request, tool: "export_products", args: { limit: 50 } };
const sixty = { ...config.limits, unitsPerHour: 60 };
/** Rows with this many products for each call. */
const products = (...counts: number[]): CallHost["rows"] => {
  const { db } = toolContext({
    rows: counts.map((many) => Array.from({ length: many }, (_, n) => ({ id: `p${n}` }))),
  }).context;
  return () => ({ ...db, forCall: () => db });
};

test("a call whose tool decides its price holds the maximum and is charged what it used", async () => {
  const host = { tenant: () => ({ ...config, limits: sixty }), rows: products(7, 3, 0) };
  const { admission, call, charges, finished, used } = startHost({ host });
  const [first, refused] = await Promise.all([call(variable), call({ ...variable, callId: "call-2" })]);
  expect(first).toMatchObject({ receipt: { id: "call-1", units: 7 }, quota: { hour: { used: 7 } } });
  // The maximum of the first call was held while it ran.
  expect(refused).toMatchObject({ refusal: { code: "window_exhausted", used: 50, cost: 50, limit: 60 } });
  expect(await call({ ...variable, callId: "call-3" })).toMatchObject({ receipt: { id: "call-3", units: 3 } });
  expect(await call({ ...variable, callId: "call-4" })).toMatchObject({ kind: "result", receipt: undefined });
  expect(charges.map(({ units }) => units)).toEqual([7, 3]);
  expect(finished.map(({ units }) => units)).toEqual([0, 7, 3, 0]);
  expect([admission.inFlight, used()]).toEqual([0, 10]);
});

test("a second attempt of a charged call has the first one's price, whatever the second run found", async () => {
  const usage = { chargeOf: (callId: string) => ({ callId, atMs: NOW_MS, units: 9 }) };
  const { call, charges, used } = startHost({
    usage,
    host: { tenant: () => ({ ...config, limits: sixty }), rows: products(4) },
  });
  expect(await call({ ...variable, attempt: 2 })).toMatchObject({
    kind: "result",
    receipt: { id: "call-1", units: 9 },
  });
  expect([used(), charges.length]).toEqual([0, 0]);
});

test.each([
  [{ max: 5 }, [6], /charges 6 units after 0: its maximum is 5/],
  [{ max: 5 }, [3, 3], /charges 3 units after 3: its maximum is 5/],
  [{ max: 5 }, [0.5], /whole units/],
  [{ max: 5 }, [-1], /whole units/],
  [{ max: 5 }, [Number.NaN], /whole units/],
  [5, [1], /constant price/],
])("a tool with the units %j may not charge %j", (units, charges, problem) => {
  const meter = new UnitMeter({ name: "some_tool", units });
  expect(() => charges.forEach((each) => meter.charge(each))).toThrow(problem);
});

test("the price of a call is final when the call has ended", () => {
  const meter = new UnitMeter({ name: "some_tool", units: { max: 5 } });
  meter.charge(2);
  meter.charge(3);
  expect(meter.end()).toBe(5);
  expect(() => meter.charge(0)).toThrow(/after its call has ended/);
});
