// Request parameters: decodes Stripe's bracketed forms and checks them.
// Every route declares all its parameters as a strict zod schema. The simulator refuses a parameter that it does not know,
// also when Stripe knows it. It never ignores one.
import * as z from "zod";
import { type ApiError, badRequest } from "./errors.ts";

export type FormValue = string | FormValue[] | { [key: string]: FormValue };
export interface Form {
  [key: string]: FormValue;
}

type Node = Map<string, Node | string>;

/** Decodes `a[b][0][c]=v` (and `a[]=v`, as the CLI sends it) into nested values. All leaves are strings. */
export function decodeForm(text: string): Form {
  const root: Node = new Map();
  for (const [name, value] of new URLSearchParams(text)) {
    const path = name.split("[").map((part) => part.replace(/\]$/, ""));
    const last = path.pop() ?? "";
    let node = root;
    for (const part of path) {
      const key = keyIn(node, part);
      const child = node.get(key);
      const next: Node = child instanceof Map ? child : new Map();
      node.set(key, next);
      node = next;
    }
    node.set(keyIn(node, last), value);
  }
  return Object.fromEntries([...root].map(([key, value]) => [key, toValue(value)]));
}

/** Decodes a JSON body into the same values as a form, leaves as strings. Throws a 400 for anything but an object. */
export function decodeJson(text: string): Form {
  if (text === "") return {};
  try {
    return jsonForm.parse(JSON.parse(text));
  } catch {
    throw badRequest("Invalid JSON in the request's body.");
  }
}

const leaf = z.union([z.string(), z.number().transform(String), z.boolean().transform(String)]);
const jsonValue: z.ZodType<FormValue> = z.lazy(() =>
  z.union([leaf, z.array(jsonValue), z.record(z.string(), jsonValue)]),
);
const jsonForm = z.record(z.string(), jsonValue);

/** `[]` appends. */
function keyIn(node: Node, part: string): string {
  return part === "" ? String(node.size) : part;
}

function toValue(node: Node | string): FormValue {
  if (typeof node === "string") return node;
  const keys = [...node.keys()];
  if (!keys.every((key) => /^\d{1,6}$/.test(key))) {
    return Object.fromEntries([...node].map(([key, value]) => [key, toValue(value)]));
  }
  return [...node].toSorted(([a], [b]) => Number(a) - Number(b)).map(([, value]) => toValue(value));
}

/** Checks a form against a route's schema. Throws Stripe's parameter_unknown, parameter_missing or an invalid-value 400. */
export function checkForm<S extends z.ZodType>(schema: S, form: Form): z.output<S> {
  const result = schema.safeParse(form, { reportInput: true });
  if (result.success) return result.data;
  // Like Stripe, report unknown parameters before missing ones.
  const issues = result.error.issues;
  const issue = issues.find(({ code }) => code === "unrecognized_keys") ?? issues[0];
  throw issue === undefined ? badRequest("Invalid request.") : toApiError(issue);
}

function toApiError(issue: z.core.$ZodIssue): ApiError {
  if (issue.code === "unrecognized_keys") {
    const names = issue.keys.map((key) => paramName([...issue.path, key]));
    const [first = ""] = names;
    const noun = names.length === 1 ? "parameter" : "parameters";
    return badRequest(`Received unknown ${noun}: ${names.join(", ")}`, { code: "parameter_unknown", param: first });
  }
  const param = paramName(issue.path);
  if (issue.input === undefined) {
    return badRequest(`Missing required param: ${param}.`, { code: "parameter_missing", param });
  }
  if (issue.input === "") {
    const message = `You passed an empty string for '${param}'. We assume empty values are an attempt to unset a field; however '${param}' cannot be unset.`;
    return badRequest(message, { code: "parameter_invalid_empty", param });
  }
  const given = typeof issue.input === "string" ? issue.input.slice(0, 60) : JSON.stringify(issue.input).slice(0, 60);
  return badRequest(`Invalid ${param}: ${given} (${issue.message})`, { param });
}

function paramName(path: readonly PropertyKey[]): string {
  return path.map((part, index) => (index === 0 ? String(part) : `[${String(part)}]`)).join("");
}

export const text = z.string().min(1).max(5000);
/** A text. An empty string clears it. */
export const clearable = z
  .string()
  .max(5000)
  .transform((value) => (value === "" ? null : value));
export const flag = z.enum(["true", "false"]).transform((value) => value === "true");
export const integer = z
  .string()
  .regex(/^-?\d{1,15}$/, "must be an integer")
  .transform(Number);
export const natural = integer.refine((value) => value >= 0, "must not be negative");
export const positive = integer.refine((value) => value >= 1, "must be at least 1");
/** Cents with up to twelve decimal places, normalised ("0.10" is "0.1"); negative for credits. */
export const signedDecimal = z
  .string()
  .regex(/^-?\d{1,15}(\.\d{1,12})?$/, "must be a decimal with at most 12 places")
  .transform((value) =>
    value
      .replace(/^(-?)0+(?=\d)/, "$1")
      .replace(/(\.\d*?)0+$/, "$1")
      .replace(/\.$/, ""),
  );
export const decimal = signedDecimal.refine((value) => !value.startsWith("-"), "must not be negative");
export const metadata = z.union([z.literal(""), z.record(z.string().max(40), z.string().max(500))]);
const range = z.strictObject({ gt: integer, gte: integer, lt: integer, lte: integer }).partial();
export const created = z.union([integer, range]);
/** The parameters of every list. */
export const page = {
  limit: integer.refine((limit) => limit >= 1 && limit <= 100, "must be between 1 and 100").default(10),
  starting_after: text.optional(),
  ending_before: text.optional(),
};

/** Stripe merges metadata by key; an empty value deletes the key and an empty string deletes all. */
export function mergeMetadata(
  current: Record<string, string> | null,
  change: z.output<typeof metadata> | undefined,
): Record<string, string> {
  if (change === "") return {};
  return Object.fromEntries(Object.entries({ ...current, ...change }).filter(([, value]) => value !== ""));
}

/** The new value if the request has one (`null` counts), else the current value. */
export function sent<T>(value: T | undefined, current: T): T {
  return value === undefined ? current : value;
}
