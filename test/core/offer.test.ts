// Who is offered which tool, at which price, and until when. A list and a call ask the same rules, so they agree.
import { expect, test } from "vitest";
import * as z from "zod";
import { withheldRefusal } from "../../src/calls/refusal.ts";
import { toResult } from "../../src/calls/mcp/result.ts";
import { type Plan, planOf } from "../../src/core/plans/plans.ts";
import { DAY_MS } from "../../src/core/time.ts";
import { catalogue } from "../../src/tools/catalogue.ts";
import {
  type ToolUser,
  checkedOffer,
  endNotice,
  hasOnePrice,
  offered,
  offeredTools,
  plansInWords,
  pricesInWords,
  withheld,
} from "../../src/tools/offer.ts";
import { type Tool, defineTool, describedWithPrice, isFailure } from "../../src/tools/tool.ts";
import { config, request, startHost } from "../support/call-host.ts";
import { aResult } from "../support/mcp-requests.ts";

const NOW_MS = Date.UTC(2026, 10, 30, 12);
const declared = {
  name: "count_orders",
  title: "Count orders",
  description: "Counts orders.",
  units: 5,
  scopes: ["tools:read"],
  input: z.strictObject({}),
  output: z.strictObject({ orders: z.int() }),
  annotations: { readOnly: true, idempotent: true, destructive: false },
  failed: isFailure,
  run: async () => ({ data: { orders: 1 } }),
};
const tool = (own: Partial<Tool> = {}): Tool => defineTool({ ...declared, ...own } as Tool);
const deprecated = { since: "2026-11-30", until: "2027-03-01", use: "get_usage" };
const user: ToolUser = { plan: "free", features: {}, allowedTools: null, scopes: ["tools:read"] };
const upgradeUrl = "https://x.example/plans";

test.each<[string, Partial<Tool>, RegExp]>([
  ["an unknown plan", { plans: ["gold"] }, /is for the plans \[gold\]\. Name at least one of app\/config\.ts: free, /],
  ["no plan at all", { plans: [] }, /Name at least one of app\/config\.ts/],
  ["an unknown feature", { features: ["audit_export", "fly"] }, /needs the features \[fly\].*\(audit_export\)/],
  ["an empty list of features", { features: [] }, /needs the features \[\]/],
  ["a day that is none", { deprecated: { ...deprecated, until: "2027-02-31x" } }, /YYYY-MM-DD/],
  ["an end before its announcement", { deprecated: { ...deprecated, until: "2026-11-30" } }, /later `until`/],
  ["itself as its replacement", { deprecated: { ...deprecated, use: "count_orders" } }, /in favour of itself/],
])("a tool with %s is refused with the remedy", (_, own, message) => {
  expect(() => tool(own)).toThrow(message);
});

test("a replacement must exist and must not be ending itself; a plan's price must be of a tool with a constant price", () => {
  const of = (...tools: Tool[]) => new Map(tools.map((each) => [each.name, each]));
  const other = tool({ name: "get_usage" });
  expect(checkedOffer(of(tool({ deprecated }), other), []).size).toBe(2);
  expect(() => checkedOffer(of(tool({ deprecated })), [])).toThrow(/in favour of get_usage, which is no tool/);
  const endingToo = tool({ name: "get_usage", deprecated: { ...deprecated, use: "count_orders" } });
  expect(() => checkedOffer(of(tool({ deprecated }), endingToo), [])).toThrow(/which is deprecated, too/);
  const sold = (toolUnits: Record<string, number>): Plan[] => [{ ...planOf("pro"), toolUnits }];
  expect(checkedOffer(of(tool()), sold({ count_orders: 2 })).size).toBe(1);
  expect(() => checkedOffer(of(tool()), sold({ cout_orders: 2 }))).toThrow(/plan pro .* cout_orders .* no tool/);
  expect(() => checkedOffer(of(tool({ units: { max: 9 } })), sold({ count_orders: 2 }))).toThrow(/decides its price/);
});

test("a list has the tools that plan, features, scopes, account and key allow, always in the catalogue's order", () => {
  const tools = [
    tool({ name: "of_pro", plans: ["pro"] }),
    tool({ name: "all" }),
    tool({ name: "of_feature", features: ["audit_export"] }),
    tool({ name: "writes", scopes: ["tools:read", "tools:write"] }),
    tool({ name: "ended", deprecated: { ...deprecated, since: "2025-01-01", until: "2025-01-02" } }),
  ];
  const names = (own: Partial<ToolUser>) => offeredTools(tools, { ...user, ...own }, NOW_MS).map(({ name }) => name);
  expect(names({})).toEqual(["all"]);
  expect(names({ plan: "pro" })).toEqual(["of_pro", "all"]);
  expect(names({ features: { audit_export: true } })).toEqual(["all", "of_feature"]);
  for (const off of [false, 0, ""]) expect(names({ features: { audit_export: off } })).toEqual(["all"]);
  expect(names({ features: { audit_export: 3 } })).toEqual(["all", "of_feature"]);
  expect(names({ scopes: ["tools:write", "tools:read"] })).toEqual(["all", "writes"]);
  expect(names({ scopes: [] })).toEqual([]);
  expect(names({ allowedTools: ["writes", "of_pro"], plan: "pro", scopes: ["tools:read", "tools:write"] })).toEqual([
    "of_pro",
    "writes",
  ]);
});

test("a call of a withheld tool is refused with what it needs and where to get it", () => {
  const refusal = (own: Partial<Tool>, nowMs = NOW_MS) =>
    withheldRefusal(tool(own), { plan: "free", features: {} }, { upgradeUrl, nowMs });
  expect(refusal({})).toBeUndefined();
  expect(refusal({ plans: ["pro", "enterprise"] })).toEqual({
    code: "tool_not_in_plan",
    message:
      "This account's plan does not have this tool. count_orders is in the plans pro and enterprise. Upgrade at https://x.example/plans",
    upgradeUrl,
  });
  expect(refusal({ features: ["audit_export"] })).toMatchObject({
    code: "feature_missing",
    message: expect.stringContaining(
      "count_orders needs the feature audit_export. Plans that have it: enterprise. Upgrade at https://x.example/plans",
    ) as unknown,
  });
  // No plan that has the feature has the tool.
  const unsold = refusal({ features: ["audit_export"], plans: ["free"] });
  expect(unsold).not.toHaveProperty("upgradeUrl");
  expect(unsold?.message).toContain("Ask support");
  expect(refusal({ deprecated }, Date.parse("2027-03-02"))).toEqual({
    code: "tool_ended",
    message: "This tool has ended. count_orders worked until 2027-03-01. Use get_usage instead.",
  });
});

test("a tool is announced as ending from its day on, works through its last day, and is refused after it", () => {
  const ending = tool({ deprecated });
  const at = (day: string, afterMs = 0) => Date.parse(day) + afterMs;
  const notice = "Deprecated: use get_usage instead. This tool works until 2027-03-01 (UTC).";
  expect(endNotice(ending, at("2026-11-30", -1))).toBeUndefined();
  expect(endNotice(ending, at("2026-11-30"))).toBe(notice);
  expect(withheld(ending, user, at("2027-03-01", DAY_MS - 1))).toBeUndefined();
  expect(withheld(ending, user, at("2027-03-01", DAY_MS))).toMatchObject({ by: "end", use: "get_usage" });
  const described = (nowMs: number) => describedWithPrice(offered(ending, "free", nowMs));
  expect(described(at("2026-11-29"))).toBe("Counts orders. Costs 5 units.");
  expect(described(at("2026-11-30"))).toBe(`${notice} Counts orders. Costs 5 units.`);
  const note = { "tollgate/deprecated": { ...deprecated, message: notice } };
  expect(toResult(aResult(), "2026-07-28", { ...deprecated, message: notice })._meta).toEqual(note);
});

test("a plan's price of a tool is described, and only there; the same tool of a plan is one object", () => {
  const read = catalogue.get("read_document");
  if (read === undefined) throw new Error("The fixture has no read_document.");
  const described = (plan: string) => describedWithPrice(offered(read, plan, NOW_MS));
  expect(described("pro")).toMatch(/Costs 1 unit\.$/);
  expect(described("enterprise")).toMatch(/Costs 3 units\.$/);
  expect(offered(read, "pro", NOW_MS)).toBe(read);
  expect(offered(read, "enterprise", NOW_MS)).toBe(offered(read, "enterprise", NOW_MS + DAY_MS));
  expect(pricesInWords(read)).toBe("1 unit a call, 3 on enterprise");
  expect(pricesInWords(tool({ units: 0 }))).toBe("free");
  expect([plansInWords(read), plansInWords(tool({ plans: ["pro"] }))]).toEqual([undefined, "pro"]);
  expect(plansInWords(tool({ features: ["audit_export"] }))).toBe("enterprise");
  expect(plansInWords(tool({ features: ["audit_export"], plans: ["free"] }))).toBe("on request");
});

test("a tool has one price if every plan has the same and the tool does not decide it", () => {
  const priced = (name: string, units: Tool["units"]) => hasOnePrice({ name, units });
  expect([priced("search_products", 1), priced("read_document", 1), priced("count_orders", { max: 5 })]).toEqual([
    true,
    false,
    false,
  ]);
});

test("a call is admitted and charged at the price of its tenant's plan", async () => {
  const read = { ...request, tool: "read_document", args: { path: "a.md", offset: 0 } };
  const limits = { ...config.limits, unitsPerHour: 2 };
  const { call, charges } = startHost({ host: { tenant: () => ({ ...config, plan: "enterprise", limits }) } });
  expect(await call(read)).toMatchObject({ refusal: { code: "cost_over_limit", cost: 3, limit: 2 } });
  expect(charges).toEqual([]);
});
