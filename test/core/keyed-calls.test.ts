// The ids of calls with a client's idempotency key, over instants around midnight: attempts within the key's life are charged
// under one id, on whichever paths they run.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import {
  CHARGED_WITHIN_MS,
  CHARGE_KNOWN_MS,
  KEY_LIFE_MS,
  chargedAs,
  keyedCall,
  mayRunWithoutObject,
} from "../../src/calls/keyed-calls.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { HOUR_MS, MINUTE_MS } from "../../src/core/time.ts";

const MIDNIGHT_MS = Date.UTC(2026, 11, 1);
const call = { key: "k-1", tool: "search_products", args: { query: "" } };
const sentAt = (nowMs: number) => keyedCall(TenantId.parse("acme"), { ...call, nowMs });

interface Attempt {
  path: "object" | "fallback";
  /** After the first attempt. */
  afterMs: number;
  /** From the instant of its id until it runs: a lost attempt comes first. */
  waitMs: number;
  /** Until the other path knows its charge. */
  knownAfterMs: number;
}

/** The ids under which these attempts are charged, by the product's rules. */
async function chargedIds(firstMs: number, attempts: readonly Attempt[]): Promise<Set<string>> {
  const charges: { callId: string; units: number; atMs: number; path: string; knownAtMs: number }[] = [];
  for (const { path, afterMs, waitMs, knownAfterMs } of attempts.toSorted((a, b) => a.afterMs - b.afterMs)) {
    const sentAtMs = firstMs + afterMs;
    const atMs = sentAtMs + waitMs;
    const { callId, idempotency } = await sentAt(sentAtMs);
    if (path === "fallback" && !mayRunWithoutObject(sentAtMs, atMs)) continue;
    // The object has its own keys for their life. Nothing else is known at once.
    const own = charges.find((each) => path === "object" && each.path === "object");
    const known = charges.filter(
      (each) => each.knownAtMs <= atMs && [callId, idempotency.earlierId].includes(each.callId),
    );
    const id = own?.callId ?? chargedAs(known, atMs)?.callId ?? callId;
    charges.push({ callId: id, units: 1, atMs, path, knownAtMs: atMs + knownAfterMs });
  }
  return new Set(charges.map(({ callId }) => callId));
}

test("a call with a key is charged once, also when its attempts lie on both sides of midnight", async () => {
  const attempt = fc.record({
    path: fc.constantFrom("object" as const, "fallback" as const),
    afterMs: fc.oneof(
      fc.integer({ min: 0, max: 40 * MINUTE_MS }),
      fc.integer({ min: 0, max: KEY_LIFE_MS - 2 * MINUTE_MS }),
    ),
    waitMs: fc.integer({ min: 0, max: CHARGED_WITHIN_MS }),
    knownAfterMs: fc.integer({ min: 0, max: CHARGE_KNOWN_MS }),
  });
  const firstMs = fc.oneof(
    fc.integer({ min: -40 * MINUTE_MS, max: 15 * MINUTE_MS }),
    fc.integer({ min: -24 * HOUR_MS, max: 0 }),
  );
  await fc.assert(
    fc.asyncProperty(firstMs, attempt, fc.array(attempt, { maxLength: 3 }), async (beforeMs, first, others) => {
      const ids = await chargedIds(MIDNIGHT_MS + beforeMs, [{ ...first, afterMs: 0 }, ...others]);
      expect(ids.size).toBeLessThanOrEqual(1);
    }),
    {
      numRuns: 300,
      // The first attempt is charged after midnight and is known too late for one that is sent ten minutes after midnight.
      examples: [
        [
          -1,
          { path: "object", afterMs: 0, waitMs: 8, knownAfterMs: CHARGE_KNOWN_MS - 6 },
          [{ path: "fallback", afterMs: CHARGE_KNOWN_MS + 1, waitMs: 0, knownAfterMs: 0 }],
        ],
      ],
    },
  );
});

test("a call that ran without its object before midnight keeps its id in the object afterwards", async () => {
  const before = await sentAt(MIDNIGHT_MS - 11 * MINUTE_MS);
  const after = await sentAt(MIDNIGHT_MS + MINUTE_MS);
  expect(after.callId).not.toBe(before.callId);
  expect(after.idempotency.earlierId).toBe(before.callId);
  const charge = { callId: before.callId, atMs: MIDNIGHT_MS - 11 * MINUTE_MS, units: 3 };
  expect(chargedAs([charge], MIDNIGHT_MS + MINUTE_MS)).toBe(charge);
  // After its life the key is free: a call with it is another call.
  expect(chargedAs([charge], charge.atMs + KEY_LIFE_MS)).toBeUndefined();
});

test.each([
  [-11, 0, true],
  [-11, 2, false],
  [-10, 0, false],
  [0, 0, false],
  [9, 2, false],
  [10, 0, false],
  [11, 0, true],
])("a call sent %i minutes after midnight that runs %i minutes later: %s", (sent, wait, may) => {
  const sentAtMs = MIDNIGHT_MS + sent * MINUTE_MS;
  expect(mayRunWithoutObject(sentAtMs, sentAtMs + wait * MINUTE_MS)).toBe(may);
});
