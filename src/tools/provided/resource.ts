// A resource: something of the tenant's that a client reads by its URI, such as a document or a report. A read is a call under the
// resource's name: it passes the same checks, has the same walls and is charged like a tool's.
import * as z from "zod";
import { sentBlocks } from "../content.ts";
import { type Tool, type ToolContext, defineTool, isFailure } from "../tool.ts";

/** What a read returns. Bytes are a `Uint8Array` or base64. */
export type ResourceData = { mimeType?: string } & ({ text: string } | { blob: string | Uint8Array });

export interface ResourceDeclaration<Params extends z.ZodObject> extends Pick<
  Tool,
  "name" | "title" | "description" | "scopes" | "plans" | "features" | "timeoutMs"
> {
  /**
   * The URI, with a scheme of the operator's own: `stock://low`. Or a template of URIs: `{name}` is one part of the path, `{+name}` the
   * rest of it.
   */
  uri: string;
  /** What a read returns, unless it says otherwise. */
  mimeType?: string;
  /** Price of a read. 0 is free. */
  units: number;
  /** The variables of the template. Default: texts of 1 to 500 characters. */
  params?: Params;
  /** `undefined`: there is no such resource. Such a read is free. */
  read: (params: z.infer<Params>, context: ToolContext) => Promise<ResourceData | undefined>;
}

export interface Resource {
  uri: string;
  isTemplate: boolean;
  mimeType: string | undefined;
  /** What a read runs. Its arguments are the URI and the variables. */
  tool: Tool;
  /** The variables of a URI, `undefined` for the URI of another resource. */
  match(uri: string): Record<string, string> | undefined;
}

const Contents = z.strictObject({
  contents: z.array(
    z.strictObject({
      uri: z.string(),
      mimeType: z.string().optional(),
      text: z.string().optional(),
      blob: z.string().optional(),
    }),
  ),
});

const defined = new WeakSet<object>();

/** Declares a resource. Throws when the declaration breaks a rule; the message names the resource and the remedy. */
export function defineResource<Params extends z.ZodObject>(declaration: ResourceDeclaration<Params>): Resource {
  const { name, uri, mimeType, params, read, ...rest } = declaration;
  const variables = Array.from(uri.matchAll(variable), ([, , each = ""]) => each);
  const problem = problemOf(uri, variables, params);
  if (problem !== undefined) throw new Error(`The resource ${name} ${problem}`);
  const shape = params?.shape ?? Object.fromEntries(variables.map((each) => [each, variableInput.describe(each)]));
  const tool = defineTool({
    ...rest,
    name,
    input: z.strictObject({ ...shape, uri: z.string().describe("The URI") }),
    output: Contents,
    annotations: { readOnly: true, idempotent: true, destructive: false },
    failed: isFailure,
    async run({ uri: asked, ...given }, context) {
      const data = await read(given as z.infer<Params>, context);
      if (data === undefined) return { isError: true, text: `There is no resource ${asked}.` };
      const type = data.mimeType ?? mimeType;
      const [block] = sentBlocks([
        { type: "resource", resource: { ...data, uri: asked, ...(type !== undefined && { mimeType: type }) } },
      ]);
      return { text: "", data: { contents: block?.type === "resource" ? [block.resource] : [] } };
    },
  });
  const resource: Resource = {
    uri,
    isTemplate: variables.length > 0,
    mimeType,
    tool,
    match: matcherOf(uri, variables),
  };
  defined.add(resource);
  return resource;
}

/** Whether a value was made by `defineResource`. */
export function isResource(value: unknown): value is Resource {
  return typeof value === "object" && value !== null && defined.has(value);
}

const variable = /\{(\+?)([a-zA-Z][a-zA-Z0-9_]*)\}/g;
const variableInput = z.string().min(1).max(500);
/** Schemes that lead to another server, to the reader's own machine, or that a client could run. */
const foreign = /^(?:https?|file|data|javascript|vbscript|blob|about|ftp|wss?):/;

function problemOf(uri: string, variables: readonly string[], params: z.ZodObject | undefined): string | undefined {
  const plain = uri.replaceAll(variable, "x");
  if (
    !/^[a-z][a-z0-9+.-]*:\/\/./.test(uri) ||
    foreign.test(uri) ||
    !URL.canParse(plain) ||
    new URL(plain).href !== plain
  )
    return `has the URI ${uri}. Use a scheme of your own, as URL parsers write it: stock://low, or stock://{id} with a variable.`;
  if (/[{}]/.test(plain)) return `has the URI ${uri}. A variable is {name}, or {+name} for the rest of the path.`;
  if (new Set(variables).size < variables.length || variables.includes("uri"))
    return `has a variable of the URI twice, or one named uri. Give each another name.`;
  const named = params === undefined ? variables : Object.keys(params.shape);
  if (named.toSorted().join() !== variables.toSorted().join())
    return `has the params [${named.join(", ")}]. Name exactly the variables of its URI: [${variables.join(", ")}].`;
  return undefined;
}

/** Compares URIs as URL parsers write them. */
function matcherOf(uri: string, variables: readonly string[]): Resource["match"] {
  const escaped = (text: string): string => text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
  let pattern = "";
  let end = 0;
  for (const found of uri.matchAll(variable)) {
    pattern += escaped(uri.slice(end, found.index)) + (found[1] === "+" ? "([^?#]+)" : "([^/?#]+)");
    end = found.index + found[0].length;
  }
  const whole = new RegExp(`^${pattern}${escaped(uri.slice(end))}$`);
  return (given) => {
    const values = whole.exec(given)?.slice(1);
    if (values === undefined) return undefined;
    try {
      return Object.fromEntries(variables.map((name, index) => [name, decodeURIComponent(values[index] ?? "")]));
    } catch {
      return undefined; // a broken percent sign
    }
  };
}
