// The type of a tool: one declaration of name, cost, schemas, scopes and handler. The handler runs in the tenant's object.
// Its context reaches this tenant's data only; a tool cannot name another tenant.
import type * as z from "zod";
import { config } from "../core/app-config.ts";
import type { Progress, QuotaStatus } from "../core/call.ts";
import type { Features, PlanName } from "../core/plans/plans.ts";
import type { Row, Statement } from "../core/sql.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { setterOf } from "../core/tenant/tool-secrets.ts";
import type { ToolSecrets } from "./call-secrets.ts";
import type { WrittenBlock } from "./content.ts";
import type { Ask, AskAnswer } from "./question.ts";
import { hostProblem } from "./outbound.ts";

/** The tenant's rows. The same statements work wherever the rows are. Every method throws `AppError` when the database fails. */
export interface TenantDb extends Transaction {
  /** Runs statements that are known in advance in one transaction and one round trip. Returns the rows of each. */
  transaction(statements: readonly Statement[]): Promise<Row[][]>;
  /**
   * Runs `work` in a transaction that is committed when `work` resolves and rolled back when it throws. It uses one of the
   * account's few sessions and throws `sessions_exhausted` when none becomes free. Tollgate runs `work` again if the session
   * was lost before a statement was sent. Keep it short, and use only the database in it.
   */
  transaction<Result>(work: (transaction: Transaction) => Promise<Result>): Promise<Result>;
  /** A read-only query. It may run on a replica, moments behind, so that a heavy query does not slow down other calls. */
  analytics<Found extends Row>(text: string, params?: readonly unknown[]): Promise<Found[]>;
}

export interface Transaction {
  /** Runs one SELECT, INSERT, UPDATE, DELETE or MERGE, in one round trip. Rows come back as objects. */
  query<Found extends Row>(text: string, params?: readonly unknown[]): Promise<Found[]>;
  /**
   * The same for a query builder (drizzle.ts): each row is an array of values in the order of the columns. Two columns may
   * have the same name. JSON, dates and times stay PostgreSQL's text.
   */
  values(text: string, params?: readonly unknown[]): Promise<unknown[][]>;
}

/** The tenant's files. Paths are relative, normalised, and cannot leave the tenant's prefix. */
export interface TenantFiles {
  list(options?: {
    prefix?: string;
    cursor?: string;
    limit?: number;
  }): Promise<{ files: FileInfo[]; cursor: string | undefined }>;
  /** `undefined` when there is no such file. `text` is exact, and `null` when the file is not UTF-8 text. */
  read(path: string): Promise<{ info: FileInfo; text: string | null } | undefined>;
  write(path: string, text: string, contentType?: string): Promise<FileInfo>;
  /** Whether there was such a file. */
  delete(path: string): Promise<boolean>;
}

export interface FileInfo {
  path: string;
  sizeBytes: number;
  contentType: string;
  updatedAt: string;
}

/** A request to another service. */
export interface ToolRequest {
  /** Default GET. */
  method?: string;
  /** Not those that the protocol and proxies write, such as `Host`. */
  headers?: Readonly<Record<string, string>> | Headers;
  /** At most 1 MiB. */
  body?: string | URLSearchParams | Uint8Array;
  /** `manual`: a redirect is the answer. Default: Tollgate follows up to five, each to a host that the tool declares. */
  redirect?: "follow" | "manual";
  /** Default 10 s, and never longer than the call. */
  timeoutMs?: number;
}

export type { Statement } from "../core/sql.ts";

export interface ToolContext {
  readonly tenant: {
    readonly id: TenantId;
    readonly name: string;
    readonly plan: PlanName;
    readonly features: Readonly<Features>;
  };
  readonly caller: { readonly kind: "key" | "user" | "canary"; readonly id: string };
  /** Store it with the tool's own writes to make them repeatable: a call that is run again has the same id. */
  readonly callId: string;
  readonly db: TenantDb;
  readonly files: TenantFiles;
  /** The secrets that the tool declares. Their values stay out of the log, and a result that has one fails the call. */
  readonly secrets: ToolSecrets;
  /**
   * Asks another service over https. Only hosts that the tool declares, and only public addresses. The answer comes with its body, of
   * at most 5 MiB. Throws an error with the code `fetch_refused` (a rule), `fetch_failed` or `fetch_timeout` (try again),
   * `fetch_too_large`, or `outcome_unknown` (a tool that changes data has sent a request, and no answer came): let it through. A status
   * such as 404 is an answer.
   */
  readonly fetch: (url: string | URL, request?: ToolRequest) => Promise<Response>;
  /** The tenant's quota before this call is settled. */
  usage(): QuotaStatus;
  /** The calls of the last hour, by tool. */
  history(): readonly { tool: string; calls: number; units: number }[];
  /**
   * Adds to what the call costs, in whole units. Only for a tool that declares `units: { max }`. Tollgate charges the sum when the
   * call succeeds. Throws `RangeError` when the sum would exceed the maximum, so that a call never costs more than its tool says.
   */
  charge(units: number): void;
  /**
   * Asks the person who uses the tool, and returns their answer. **Ask before you write**: with some clients the tool starts again
   * from its beginning with the answer. The call is charged once, when it completes; a lost or refused answer charges nothing.
   * Throws `question_unsupported` when the client cannot ask: see `canAsk`.
   */
  ask<Shape extends z.ZodObject>(ask: Ask<Shape>): Promise<AskAnswer<z.infer<Shape>>>;
  /** Whether the client can ask a person. */
  readonly canAsk: boolean;
  /** Reports progress. Does nothing when the client did not ask for it. */
  progress(progress: Progress): Promise<void>;
  log(event: string, fields?: Readonly<Record<string, string | number | boolean>>): void;
  /** Aborted when the client disconnects or the time limit passes. */
  readonly signal: AbortSignal;
}

export interface ToolResult<Data> {
  /** The text for a model. Defaults to the texts of `content`, or to the data as JSON. */
  text?: string;
  /** Further blocks of the answer, after its text: texts, images, audio, links, resources. Bytes may be a `Uint8Array` or base64. */
  content?: readonly WrittenBlock[];
  /** The data for a program. It matches the output schema. */
  data: Data;
}

/** A failure that the tool expects and explains to the model. It is not charged unless `failed` says otherwise. */
export interface ToolFailure {
  isError: true;
  text: string;
}

export interface ToolAnnotations {
  /** Changes nothing. Tollgate may run it again when the outcome of the first run is unknown. */
  readOnly: boolean;
  /** Running it twice with the same arguments has the effect of once. Tollgate may run it again, too. */
  idempotent: boolean;
  destructive: boolean;
}

export interface Tool<Input extends z.ZodObject = z.ZodObject, Output extends z.ZodObject = z.ZodObject> {
  readonly name: string;
  readonly title: string;
  readonly description: string;
  /**
   * Price of a successful call: a constant, or a maximum below which the tool decides with `context.charge`. A call is admitted
   * only if the maximum fits its limits. A call that costs 0 units is free and is not recorded.
   */
  readonly units: number | { readonly max: number };
  /** The caller needs every one of them. */
  readonly scopes: readonly string[];
  /** Names of the secrets of `app/config.ts` that the tool reads with `context.secrets.get`. */
  readonly secrets?: readonly string[];
  /** Hosts that the tool asks with `context.fetch`: `api.example.com`, `*.example.com`, or `api.example.com:8443`. */
  readonly hosts?: readonly string[];
  /** The plans that have the tool. Default: all. */
  readonly plans?: readonly PlanName[];
  /** Features that the tenant needs, of its plan or its own: every one of them. Default: none. */
  readonly features?: readonly string[];
  /** The tool is ending: announced from the day `since` on, and refused after the day `until` (YYYY-MM-DD, UTC). `use`: another tool. */
  readonly deprecated?: { readonly since: string; readonly until: string; readonly use: string };
  readonly input: Input;
  readonly output: Output;
  readonly annotations: ToolAnnotations;
  /**
   * Whether a call with an argument that `input` does not have is refused. Default: Tollgate ignores such arguments, because
   * some clients add their own to every call. Set it where an ignored argument could do harm.
   */
  readonly refusesUnknownInput?: boolean;
  /** Default `TOOL_TIMEOUT_MS`. */
  readonly timeoutMs?: number;
  /** Whether an answer counts as failed and so is not charged. A throw, a timeout and an abort always do. */
  failed(result: ToolResult<z.infer<Output>> | ToolFailure): boolean;
  run(input: z.infer<Input>, context: ToolContext): Promise<ToolResult<z.infer<Output>> | ToolFailure>;
}

/** Long enough for a tool that generates a report. Short enough that a hung call soon leaves the calls in flight. */
export const TOOL_TIMEOUT_MS = 20_000;

/** Some clients put the server's name before the tool's and then cut or refuse longer names. */
const MAX_NAME_CHARS = 40;

const defined = new WeakSet<object>();

/**
 * Declares a tool. Throws when the declaration breaks a rule that clients or customers rely on; the message names the tool
 * and the remedy. The description needs no price: `describedWithPrice` adds it.
 */
export function defineTool<Input extends z.ZodObject, Output extends z.ZodObject>(tool: Tool<Input, Output>): Tool {
  const [problem] = [...problemsOf(tool), ...restrictionProblems(tool)];
  if (problem !== undefined) throw new Error(`The tool ${tool.name === "" ? "without a name" : tool.name} ${problem}`);
  defined.add(tool);
  // The catalogue calls every tool with arguments that its own `input` has parsed.
  return tool;
}

/** Whether a value was made by `defineTool`. */
export function isTool(value: unknown): value is Tool {
  return typeof value === "object" && value !== null && defined.has(value);
}

/** The most units that a call of the tool costs: what admission holds while the call runs. */
export function mostUnits({ units }: Pick<Tool, "units">): number {
  return typeof units === "number" ? units : units.max;
}

/** Whether the tool decides what a call costs. Two runs of one call can then cost different units. */
export function decidesUnits({ units }: Pick<Tool, "units">): boolean {
  return typeof units !== "number";
}

/** What one call costs: its tool's constant, or what the tool charges up to its maximum. */
export class UnitMeter {
  readonly #tool: Pick<Tool, "name" | "units">;
  #charged = 0;
  #hasEnded = false;

  constructor(tool: Pick<Tool, "name" | "units">) {
    this.#tool = tool;
  }

  /** Adds whole units to the price. Throws `RangeError` when the tool may not charge them. */
  charge(units: number): void {
    const { name } = this.#tool;
    const most = mostUnits(this.#tool);
    if (!decidesUnits(this.#tool))
      throw new RangeError(`${name} has a constant price: declare units: { max } to charge`);
    if (this.#hasEnded) throw new RangeError(`${name} charges after its call has ended`);
    if (!Number.isSafeInteger(units) || units < 0)
      throw new RangeError(`${name} charges ${units}: use whole units from 0`);
    if (this.#charged + units > most)
      throw new RangeError(`${name} charges ${units} units after ${this.#charged}: its maximum is ${most}`);
    this.#charged += units;
  }

  /** Later charges throw. Returns the price of the call. */
  end(): number {
    this.#hasEnded = true;
    return decidesUnits(this.#tool) ? this.#charged : mostUnits(this.#tool);
  }
}

/** The price of a call in words: "free", "5 units", "up to 1,000 units". */
export function priceInWords(tool: Pick<Tool, "units">): string {
  const most = mostUnits(tool);
  if (most === 0) return "free";
  return `${decidesUnits(tool) ? "up to " : ""}${most.toLocaleString("en-US")} ${most === 1 ? "unit" : "units"}`;
}

/** The description that clients get: the tool's own, then its price. */
export function describedWithPrice(tool: Tool): string {
  return `${tool.description} ${mostUnits(tool) === 0 ? "Free." : `Costs ${priceInWords(tool)}.`}`;
}

function problemsOf(tool: Tool): string[] {
  const { name, title, description, units, scopes, secrets = [], hosts = [], input, output, annotations } = tool;
  const known = Object.keys(config.scopes);
  const undeclared = secrets.filter((secret) => setterOf(config.secrets ?? {}, secret) === undefined);
  const undescribed = Object.keys(input.shape).filter((key) => !isDescribed(input.shape[key]));
  const rules: [holds: boolean, problem: string][] = [
    [
      /^[a-z][a-z0-9_]*$/.test(name),
      "has a name that some clients refuse. Use lower-case letters, digits and underscores, a letter first.",
    ],
    [name.length <= MAX_NAME_CHARS, `has a name of ${name.length} characters. Use at most ${MAX_NAME_CHARS}.`],
    [title.trim() !== "", "has no title. Give it one of two to four words, for people."],
    [description.trim() !== "", "has no description. Say what it does and when to call it, for a model."],
    typeof units === "number"
      ? [Number.isSafeInteger(units) && units >= 0, `costs ${units} units. Use an integer from 0 (free).`]
      : [
          Number.isSafeInteger(units.max) && units.max > 0,
          `costs up to ${units.max} units. Use an integer from 1, or a constant.`,
        ],
    [
      scopes.length > 0 && scopes.every((scope) => known.includes(scope)),
      `needs the scopes [${scopes.join(", ")}]. Name at least one of app/config.ts: ${known.join(", ")}.`,
    ],
    [
      undeclared.length === 0,
      `uses the secrets [${undeclared.join(", ")}]. Add each with its meaning to secrets.tenant or secrets.operator of app/config.ts.`,
    ],
    ...hosts.map((host): [boolean, string] => {
      const problem = hostProblem(host);
      return [problem === undefined, `asks the host ${host}, which ${problem ?? ""}`];
    }),
    [isClosed(input), "has an open input schema. Declare `input` by z.strictObject({ ... })."],
    [isClosed(output), "has an open output schema. Declare `output` by z.strictObject({ ... })."],
    [
      undescribed.length === 0,
      `does not describe its input ${undescribed.join(", ")}. Add .describe("...") last, for a model to fill it in.`,
    ],
    [
      !annotations.readOnly || (annotations.idempotent && !annotations.destructive),
      "is read-only and yet destructive or not idempotent. Make the annotations agree.",
    ],
  ];
  return rules.flatMap(([holds, problem]) => (holds ? [] : [problem]));
}

/** What is wrong with the restrictions of a tool's declaration. */
function restrictionProblems({ name, plans: named, features, deprecated }: Tool): string[] {
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

/** Whether a schema refuses unknown fields: z.strictObject. */
function isClosed(schema: z.ZodObject): boolean {
  return schema.def.catchall?._zod.def.type === "never";
}

/** Whether an input has a description. An enum needs none. Looks inside optional inputs and defaults. */
function isDescribed(schema: z.core.$ZodType | undefined): boolean {
  for (let part = schema; part !== undefined;) {
    if (part._zod.def.type === "enum") return true;
    if ("description" in part && typeof part.description === "string" && part.description !== "") return true;
    part = "innerType" in part._zod.def ? (part._zod.def.innerType as z.core.$ZodType) : undefined;
  }
  return false;
}

/** Whether the result explains a failure. Most tools use it as their `failed`. */
export function isFailure(result: ToolResult<unknown> | ToolFailure): result is ToolFailure {
  return "isError" in result;
}
