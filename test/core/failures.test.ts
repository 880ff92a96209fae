import { expect, test, vi } from "vitest";
import * as z from "zod";
import type { ControlDatabase } from "../../src/adapters/neon.ts";
import { idOfRow, isolated, readableList, readableRows } from "../../src/control/failures-store.ts";
import { AppError } from "../../src/core/errors.ts";
import { auditStore } from "../../src/identity/audit/audit-store.ts";

vi.spyOn(console, "error").mockImplementation(() => undefined);

/** A control database that keeps the parameters of each statement. */
function aControl(fails = false) {
  const statements: unknown[][] = [];
  const query = async (_text: string, params: readonly unknown[] = []) => {
    if (fails) throw new AppError("control_unavailable");
    statements.push([...params]);
    return [];
  };
  return { control: { query } as unknown as ControlDatabase, statements };
}

test.each([1, 3, undefined])("one item that fails holds back no other and is recorded, %s at once", async (atOnce) => {
  const { control, statements } = aControl();
  const done: number[] = [];
  const how = { part: "numbers", idOf: (n: number) => `n${n}\0`, ...(atOnce !== undefined && { atOnce }) };
  await isolated(control, [1, 2, 3, 4, 5, 6], how, async (n) => {
    if (n % 2 === 0) throw new AppError("internal", `no ${n}`);
    done.push(n);
  });
  expect(done).toEqual([1, 3, 5]);
  const items = ["n2\uFFFD", "n4\uFFFD", "n6\uFFFD"];
  expect(statements).toEqual([["numbers", items, ["AppError: no 2", "AppError: no 4", "AppError: no 6"]]]);
});

test("a failure that cannot be recorded holds back nothing either", async () => {
  const done: number[] = [];
  await isolated(aControl(true).control, [1, 2], { part: "numbers", idOf: String }, async (n) => {
    if (n === 1) throw new Error("no");
    done.push(n);
  });
  expect(done).toEqual([2]);
});

test("an outage of the control database ends the work, because every item would fail", async () => {
  const { control, statements } = aControl();
  const tried: number[] = [];
  const work = isolated(control, [1, 2, 3], { part: "numbers", idOf: String, atOnce: 1 }, async (n) => {
    tried.push(n);
    if (n === 2) throw new AppError("control_unavailable");
  });
  await expect(work).rejects.toMatchObject({ code: "control_unavailable" });
  expect([tried, statements]).toEqual([[1, 2], []]);
});

test("a row that cannot be read is recorded, and the others are used", async () => {
  const { control, statements } = aControl();
  const rows = [
    { id: "a", n: 1 },
    { id: "b", n: "many" },
    { id: "c", n: 3 },
  ];
  const schema = z.object({ id: z.string(), n: z.int() });
  const read = await readableRows(control, rows, schema, { part: "rows", idOf: ({ id }) => String(id) });
  expect(read.map(({ id }) => id)).toEqual(["a", "c"]);
  expect(statements).toEqual([["rows", ["b"], [expect.stringContaining("ZodError")]]]);
});

test.each([0, 1, 5, 40])(
  "a list with %s unreadable rows between its rows has full pages, and records each once",
  async (bad) => {
    const { control, statements } = aControl();
    const rows = [{ id: "a" }, ...Array.from({ length: bad }, (_, n) => ({ id: n })), { id: "b" }, { id: "c" }];
    const counts: number[] = [];
    const schema = z.object({ id: z.string() });
    const list = (limit: number) =>
      readableList(control, limit, schema, { part: "rows", idOf: idOfRow }, async (count) => {
        counts.push(count);
        return rows.slice(0, count);
      });
    expect((await list(2)).map(({ id }) => id)).toEqual(["a", "b"]);
    expect(counts.length).toBeLessThan(7);
    const [recorded = []] = statements;
    expect(new Set(recorded[1] as string[]).size).toBe(bad);
    expect((await list(9)).map(({ id }) => id)).toEqual(["a", "b", "c"]);
  },
);

test("an event that cannot be read hides no other event of the audit log, and is recorded", async () => {
  const event = {
    ...{ seq: 3, tenantId: null, position: 3, id: "e3", atMs: 1, recordedAtMs: 1, actorKind: "operator", actorId: "o" },
    ...{ actorName: null, onBehalfOf: null, action: "listTenants", target: null, outcome: "succeeded", status: 200 },
    ...{ code: null, requestId: "r", address: null, detail: {}, previousHash: "", hash: "" },
  };
  const rows = [event, { ...event, id: "e2", atMs: Infinity }, { ...event, id: "e1", seq: 1 }];
  const recorded: unknown[][] = [];
  const query = async (text: string, params: readonly unknown[] = []) => {
    if (text.startsWith("SELECT")) return rows.slice(0, Number(params.at(-1)));
    recorded.push([...params]);
    return [];
  };
  const store = auditStore({ query } as unknown as ControlDatabase);
  const found = await store.list({ seesOperators: true, limit: 2 });
  expect(found.map(({ id }) => id)).toEqual(["e3", "e1"]);
  expect(recorded).toEqual([["audit_events", ["e2"], [expect.stringContaining("ZodError")]]]);
});
