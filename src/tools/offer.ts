// What a tenant is offered: which tools its plan and features have, what they cost there, and which tools are ending. Rules only:
// the instant is passed in.
//
// Invariant: what a list shows is what a call gets. Both ask these rules.
import { type Features, type Plan, type PlanName, plans } from "../core/plans/plans.ts";
import { DAY_MS } from "../core/time.ts";
import { type Tool, decidesUnits, mostUnits, priceInWords } from "./tool.ts";

/** A tenant as these rules see it. `features`: those of its plan and its own. */
export interface Subscriber {
  plan: PlanName;
  features: Features;
}

/** A caller as these rules see it. `allowedTools`: those of the tenant and of the key; `null`: all. */
export interface ToolUser extends Subscriber {
  allowedTools: readonly string[] | null;
  scopes: readonly string[];
}

/** Why a tool is not offered. */
export type Withheld =
  | { by: "plan"; plans: readonly PlanName[] }
  /** `features`: those that the tenant lacks. `plans`: those that have them all. */
  | { by: "feature"; features: readonly string[]; plans: readonly PlanName[] }
  | { by: "end"; until: string; use: string };

type Restricted = Pick<Tool, "plans" | "features" | "deprecated">;

/** Why a tenant may not call the tool now, or `undefined`. */
export function withheld(tool: Restricted, { plan, features }: Subscriber, nowMs: number): Withheld | undefined {
  if (tool.deprecated !== undefined && nowMs >= endMsOf(tool.deprecated)) return { by: "end", ...tool.deprecated };
  if (tool.plans !== undefined && !tool.plans.includes(plan)) return { by: "plan", plans: tool.plans };
  const lacking = (tool.features ?? []).filter((name) => !isOn(features[name]));
  if (lacking.length === 0) return undefined;
  const having = [...plans.values()].filter(
    (each) => (tool.plans ?? [each.name]).includes(each.name) && lacking.every((name) => isOn(each.features?.[name])),
  );
  return { by: "feature", features: lacking, plans: having.map(({ name }) => name) };
}

/** A feature that is off, 0 or empty is not there. */
function isOn(feature: Features[string] | undefined): boolean {
  return feature !== undefined && feature !== false && feature !== 0 && feature !== "";
}

/** The tools that this caller may use, in the order of the catalogue, each with its price for the caller's plan. */
export function offeredTools(tools: Iterable<Tool>, user: ToolUser, nowMs: number): Tool[] {
  const { allowedTools, scopes } = user;
  return [...tools]
    .filter(
      (tool) =>
        (allowedTools === null || allowedTools.includes(tool.name)) &&
        tool.scopes.every((scope) => scopes.includes(scope)) &&
        withheld(tool, user, nowMs) === undefined,
    )
    .map((tool) => offered(tool, user.plan, nowMs));
}

/** One object for each price and notice of a tool: what is made of a tool once is found by it. */
const variants = new WeakMap<Tool, Map<string, Tool>>();

/** The tool as a plan has it: its price there, and the notice of its end first in its description. */
export function offered(tool: Tool, plan: PlanName, nowMs: number): Tool {
  const units = unitsOn(tool, plans.get(plan));
  const notice = endNotice(tool, nowMs);
  if (units === tool.units && notice === undefined) return tool;
  const known = variants.get(tool) ?? new Map<string, Tool>();
  variants.set(tool, known);
  const key = JSON.stringify([units, notice]);
  const variant = known.get(key) ?? {
    ...tool,
    units,
    description: notice === undefined ? tool.description : `${notice} ${tool.description}`,
  };
  known.set(key, variant);
  return variant;
}

function unitsOn(tool: Pick<Tool, "name" | "units">, plan: Pick<Plan, "toolUnits"> | undefined): Tool["units"] {
  const table = plan?.toolUnits ?? {};
  return Object.hasOwn(table, tool.name) ? (table[tool.name] ?? tool.units) : tool.units;
}

/** Whether every call of the tool costs the same, on each plan. If not, two runs of one call can differ in price. */
export function hasOnePrice(tool: Pick<Tool, "name" | "units">, sold: Iterable<Plan> = plans.values()): boolean {
  return !decidesUnits(tool) && [...sold].every((plan) => unitsOn(tool, plan) === tool.units);
}

/** The prices of a tool in words, for people who have no plan yet: "20 units a call, 10 on enterprise". */
export function pricesInWords(tool: Pick<Tool, "name" | "units">, sold: Iterable<Plan> = plans.values()): string {
  const own = mostUnits(tool) === 0 ? "free" : `${priceInWords(tool)} a call`;
  const others = [...sold].flatMap((plan) => {
    const units = unitsOn(tool, plan);
    if (units === tool.units) return [];
    return [`${mostUnits({ units }) === 0 ? "free" : mostUnits({ units }).toLocaleString("en-US")} on ${plan.name}`];
  });
  return [own, ...others].join(", ");
}

/** Which plans have a tool, in words; `undefined`: all of them. */
export function plansInWords(tool: Restricted, sold: Iterable<Plan> = plans.values()): string | undefined {
  const all = [...sold];
  const having = all.filter(
    ({ name, features = {} }) =>
      (tool.plans ?? [name]).includes(name) && (tool.features ?? []).every((feature) => isOn(features[feature])),
  );
  return having.length === all.length ? undefined : having.map(({ name }) => name).join(", ") || "on request";
}

// ---- the end of a tool

/** The first instant at which the tool is refused: its last day counts (UTC). */
function endMsOf({ until }: NonNullable<Tool["deprecated"]>): number {
  return Date.parse(until) + DAY_MS;
}

/** The notice that a tool is ending, from the announced day on. */
export function endNotice({ deprecated }: Pick<Tool, "deprecated">, nowMs: number): string | undefined {
  if (deprecated === undefined || nowMs < Date.parse(deprecated.since)) return undefined;
  const { until, use } = deprecated;
  return `Deprecated: use ${use} instead. This tool works until ${until} (UTC).`;
}

// ---- the whole catalogue

/** Returns the catalogue unchanged. Throws when a replacement or a price of a plan is for a tool that does not exist. */
export function checkedOffer(
  catalogue: ReadonlyMap<string, Tool>,
  sold: Iterable<Plan> = plans.values(),
): ReadonlyMap<string, Tool> {
  for (const { name, deprecated } of catalogue.values()) {
    if (deprecated === undefined) continue;
    const replacement = catalogue.get(deprecated.use);
    if (replacement === undefined)
      throw new Error(
        `The tool ${name} is deprecated in favour of ${deprecated.use}, which is no tool. Name one that exists.`,
      );
    if (replacement.deprecated !== undefined)
      throw new Error(
        `The tool ${name} is deprecated in favour of ${deprecated.use}, which is deprecated, too. Name another.`,
      );
  }
  for (const { name: plan, toolUnits = {} } of sold)
    for (const name of Object.keys(toolUnits)) {
      const tool = catalogue.get(name);
      if (tool === undefined)
        throw new Error(
          `The plan ${plan} of app/config.ts has a price of ${name} in toolUnits, which is no tool. Remove it.`,
        );
      if (decidesUnits(tool))
        throw new Error(
          `The plan ${plan} of app/config.ts has a price of ${name} in toolUnits, but the tool decides its price. Remove it.`,
        );
    }
  return catalogue;
}
