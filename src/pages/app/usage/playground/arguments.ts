// The arguments of a tool as fields of a form: a field for each text, number, choice and switch, and JSON for anything else. Rules only.
import { inputProblem } from "../../../../core/text/input-problem.ts";
import { listedTool } from "../../../../tools/model-schemas.ts";
import type { Tool } from "../../../../tools/tool.ts";

/** A field with the name of its argument. */
export interface ArgumentField {
  name: string;
  kind: "text" | "number" | "switch" | "choice" | "json";
  isRequired: boolean;
  hint: string | undefined;
  /** Of a choice. */
  choices: readonly string[];
  /** What the tool takes when the field is empty. */
  byDefault: string | undefined;
}

type Schema = Readonly<Record<string, unknown>>;

/** The fields of a tool's arguments, in their order. */
export function fieldsOf(tool: Pick<Tool, "name" | "input">): ArgumentField[] {
  const { properties = {}, required = [] } = listedTool(tool).inputSchema;
  return Object.entries(properties as Record<string, Schema>).map(([name, schema]) => {
    const choices = Array.isArray(schema["enum"]) ? schema["enum"].map(String) : [];
    const { description, type, default: byDefault } = schema;
    return {
      name,
      kind: choices.length > 0 ? "choice" : kindOf(type),
      isRequired: (required as readonly string[]).includes(name),
      hint: typeof description === "string" ? description : undefined,
      choices,
      byDefault:
        byDefault === undefined ? undefined : typeof byDefault === "string" ? byDefault : JSON.stringify(byDefault),
    };
  });
}

function kindOf(type: unknown): ArgumentField["kind"] {
  if (type === "string") return "text";
  if (type === "integer" || type === "number") return "number";
  return type === "boolean" ? "switch" : "json";
}

export type ReadArguments =
  | { args: Record<string, unknown> }
  /** By the name of the field; an empty name is the whole form. */
  | { errors: Record<string, string> };

/** The arguments that the fields make, by the tool's schema. An empty field is no argument, unless the tool needs the text. */
export function argumentsOfFields(tool: Tool, entered: Readonly<Record<string, string>>): ReadArguments {
  const args: Record<string, unknown> = {};
  const errors: Record<string, string> = {};
  for (const { name, kind, isRequired } of fieldsOf(tool)) {
    const text = (entered[name] ?? "").trim();
    if (text === "" && !(isRequired && kind === "text")) continue;
    const value = valueOf(kind, text);
    if (value === undefined) errors[name] = "This is no JSON.";
    else args[name] = value;
  }
  return Object.keys(errors).length > 0 ? { errors } : checked(tool, args);
}

function valueOf(kind: ArgumentField["kind"], text: string): unknown {
  if (kind === "number") return text === "" || Number.isNaN(Number(text)) ? text : Number(text);
  if (kind === "switch") return text === "true";
  return kind === "json" ? parsed(text) : text;
}

/** The arguments that were written as one JSON object. */
export function argumentsOfJson(tool: Tool, text: string): ReadArguments {
  const value = text.trim() === "" ? {} : parsed(text);
  if (typeof value !== "object" || value === null || Array.isArray(value))
    return { errors: { json: 'Write one JSON object, such as {"query": "lamp"}.' } };
  const read = checked(tool, value);
  return "args" in read ? read : { errors: { json: Object.entries(read.errors).map(named).join(" ") } };
}

const named = ([name, problem]: [string, string]): string => (name === "" ? problem : `${name}: ${problem}`);

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function checked(tool: Tool, given: object): ReadArguments {
  const { data, error } = tool.input.safeParse(given);
  if (data !== undefined) return { args: data };
  const errors: Record<string, string> = {};
  for (const issue of error.issues) errors[String(issue.path[0] ?? "")] ??= `This ${inputProblem(issue)}.`;
  return { errors };
}
