// A tool as the SDK registers it: its JSON schemas, its price, and how its arguments are parsed.
import { requireScopes } from "@modelcontextprotocol/server";
import type { StandardSchemaV1, StandardSchemaWithJSON } from "@modelcontextprotocol/server";
import { inputProblem } from "../../core/text/input-problem.ts";
import { brokenText, refusedTextIn } from "../../core/text/text.ts";
import { type Tool, describedWithPrice } from "../../tools/tool.ts";
import { isObject } from "./message.ts";

type Declaration = ReturnType<typeof declare>;
const declarations = new WeakMap<Tool, Declaration>();

/** Made once per tool: the SDK converts a schema on every server that it is registered on, which costs more than a call. */
export function declarationOf(tool: Tool): Declaration {
  const known = declarations.get(tool);
  if (known !== undefined) return known;
  const declaration = declare(tool);
  declarations.set(tool, declaration);
  return declaration;
}

function declare(tool: Tool) {
  const [scope, ...scopes] = tool.scopes;
  return {
    title: tool.title,
    description: describedWithPrice(tool),
    inputSchema: convertedOnce(
      refusingBrokenText({ ...tool.input["~standard"], validate: (value) => parseArguments(tool, value) }),
      "input",
    ),
    // The tenant's object checks the result before the charge. A check here would come too late.
    outputSchema: convertedOnce({ ...tool.output["~standard"], validate: (value: unknown) => ({ value }) }, "output"),
    annotations: {
      readOnlyHint: tool.annotations.readOnly,
      idempotentHint: tool.annotations.idempotent,
      destructiveHint: tool.annotations.destructive,
      // Every other tool works on the tenant's own data.
      openWorldHint: (tool.hosts ?? []).length > 0,
    },
    ...(scope !== undefined && { scopeChallenge: requireScopes(scope, ...scopes) }),
  };
}

/**
 * Parses a call's arguments. Clients write `null` or `""` for an optional argument without a value, and some add arguments of
 * their own to every call: Tollgate drops both where the tool's schema refuses them, the latter unless the tool sets
 * `refusesUnknownInput`. Other problems are reported as the schema found them.
 */
async function parseArguments(tool: Tool, value: unknown): Promise<StandardSchemaV1.Result<Record<string, unknown>>> {
  const asSent = await tool.input.safeParseAsync(value);
  if (asSent.success) return { value: asSent.data };
  // The arguments belong to this request alone.
  const issues = asSent.error.issues.filter((issue) => {
    // Only at the top: clients do not add members deeper inside.
    const isAdded =
      issue.code === "unrecognized_keys" &&
      issue.path.length === 0 &&
      !tool.refusesUnknownInput &&
      !issue.keys.some((name) => namesTenant.test(name) && !isEmptyValue(memberOf(value, [name])));
    if (isAdded) for (const name of issue.keys) deleteMember(value, [name]);
    else if (isEmptyValue(memberOf(value, issue.path))) deleteMember(value, issue.path);
    return !isAdded;
  });
  const repaired = await tool.input.safeParseAsync(value);
  if (repaired.success) return { value: repaired.data };
  const left = issues.length > 0 ? issues : repaired.error.issues;
  return { issues: left.map((issue) => ({ path: issue.path, message: inputProblem(issue) })) };
}

/** Never ignored: the caller would take the answer for that tenant's. */
const namesTenant = /^tenant(_?id)?$/i;

function isEmptyValue(value: unknown): boolean {
  return value === null || value === "";
}

function memberOf(value: unknown, path: readonly PropertyKey[]): unknown {
  let member = value;
  for (const name of path) member = isObject(member) || Array.isArray(member) ? Reflect.get(member, name) : undefined;
  return member;
}

/** Elements of lists stay: without one, the others would move. */
function deleteMember(value: unknown, path: readonly PropertyKey[]): void {
  const [name, holder] = [path.at(-1), memberOf(value, path.slice(0, -1))];
  if (name !== undefined && isObject(holder)) Reflect.deleteProperty(holder, name);
}

type StandardProps<Output> = StandardSchemaWithJSON<unknown, Output>["~standard"];

/** Refuses arguments that UTF-8 cannot hold, before any tool stores something else in their place. */
function refusingBrokenText<Output>(standard: StandardProps<Output>): StandardProps<Output> {
  return {
    ...standard,
    validate: (value, ...options) => {
      const refused = refusedTextIn(value, brokenText);
      if (refused === undefined) return standard.validate(value, ...options);
      return { issues: [{ message: refused.reason, path: refused.path }] };
    },
  };
}

/** The schema for the SDK, with its JSON form computed once. `side` is the form that clients see. */
function convertedOnce<Output>(
  standard: StandardProps<Output>,
  side: "input" | "output",
): StandardSchemaWithJSON<unknown, Output> {
  // Validators that know only older dialects refuse a schema that names its own. MCP's default is the one used here.
  const { $schema: _, ...json } = standard.jsonSchema[side]({ target: "draft-2020-12" });
  return { "~standard": { ...standard, jsonSchema: { input: () => json, output: () => json } } };
}
