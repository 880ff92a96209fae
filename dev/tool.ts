// `npm run tool`: calls one tool as a customer of the system that `npm start` runs, and prints its answer, its price and its time. Also
// lists the tools of a customer, and says what providers of models do with the schemas of an app's tools.
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { performance } from "node:perf_hooks";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import type { CallToolResult } from "@modelcontextprotocol/sdk/types.js";
import * as z from "zod";
import { readFlags, refuse } from "../cli/flags.ts";
import { type ErrorCode, type RetryAdvice, errors, retryOf } from "../src/core/errors.ts";
import { catalogue } from "../src/tools/catalogue.ts";
import { type Finding, findingsOf, listedTool } from "../src/tools/model-schemas.ts";

const command = "npm run tool";
const { values: flags, positionals } = readFlags({
  command,
  help: `
npm run tool NAME '{"json": "arguments"}' [-- FLAGS]   calls a tool on the system that npm start runs
npm run tool -- --list                                 the tools that a customer has, with their prices
npm run tool -- --schemas                              what OpenAI, Gemini and Anthropic refuse or change of each tool's arguments

  --tenant NAME   the customer: a plan, an id or a name (the first customer of the demonstration)
  --help          this text

The call is a real one: the customer is charged. TOLLGATE_DIR (.dev) names the system.`,
  flags: { tenant: { type: "string" }, list: { type: "boolean" }, schemas: { type: "boolean" } },
  positionals: true,
});

const Demo = z.object({
  mcpUrl: z.url(),
  tenants: z.array(z.object({ id: z.string(), name: z.string(), plan: z.string(), apiKey: z.string() })),
});
type Tenant = z.infer<typeof Demo>["tenants"][number];
/** What Tollgate adds to an answer. */
const Meta = z.looseObject({
  "tollgate/receipt": z.object({ id: z.string(), units: z.number() }).optional(),
  "tollgate/refusal": z.looseObject({ code: z.string() }).optional(),
  "tollgate/deprecated": z.looseObject({ message: z.string() }).optional(),
});

const print = (line = ""): void => void process.stdout.write(`${line}\n`);

function demonstration(): z.infer<typeof Demo> {
  const dir = resolve(process.env["TOLLGATE_DIR"] ?? ".dev");
  const file = join(dir, "demo.json");
  if (!existsSync(file)) return refuse(command, `no system runs in ${dir}: run npm start in another terminal first`);
  return Demo.parse(JSON.parse(readFileSync(file, "utf8")));
}

function tenantOf(tenants: readonly Tenant[]): Tenant {
  const wanted = flags.tenant?.toLowerCase();
  const found = tenants.find(
    (each) => wanted === undefined || [each.plan, each.id, each.name].some((name) => name.toLowerCase() === wanted),
  );
  const known = tenants.map(({ plan, name }) => `${plan} (${name})`).join(", ");
  return (
    found ??
    refuse(command, `--tenant ${flags.tenant ?? ""} is no customer of ${known || "this system, which has none"}`)
  );
}

async function connect({ mcpUrl }: { mcpUrl: string }, { apiKey }: Tenant): Promise<Client> {
  const client = new Client({ name: "tollgate-tool", version: "1" });
  const requestInit = { headers: { authorization: `Bearer ${apiKey}` } };
  try {
    await client.connect(new StreamableHTTPClientTransport(new URL(mcpUrl), { requestInit }));
  } catch (error) {
    // fetch's own message says nothing.
    if (error instanceof TypeError)
      return refuse(command, `${mcpUrl} does not answer: run npm start in another terminal`);
    throw error;
  }
  return client;
}

/** Prints each block of an answer. Bytes are counted, not shown. */
function printContent(content: CallToolResult["content"]): void {
  for (const block of content) {
    if (block.type === "text") print(block.text);
    else if (block.type === "image" || block.type === "audio")
      print(`[${block.type} ${block.mimeType}, ${bytesOf(block.data)} bytes]`);
    else if (block.type === "resource_link") print(`[link ${block.title ?? block.name}: ${block.uri}]`);
    else if ("text" in block.resource) print(`[resource ${block.resource.uri}]\n${block.resource.text}`);
    else print(`[resource ${block.resource.uri}, ${bytesOf(block.resource.blob)} bytes]`);
  }
}

const bytesOf = (base64: string): string => Buffer.from(base64, "base64").byteLength.toLocaleString("en-US");

const otherCustomer = "Call it as another customer: --tenant.";
const remedies: Readonly<Partial<Record<ErrorCode, string>>> = {
  tool_failed:
    "The message above and the log of npm start name the cause. Correct the tool: npm start loads it again by itself.",
  tool_timeout: "Make the tool faster, pass its signal on, or give it a longer timeoutMs.",
  result_too_large: "Return less: a limit, a page, or a link in place of the bytes.",
  tool_not_in_plan: otherCustomer,
  feature_missing: otherCustomer,
};
const retries: Readonly<Record<RetryAdvice, string>> = {
  wait: "Wait as the message says, then call again. npm start -- --fresh begins with unused limits.",
  change: "Change what the message names.",
  check: "Look whether the call took effect before you call again.",
};

/** What to do after a refusal or a failure with this code. */
function remedyOf(code: string): string {
  if (!isErrorCode(code)) return "Read the message above.";
  return remedies[code] ?? retries[retryOf(code)];
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errors, code);
}

async function call(name: string, text: string): Promise<number> {
  let args: unknown;
  try {
    args = JSON.parse(text);
  } catch (error) {
    return refuse(command, `the arguments are no JSON (${error instanceof Error ? error.message : ""})`);
  }
  if (typeof args !== "object" || args === null || Array.isArray(args))
    return refuse(command, `the arguments must be one JSON object, such as '{"query": "lamp"}'`);
  const demo = demonstration();
  const tenant = tenantOf(demo.tenants);
  const client = await connect(demo, tenant);
  try {
    const startedAt = performance.now();
    const answer = (await client.callTool({ name, arguments: args as Record<string, unknown> }, undefined, {
      onprogress: ({ progress, total, message }) =>
        print(`… ${progress}${total === undefined ? "" : ` of ${total}`} ${message ?? ""}`),
    })) as CallToolResult;
    const ms = performance.now() - startedAt;
    const meta = Meta.parse(answer._meta ?? {});
    print(`${name} as ${tenant.name} (${tenant.plan})\n`);
    printContent(answer.content);
    if (answer.structuredContent !== undefined) print(`\nData\n${JSON.stringify(answer.structuredContent, null, 2)}`);
    const { "tollgate/receipt": receipt, "tollgate/refusal": refusal, "tollgate/deprecated": deprecated } = meta;
    if (deprecated !== undefined) print(`\n${deprecated.message}`);
    const units =
      receipt === undefined
        ? "not charged"
        : `${receipt.units} ${receipt.units === 1 ? "unit" : "units"}, receipt ${receipt.id}`;
    print(`\n${units}; ${ms.toFixed(0)} ms`);
    if (answer.isError !== true) return 0;
    print(
      `\n${refusal?.code ?? "failed"}: ${refusal === undefined ? "The tool or its arguments; read the message above." : remedyOf(refusal.code)}`,
    );
    return 1;
  } catch (error) {
    print(`${name} as ${tenant.name} (${tenant.plan})\n\n${error instanceof Error ? error.message : String(error)}`);
    if (!catalogue.has(name)) print(`\nThere is no tool ${name}. Tools: ${[...catalogue.keys()].join(", ")}.`);
    return 1;
  } finally {
    await client.close();
  }
}

async function list(): Promise<number> {
  const demo = demonstration();
  const tenant = tenantOf(demo.tenants);
  const client = await connect(demo, tenant);
  try {
    const { tools } = await client.listTools();
    print(`The tools of ${tenant.name} (${tenant.plan})\n`);
    for (const { name, description, inputSchema } of tools) {
      print(`${name}(${Object.keys(inputSchema.properties ?? {}).join(", ")})`);
      print(`    ${description ?? ""}`);
    }
    return 0;
  } finally {
    await client.close();
  }
}

/** Prints the findings of every tool, what is refused first. Fails when a provider refuses a tool. */
function printFindings(): number {
  const line = ({ provider, path, says }: Finding): string =>
    `    ${provider}, ${path === "" ? "the whole" : path}: ${says}`;
  let refused = 0;
  for (const tool of catalogue.values()) {
    const found = findingsOf(listedTool(tool));
    const problems = found.filter(({ weight }) => weight === "refused");
    refused += problems.length;
    print(`${tool.name}: ${problems.length === 0 ? "every provider accepts it" : "REFUSED"}`);
    for (const problem of problems) print(line(problem));
    const changes = found.filter(({ weight }) => weight === "changed");
    if (changes.length > 0) print("  left out or rewritten by clients; Tollgate checks it in any case:");
    for (const change of changes) print(line(change));
  }
  return refused === 0 ? 0 : 1;
}

const [name, text = "{}", ...more] = positionals;
if (flags.schemas === true) process.exitCode = printFindings();
else if (flags.list === true) process.exitCode = await list();
else if (name === undefined) refuse(command, "name a tool, or use --list or --schemas");
else if (more.length > 0) refuse(command, "put the arguments into one pair of quotes, as JSON");
else process.exitCode = await call(name, text);
