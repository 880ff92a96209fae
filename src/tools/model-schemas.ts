// What providers of models do with the JSON schema of a tool's arguments. MCP clients hand a tool to a model through the provider's
// API, and each API takes a subset of JSON Schema. One tool that a provider refuses makes every request with the list fail.
//
// Two weights: `refused` needs a change of the tool; `changed` says what a client leaves out or rewrites, so that the model does not
// know it. Tollgate checks the arguments by the whole schema in any case.
//
// Rules as of November 2026:
// - OpenAI, strict functions: https://developers.openai.com/api/docs/guides/structured-outputs#supported-schemas and
//   https://developers.openai.com/api/docs/guides/function-calling#strict-mode. The Responses API makes a schema strict by default.
// - Gemini, `parameters` of a function declaration: https://ai.google.dev/api/caching#Schema and
//   https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/Schema. Its newer `parametersJsonSchema` takes more.
// - Anthropic, `input_schema`: https://platform.claude.com/docs/en/agents-and-tools/tool-use/define-tools, strict tools:
//   https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations. That the top level takes no
//   anyOf, oneOf and allOf is in its answer 400 (github.com/anthropics/claude-code/issues/27337).
import type { Tool } from "./tool.ts";

export type Provider = "OpenAI" | "Gemini" | "Anthropic";

export interface Finding {
  provider: Provider;
  weight: "refused" | "changed";
  /** Of the argument: `filter.items.name`; empty for the arguments as a whole. */
  path: string;
  says: string;
}

type Schema = Readonly<Record<string, unknown>>;
type Report = (weight: Finding["weight"], path: string, says: string) => void;

/** A tool as a client gets it. */
export interface ListedTool {
  name: string;
  inputSchema: Schema;
}

/** The schema of a tool's arguments as clients get it. */
export function listedTool({ name, input }: Pick<Tool, "name" | "input">): ListedTool {
  return { name, inputSchema: input["~standard"].jsonSchema.input({ target: "draft-2020-12" }) };
}

/** What the providers refuse or change of a tool. */
export function findingsOf(tool: ListedTool): Finding[] {
  return (Object.keys(rules) as Provider[]).flatMap((provider) => {
    const found: Finding[] = [];
    rules[provider](tool, (weight, path, says) => found.push({ provider, weight, path, says }));
    return found;
  });
}

const rules: Readonly<Record<Provider, (tool: ListedTool, report: Report) => void>> = {
  OpenAI: openAi,
  Gemini: gemini,
  Anthropic: anthropic,
};

const SAFE_NAME = /^[a-zA-Z0-9_-]{1,64}$/;

// ---- OpenAI

const openAiFormats = ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"];
const MAX_PROPERTIES = 5_000;
const MAX_LEVELS = 10;
const MAX_ENUM_VALUES = 1_000;

function openAi({ name, inputSchema }: ListedTool, report: Report): void {
  if (!SAFE_NAME.test(name))
    report("refused", "", "The name has other characters than letters, digits, _ and -, or over 64.");
  let properties = 0;
  let values = 0;
  each(inputSchema, ({ schema, path, level }) => {
    refuseKeywords(
      schema,
      path,
      [
        "oneOf",
        "allOf",
        "not",
        "if",
        "dependentRequired",
        "dependentSchemas",
        "patternProperties",
        "prefixItems",
        "propertyNames",
      ],
      report,
    );
    if (path === "" && schema["anyOf"] !== undefined)
      report("refused", "", "The arguments are a union. Use one object.");
    if (isUntyped(schema)) report("refused", path, "Any value is allowed here. Give it a type.");
    if (isObjectSchema(schema)) {
      if (schema["additionalProperties"] !== false)
        report(
          "refused",
          path,
          "Members of any name are allowed here. Use z.strictObject, or a list of { name, value }.",
        );
      const optional = propertiesOf(schema).filter(([member]) => !listOf(schema["required"]).includes(member));
      properties += propertiesOf(schema).length;
      for (const [member] of optional)
        report(
          "changed",
          join(path, member),
          "The argument becomes required, and null means no value. Tollgate takes null for it.",
        );
      if (level > MAX_LEVELS) report("refused", path, `Objects are nested over ${MAX_LEVELS} levels.`);
    }
    values += listOf(schema["enum"]).length;
    dropKeywords(
      schema,
      path,
      ["minLength", "maxLength", "default", "uniqueItems", "minProperties", "maxProperties"],
      report,
    );
    const { format } = schema;
    if (typeof format === "string" && !openAiFormats.includes(format))
      report("changed", path, `The format ${format} is left out. Name it in the description.`);
  });
  if (properties > MAX_PROPERTIES) report("refused", "", `There are over ${MAX_PROPERTIES} arguments and members.`);
  if (values > MAX_ENUM_VALUES) report("refused", "", `There are over ${MAX_ENUM_VALUES} enum values.`);
}

// ---- Gemini

const geminiKeywords = new Set([
  ...[
    "type",
    "format",
    "title",
    "description",
    "nullable",
    "enum",
    "items",
    "minItems",
    "maxItems",
    "properties",
    "required",
  ],
  ...[
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "example",
    "anyOf",
    "propertyOrdering",
    "default",
  ],
  ...["minimum", "maximum"],
]);
/** What a client rewrites without a loss: a union with null is `nullable`, one constant is an enum. */
const geminiRewrites = new Set(["$schema", "const", "additionalProperties"]);
const geminiFormats = ["enum", "date-time", "int32", "int64", "float", "double"];

function gemini({ name, inputSchema }: ListedTool, report: Report): void {
  if (!/^[a-zA-Z_][a-zA-Z0-9_.-]{0,63}$/.test(name))
    report(
      "refused",
      "",
      "The name does not start with a letter or _, has other characters than letters, digits, _ . and -, or over 64.",
    );
  each(inputSchema, ({ schema, path }) => {
    refuseKeywords(
      schema,
      path,
      ["$ref", "oneOf", "allOf", "not", "if", "patternProperties", "prefixItems", "propertyNames"],
      report,
    );
    if (isUntyped(schema)) report("refused", path, "Any value is allowed here. Give it a type.");
    if (schema["type"] === "array" && !isSchema(schema["items"]))
      report("refused", path, "The list does not say what its items are.");
    // The arguments as a whole may have no member: a client then sends no parameters.
    if (path !== "" && isObjectSchema(schema) && propertiesOf(schema).length === 0)
      report("refused", path, "The object has no members. Name them, or use a list of { name, value }.");
    if (isSchema(schema["additionalProperties"]) && propertiesOf(schema).length > 0)
      report("changed", path, "Members of any name are left out.");
    if (
      [...listOf(schema["enum"]), ...("const" in schema ? [schema["const"]] : [])].some(
        (value) => typeof value !== "string" && value !== null,
      )
    )
      report("refused", path, "An enum has values that are no texts. Use texts.");
    const unknown = Object.keys(schema).filter((word) => !geminiKeywords.has(word) && !geminiRewrites.has(word));
    dropKeywords(
      schema,
      path,
      unknown.filter((word) => !refusedWords.has(word)),
      report,
    );
    const { format } = schema;
    if (typeof format === "string" && !geminiFormats.includes(format))
      report("changed", path, `The format ${format} is left out. Name it in the description.`);
  });
}

// ---- Anthropic

const anthropicFormats = ["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"];

function anthropic({ name, inputSchema }: ListedTool, report: Report): void {
  if (!SAFE_NAME.test(name))
    report("refused", "", "The name has other characters than letters, digits, _ and -, or over 64.");
  if (inputSchema["type"] !== "object") report("refused", "", "The arguments are no object.");
  refuseKeywords(inputSchema, "", ["anyOf", "oneOf", "allOf"], report);
  each(inputSchema, ({ schema, path }) => {
    refuseKeywords(schema, path, ["$ref"], report);
    for (const [member] of propertiesOf(schema))
      if (!/^[a-zA-Z0-9_.-]{1,64}$/.test(member))
        report(
          "refused",
          join(path, member),
          "The name has other characters than letters, digits, _ . and -, or over 64.",
        );
    // Strict tools only; any other tool keeps them.
    const limits = [
      "minimum",
      "maximum",
      "exclusiveMinimum",
      "exclusiveMaximum",
      "multipleOf",
      "minLength",
      "maxLength",
      "maxItems",
    ];
    dropKeywords(schema, path, limits, (weight, at, says) => report(weight, at, `${says} Only for strict tools.`));
    const { format } = schema;
    if (typeof format === "string" && !anthropicFormats.includes(format))
      report("changed", path, `The format ${format} is left out. Only for strict tools.`);
  });
}

// ---- schemas

interface Place {
  schema: Schema;
  path: string;
  /** Objects around it, itself included. */
  level: number;
}

/** Visits a schema and all schemas within. */
function each(schema: Schema, visit: (place: Place) => void, path = "", level = 1): void {
  visit({ schema, path, level });
  const within = (inner: unknown, at: string, depth = level): void => {
    if (isSchema(inner)) each(inner, visit, at, depth);
  };
  for (const [member, inner] of propertiesOf(schema))
    within(inner, join(path, member), isObjectSchema(inner) ? level + 1 : level);
  within(schema["items"], join(path, "items"));
  // An empty schema allows any member, as `true` does.
  const others = schema["additionalProperties"];
  if (isSchema(others) && Object.keys(others).length > 0) within(others, join(path, "*"));
  for (const word of ["anyOf", "oneOf", "allOf", "prefixItems"])
    for (const [index, inner] of listOf(schema[word]).entries()) within(inner, join(path, `${word}[${index}]`));
  const definitions = schema["$defs"];
  if (isSchema(definitions)) for (const [name, inner] of Object.entries(definitions)) within(inner, `$defs.${name}`);
}

/** Keywords without which a schema says something else. */
const refusedWords = new Map([
  ["$ref", "A schema refers to another one, which a recursive or reused schema does. Write it out."],
  ["oneOf", "A union by a tag (oneOf). Use one object with a kind and optional members, or one tool for each kind."],
  ["anyOf", "The arguments are a union. Use one object."],
  ["allOf", "An intersection. Use one object."],
  ["not", "A negation. Say it in the description and check it in the tool."],
  ["if", "A condition. Say it in the description and check it in the tool."],
  ["dependentRequired", "A condition. Say it in the description and check it in the tool."],
  ["dependentSchemas", "A condition. Say it in the description and check it in the tool."],
  ["patternProperties", "Names by a pattern. Use a list of { name, value }."],
  ["propertyNames", "Members of any name (z.record). Use a list of { name, value }."],
  ["prefixItems", "A list whose places differ (z.tuple). Use an object."],
]);

function refuseKeywords(schema: Schema, path: string, words: readonly string[], report: Report): void {
  for (const word of words)
    if (word in schema) report("refused", path, refusedWords.get(word) ?? `${word} is not supported.`);
}

function dropKeywords(schema: Schema, path: string, words: readonly string[], report: Report): void {
  const dropped = words.filter((word) => word in schema);
  if (dropped.length > 0) report("changed", path, `Left out: ${dropped.join(", ")}.`);
}

function isSchema(value: unknown): value is Schema {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isObjectSchema(value: unknown): value is Schema {
  return isSchema(value) && (value["type"] === "object" || "properties" in value);
}

const typed = ["type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "properties"];

function isUntyped(schema: Schema): boolean {
  return !typed.some((word) => word in schema);
}

function propertiesOf(schema: Schema): [string, unknown][] {
  return isSchema(schema["properties"]) ? Object.entries(schema["properties"]) : [];
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function join(path: string, member: string): string {
  return path === "" ? member : `${path}.${member}`;
}
