// What a tool's declaration may say about who gets the tool and until when. The rules that use it are in offer.ts.
import { config } from "../core/app-config.ts";
import type { Tool } from "./tool.ts";

type Declared = Pick<Tool, "name" | "plans" | "features" | "deprecated">;

/** What is wrong with the restrictions of a tool's declaration. */
export function restrictionProblems({ name, plans: named, features, deprecated }: Declared): string[] {
  const sold = Object.entries(config.plans);
  const planNames = sold.map(([plan]) => plan);
  const known = new Set(sold.flatMap(([, plan]) => Object.keys(plan.features ?? {})));
  const unknown = (features ?? []).filter((feature) => !known.has(feature));
  const day = (text: string): boolean => /^\d{4}-\d{2}-\d{2}$/.test(text) && !Number.isNaN(Date.parse(text));
  const rules: [holds: boolean, problem: string][] = [
    [
      named === undefined || (named.length > 0 && named.every((plan) => planNames.includes(plan))),
      `is for the plans [${named?.join(", ")}]. Name at least one of app/config.ts: ${planNames.join(", ")}.`,
    ],
    [
      unknown.length === 0 && features?.length !== 0,
      `needs the features [${unknown.join(", ")}]. Name features of a plan in app/config.ts (${[...known].join(", ") || "none has any"}). A plan without one may have it as false.`,
    ],
    [
      deprecated === undefined ||
        (day(deprecated.since) && day(deprecated.until) && deprecated.since < deprecated.until),
      "is deprecated on days that are none. Write `since` and a later `until` as YYYY-MM-DD.",
    ],
    [deprecated?.use !== name, "is deprecated in favour of itself. Name another tool in `use`."],
  ];
  return rules.flatMap(([holds, problem]) => (holds ? [] : [problem]));
}
