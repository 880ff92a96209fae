// A tenant's configuration as the texts of a form's fields, and back as a patch of the document. The patch's own schema then checks
// it, so that the form takes what the API takes. Pure.
import * as z from "zod";
import type { Features, Limits } from "../../../../core/plans/plans.ts";
import type { Configuration } from "../../../../operations/configuration-api.ts";
import { settingsPatch, settingsShape, settingsTexts } from "../../../parts/settings-fields.tsx";

type LimitName = Exclude<keyof Limits, "unitsPerHourByTool">;

interface LimitField {
  name: LimitName;
  label: string;
  /** Where the field has dollars, and the document cents. */
  isMoney?: boolean;
}

export const limitFields: readonly LimitField[] = [
  { name: "unitsPerHour", label: "Units an hour" },
  { name: "unitsPerMonth", label: "Units a month" },
  { name: "callsPerMinute", label: "Calls a minute" },
  { name: "callsInFlight", label: "Calls at once" },
  { name: "sessions", label: "Database sessions" },
  { name: "sessionIdleSeconds", label: "Idle session (seconds)" },
  { name: "spendCapCents", label: "Spend cap ($)", isMoney: true },
  { name: "maxSpendCapCents", label: "Highest own cap ($)", isMoney: true },
];

/** The word of the document for a limit that is removed. */
const NONE = "none";

/** A limit as the field shows it. */
export function limitText(isMoney = false, limit: number | null): string {
  if (limit === null) return NONE;
  return isMoney ? dollarsOf(limit) : String(limit);
}

const dollarsOf = (cents: number): string => (cents % 100 === 0 ? String(cents / 100) : (cents / 100).toFixed(2));
const digits = (text: string): number => Number(text.replaceAll(/[$, ]/g, ""));

const Count = z
  .string()
  .regex(/^(?:[\d, ]*\d[\d, ]*|none)$/i, "must be a whole number, or the word none")
  .transform((text) => (text.toLowerCase() === NONE ? NONE : digits(text)))
  .optional();
const Dollars = z
  .string()
  .regex(/^\$? ?[\d, ]*\d(?:\.\d{1,2})?$/, "must be an amount such as 100 or 99.50")
  .transform((text) => Math.round(digits(text) * 100));
const Limit = (isMoney = false) =>
  isMoney ? z.union([z.literal(NONE), Dollars], "must be an amount such as 99.50, or the word none").optional() : Count;

/** Lines of a name and a value, such as `search_products = 100`. A name or a text that could be misread is a JSON string. */
function linesOf<Value>(read: (text: string) => Value | undefined, wrong: string) {
  return z
    .string()
    .transform((text, context) => {
      const found: [string, Value][] = [];
      for (const line of text.split(/\r?\n/).filter((each) => each.trim() !== "")) {
        const { name, text: valueText } = /^\s*(?<name>"(?:[^"\\]|\\.)*"|[^=]*?)\s*=\s*(?<text>.*?)\s*$/.exec(line)
          ?.groups ?? { name: "", text: "" };
        const value = read(valueText ?? "");
        const readName = name?.startsWith('"') === true ? jsonText(name) : name;
        if (value === undefined || readName === undefined || readName === "")
          context.addIssue({ code: "custom", message: `has a line that cannot be read: ${line.trim()}. ${wrong}` });
        else found.push([readName, value]);
      }
      return Object.fromEntries(found);
    })
    .optional();
}

function jsonText(text: string): string | undefined {
  try {
    return z.string().safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

/** A name or text that stands for itself in a line: no quotes, no sign of the line, and no white space that would be trimmed. */
const isPlain = (text: string): boolean => /^[^\s"=](?:[^\p{Cc}"=]*[^\s"=])?$/u.test(text);
const quoted = (text: string): string => (isPlain(text) ? text : JSON.stringify(text));

const NUMBER = /^-?\d+(?:\.\d+)?(?:e[+-]?\d+)?$/i;

function featureOf(text: string): Features[string] | undefined {
  if (text === "true" || text === "false") return text === "true";
  if (NUMBER.test(text)) return Number(text);
  if (text.startsWith('"')) return jsonText(text);
  return text === "" ? undefined : text;
}

function featureText(value: Features[string]): string {
  if (typeof value !== "string") return String(value);
  return typeof featureOf(value) === "string" ? quoted(value) : JSON.stringify(value);
}

function linesFrom<Value>(values: Readonly<Record<string, Value>>, textOf: (value: Value) => string): string {
  return Object.entries(values)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => `${quoted(name)} = ${textOf(value)}`)
    .join("\n");
}

const limitShape = Object.fromEntries(limitFields.map(({ name, isMoney }) => [name, Limit(isMoney)])) as Record<
  LimitName,
  ReturnType<typeof Limit>
>;

export const ConfigurationForm = z.object({
  etag: z.string(),
  ...limitShape,
  unitsPerHourByTool: linesOf(
    (text) => (/^[\d, ]*\d$/.test(text) ? digits(text) : undefined),
    "Write search_products = 100.",
  ),
  /** Whether every tool is allowed, also future ones. */
  tools: z.enum(["all", "chosen"]),
  allowedTools: z.array(z.string()).default([]),
  features: linesOf(featureOf, "Write seats = 5."),
  region: z.string().optional(),
  ...settingsShape,
  capCents: Dollars.optional(),
});

type Fields = z.output<typeof ConfigurationForm>;

/** The texts of the fields. A limit that is as it was sold is empty. `tools`: the names of all tools, in order. */
export function configurationTexts(document: Configuration, tools: readonly string[]): Record<string, string> {
  const { limits, allowedTools, features, region, spend } = document;
  const ofLimit = ({ name, isMoney }: LimitField): string => {
    const changed = limits[name];
    if (changed === undefined || changed === null) return "";
    return changed === NONE ? NONE : limitText(isMoney, changed);
  };
  return {
    ...Object.fromEntries(limitFields.map((field) => [field.name, ofLimit(field)])),
    unitsPerHourByTool: linesFrom(limits.unitsPerHourByTool ?? {}, String),
    tools: allowedTools === undefined ? "all" : "chosen",
    allowedTools: tools.filter((tool) => allowedTools?.includes(tool)).join(" "),
    features: linesFrom(features, featureText),
    region: region ?? "",
    ...settingsTexts(document),
    capCents: spend.capCents === undefined ? "" : dollarsOf(spend.capCents),
  };
}

/**
 * The patch that leads from the document to what the form says. What the form leaves out returns to what was sold, or is removed.
 * `isPlaced`: the rows have a place, so that their region cannot change.
 */
export function configurationPatch(fields: Fields, from: Configuration, isPlaced: boolean): unknown {
  const { unitsPerHourByTool = {}, features = {}, tools, allowedTools, region = null, capCents = null } = fields;
  return {
    limits: {
      ...Object.fromEntries(limitFields.map(({ name }) => [name, fields[name] ?? null])),
      unitsPerHourByTool: merged(from.limits.unitsPerHourByTool, unitsPerHourByTool),
    },
    allowedTools: tools === "all" ? null : allowedTools,
    features: merged(from.features, features),
    ...(!isPlaced && { region }),
    ...settingsPatch(fields),
    spend: { capCents },
  };
}

/** The merge patch of one member after the other: what is gone is `null`. */
function merged(from: Readonly<Record<string, unknown>> | null | undefined, to: Readonly<Record<string, unknown>>) {
  return { ...Object.fromEntries(Object.keys(from ?? {}).map((name) => [name, null])), ...to };
}

/** The field that shows what is wrong with a part of the patch. */
export function fieldOfPath(path: readonly PropertyKey[]): string {
  const [part = "", name = part] = path.map(String);
  return ["limits", "branding", "integrations", "alerts", "spend"].includes(part) ? name : part;
}
