// The table of a tenant's states: paths back to `active`, ways back that exist, what no event may do, and its page in the docs.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { errors, support } from "../../src/core/errors.ts";
import { tenantStates } from "../../src/core/tenant/tenant.ts";
import {
  type Condition,
  PAST_DUE_SERVICE_MS,
  type SettlingFacts,
  type TenantEvent,
  afterEvent,
  conditionOf,
  conditions,
  permissions,
  refusedByState,
  serviceOf,
  statesThatTake,
  suspenders,
  tenantEvents,
  tenantTable,
  ways,
} from "../../src/core/tenant/tenant-state.ts";

const NOW_MS = Date.UTC(2026, 10, 28);
const HOUR_MS = 3_600_000;
const events = Object.keys(tenantEvents) as TenantEvent[];
const page = "docs/tenant-states.md";
const pathOf = (path: string): string => join(import.meta.dirname, "../..", path);
const read = (path: string): string => readFileSync(pathOf(path), "utf8");

/** A tenant in each condition, as its row is stored. */
const example: Readonly<Record<Condition, SettlingFacts>> = {
  provisioning: facts({ state: "provisioning" }),
  trial: facts({ state: "trial", trialUntilMs: NOW_MS + HOUR_MS }),
  trial_over: facts({ state: "trial", trialUntilMs: NOW_MS }),
  active: facts({ state: "active" }),
  past_due: facts({ state: "past_due", pastDueSinceMs: NOW_MS - HOUR_MS }),
  overdue: facts({ state: "past_due", pastDueSinceMs: NOW_MS - PAST_DUE_SERVICE_MS }),
  suspended_by_operator: facts({ state: "suspended", suspendedBy: "operator" }),
  suspended_by_billing: facts({ state: "suspended", suspendedBy: "billing" }),
  paused: facts({ state: "suspended", suspendedBy: "pause" }),
  leaving: facts({ state: "leaving", stateBefore: "active" }),
  gone: facts({ state: "gone" }),
};

function facts(own: Partial<SettlingFacts> & Pick<SettlingFacts, "state">): SettlingFacts {
  return { suspendedBy: null, trialUntilMs: null, pastDueSinceMs: null, endedAtMs: null, ...own };
}

const anyFacts: fc.Arbitrary<SettlingFacts> = fc.record({
  state: fc.constantFrom(...tenantStates),
  suspendedBy: fc.constantFrom(...suspenders, null),
  trialUntilMs: fc.constantFrom(null, NOW_MS - 1, NOW_MS, NOW_MS + HOUR_MS),
  pastDueSinceMs: fc.constantFrom(null, NOW_MS - PAST_DUE_SERVICE_MS, NOW_MS - HOUR_MS),
  endedAtMs: fc.constantFrom(null, NOW_MS - HOUR_MS),
  stateBefore: fc.constantFrom(...tenantStates.filter((state) => state !== "leaving" && state !== "gone")),
});

function isServed(condition: Condition): boolean {
  return tenantTable[condition].calls === "served";
}

test("from each condition but gone a path leads to active", () => {
  for (const start of conditions.filter((each) => each !== "gone")) {
    const seen = new Set<Condition>([start]);
    for (let grown = true; grown;) {
      grown = false;
      for (const condition of [...seen]) {
        for (const event of events) {
          const after = afterEvent(example[condition], event, NOW_MS);
          const next = after === undefined ? undefined : conditionOf(after, NOW_MS);
          if (next !== undefined && !seen.has(next)) grown = Boolean(seen.add(next));
        }
      }
    }
    expect(seen, start).toContain("active");
  }
  expect(events.map((event) => afterEvent(example.gone, event, NOW_MS)).filter((after) => after !== undefined)).toEqual(
    [],
  );
});

test("a condition that is not served has ways back, each of them one request that leads on", () => {
  const known = read("src/routes.ts");
  for (const condition of conditions) {
    const row = tenantTable[condition];
    expect(row.ways.length > 0, condition).toBe(!isServed(condition) && condition !== "gone");
    for (const way of row.ways) {
      const { by, route, event } = ways[way];
      expect(known).toContain(`route("${route}", "${by === "operator" ? "operator" : "tenant_admin"}"`);
      const after = afterEvent(example[condition], event, NOW_MS);
      expect(after, `${way} of ${condition}`).toBeDefined();
      // Another attempt of provisioning is under way. Every other way leads to a served account.
      if (after !== undefined && condition !== "provisioning")
        expect(isServed(conditionOf(after, NOW_MS)), `${way} of ${condition}`).toBe(true);
    }
  }
});

test("the operator can always lead a tenant back, and an administrator unless the operator holds it", () => {
  for (const condition of conditions.filter((each) => !isServed(each) && each !== "gone")) {
    const who = new Set(tenantTable[condition].ways.map((way) => ways[way].by));
    expect(who.has("operator"), condition).toBe(true);
    const held = ["suspended_by_operator", "paused", "provisioning"].includes(condition);
    expect(who.has("administrator"), condition).toBe(!held);
  }
});

test("every condition says whether calls are served, and what is refused is a refusal", () => {
  for (const condition of conditions) {
    const { calls } = tenantTable[condition];
    expect(conditionOf(example[condition], NOW_MS)).toBe(condition);
    expect(refusedByState(example[condition], NOW_MS)).toBe(calls === "served" ? undefined : calls);
    if (calls !== "served") expect(errors[calls].status).toBeLessThan(404);
    const shown = serviceOf(example[condition], { tenantId: "acme", publicUrl: "https://x.test", nowMs: NOW_MS });
    expect(shown.served).toBe(calls === "served");
    expect(shown.waysBack.map(({ request }) => request)).toEqual(
      tenantTable[condition].ways.map((way) =>
        ways[way].route.replace(" ", " https://x.test").replace(":tenantId", "acme"),
      ),
    );
  }
});

test("no event but `resume` and a removal ends an operator's suspension, and none leaves gone", () => {
  fc.assert(
    fc.property(anyFacts, fc.constantFrom(...events), (before, event) => {
      const after = afterEvent(before, event, NOW_MS);
      const condition = conditionOf(before, NOW_MS);
      if (condition === "gone") expect(after).toBeUndefined();
      if (after === undefined) return;
      const next = conditionOf(after, NOW_MS);
      if (condition === "suspended_by_operator" && event !== "resume" && event !== "remove")
        expect(next).toBe(condition);
      if (next === "gone") expect(event).toBe("grace_over");
      if (next === "leaving") expect(event === "remove" || condition === "leaving").toBe(true);
      if (next === "active")
        expect(after).toMatchObject({ suspendedBy: null, trialUntilMs: null, pastDueSinceMs: null });
    }),
  );
});

test("after the operator resumes a tenant its trial has not passed, and nothing suspends it but the end of its subscription", () => {
  fc.assert(
    fc.property(anyFacts, (before) => {
      const after = afterEvent(before, "resume", NOW_MS);
      if (after === undefined) return;
      const next = conditionOf(after, NOW_MS);
      expect(next).not.toBe("trial_over");
      expect(next).not.toBe("suspended_by_operator");
      if (next === "suspended_by_billing") expect(before.endedAtMs).not.toBeNull();
    }),
  );
});

test("an administrator's return gives no account a longer trial, an open debt's end, or a way round the operator", () => {
  fc.assert(
    fc.property(anyFacts, (before) => {
      const after = afterEvent({ ...before, state: "leaving" }, "reactivate", NOW_MS);
      expect(after?.trialUntilMs).toBe(before.trialUntilMs);
      expect(after?.pastDueSinceMs).toBe(before.pastDueSinceMs);
      if (before.stateBefore === "suspended" && (before.suspendedBy === "operator" || before.suspendedBy === null))
        expect(after).toMatchObject({ state: "suspended", suspendedBy: "operator" });
    }),
  );
});

test("a statement that changes a state takes the states of the table", () => {
  expect(statesThatTake("remove").toSorted()).toEqual(tenantStates.filter((state) => state !== "gone").toSorted());
  expect(statesThatTake("change_plan")).not.toContain("leaving");
  expect(statesThatTake("change_plan")).not.toContain("gone");
});

/** The tables of the page in the docs. */
function tables(): string {
  const code = (text: string): string => `\`${text}\``;
  const row = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  const allowed = conditions.map((condition) => {
    const { calls, allows, ways: back, meaning, says } = tenantTable[condition];
    const refusal = calls === "served" ? [] : [errors[calls].advice, says?.({ id: "ID", leavingUntilMs: 0 }, "") ?? ""];
    return row([
      code(condition),
      meaning,
      calls === "served"
        ? "served"
        : `${code(calls)} ${refusal.join(" ")}`
            .trim()
            .replace(/1970\S+/, "TIME")
            .replace(support, "SUPPORT"),
      permissions
        .map((each) => (allows.includes(each) ? code(each) : ""))
        .filter(Boolean)
        .join(" "),
      back.map((way) => `${ways[way].by}: ${code(ways[way].route.replace(":tenantId", "ID"))}`).join("<br>") || "-",
    ]);
  });
  const next = events.map((event) =>
    row([
      `${code(event)}: ${tenantEvents[event]}`,
      ...conditions
        .filter((each) => each !== "gone")
        .map((condition) => {
          const to = tenantTable[condition].next[event];
          return to === undefined ? "" : to === condition ? "=" : to;
        }),
    ]),
  );
  return [
    row(["condition", "meaning", "calls", "allowed", "ways back"]),
    row(["---", "---", "---", "---", "---"]),
    ...allowed,
    "",
    row(["event", ...conditions.filter((each) => each !== "gone").map(code)]),
    row(conditions.map(() => "---")),
    ...next,
  ].join("\n");
}

test("docs/tenant-states.md shows the table", async () => {
  const text = read(page).replace(/(?<=<!-- table -->\n)[^]*(?=<!-- table -->)/, () => `\n${tables()}\n\n`);
  // `npx vitest run -u` with this file writes the page.
  await expect(text).toMatchFileSnapshot(pathOf(page));
});
