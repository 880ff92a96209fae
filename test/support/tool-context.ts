// For tests of a single tool: a context with small fakes, and a call as the tenant's object makes it. Such a test needs no
// database and runs in well under a second.
import { TenantId } from "../../src/core/tenant/tenant.ts";
import type { Answered, ContentBlock, Progress, Question } from "../../src/core/call.ts";
import { ToolProblem } from "../../src/core/errors.ts";
import { CallSecrets } from "../../src/tools/call-secrets.ts";
import { contentOf } from "../../src/tools/content.ts";
import { questionOf, readAnswer } from "../../src/tools/question.ts";
import { UnitMeter } from "../../src/tools/tool.ts";
import { checkedUrl } from "../../src/tools/outbound.ts";
import type { FileInfo, TenantFiles, Tool, ToolContext, ToolRequest } from "../../src/tools/tool.ts";

export interface Fakes {
  /** The database's answers: the rows of the first statement, of the second, and so on. */
  rows?: Record<string, unknown>[][];
  /** Texts of the tenant's files, by path; `null` for a file that is not text. */
  documents?: Record<string, string | null>;
  /** The secrets that are set, by name. */
  secrets?: Record<string, string>;
  /** The answers of other services, in the order of the requests. */
  responses?: Response[];
  history?: ReturnType<ToolContext["history"]>;
  /** Units of this hour, of 100. */
  used?: number;
  /** What the person answers, by the question's name (`answer` for a question without one). Absent: the client cannot ask. */
  answers?: Readonly<Record<string, Answered>>;
}

/** A tenant's context. `seen` holds what the tool did; `store` holds the files afterwards. */
export function toolContext(fakes: Fakes = {}) {
  const { rows = [], documents = {}, secrets = {}, responses = [], history = [], used = 0, answers: given } = fakes;
  const answers = [...rows];
  const store = new Map(Object.entries(documents));
  const seen = {
    queries: [] as { text: string; params: readonly unknown[] }[],
    progress: [] as Progress[],
    logged: [] as string[],
    requests: [] as { url: string; request: ToolRequest }[],
    questions: [] as Question[],
  };
  const query = async (text: string, params: readonly unknown[] = []): Promise<Record<string, unknown>[]> => {
    seen.queries.push({ text, params });
    return answers.shift() ?? [];
  };
  const transaction = async (work: unknown): Promise<unknown> => {
    if (typeof work === "function") return work(db);
    const results = [];
    for (const { text, params } of work as { text: string; params?: readonly unknown[] }[])
      results.push(await query(text, params));
    return results;
  };
  const values = async (text: string, params?: readonly unknown[]): Promise<unknown[][]> =>
    (await query(text, params)).map((row) => Object.values(row));
  const db = { query, values, analytics: query, transaction } as ToolContext["db"];
  const context: ToolContext = {
    tenant: { id: TenantId.parse("acme"), name: "Acme", plan: "free", features: {} },
    caller: { kind: "key", id: "k1" },
    callId: "call-1",
    db,
    files: filesOver(store),
    secrets: {
      async get(name) {
        const value = secrets[name];
        if (value === undefined) throw new ToolProblem("secret_missing", `The secret ${name} is not set.`, "permanent");
        return value;
      },
    },
    async fetch(url, request = {}) {
      seen.requests.push({ url: String(url), request });
      const response = responses[seen.requests.length - 1];
      if (response === undefined) throw new ToolProblem("fetch_failed", "There is no further response.", "temporary");
      return response;
    },
    usage: () => ({
      minute: { limit: 100, used: 1, resetSeconds: 60 },
      hour: { limit: 100, used, resetSeconds: used === 0 ? 0 : 90 },
      month: { limit: null, used, resetSeconds: 4_000 },
    }),
    history: () => history,
    charge() {
      throw new Error("call the tool with callTool, which counts what it charges");
    },
    async ask(asks) {
      const question = questionOf(asks);
      seen.questions.push(question);
      const answered = given?.[question.name];
      if (answered === undefined) throw new Error(`no answer to the question ${question.name} is in the test`);
      const read = readAnswer(asks.schema, answered);
      if ("problem" in read) throw new Error(`the test's answer is none: ${read.problem}`);
      return read.answer;
    },
    canAsk: given !== undefined,
    async progress(step) {
      seen.progress.push(step);
    },
    log: (event) => void seen.logged.push(event),
    signal: new AbortController().signal,
  };
  return { context, seen, store };
}

export interface Answer {
  /** True if the call failed and is therefore free. */
  failed: boolean;
  /** What the call costs. */
  units: number;
  /** The texts of the answer. */
  text: string;
  /** All blocks of the answer, as they are sent. */
  content: ContentBlock[];
  data: Record<string, unknown> | undefined;
}

/** Calls a tool. Parses its arguments first, and checks the answer against its schema and for secrets that the tool has read. */
export async function callTool(tool: Tool, args: Record<string, unknown>, context: ToolContext): Promise<Answer> {
  const meter = new UnitMeter(tool);
  const secrets = new CallSecrets(tool, (name) => context.secrets.get(name));
  const charge = (units: number): void => meter.charge(units);
  const fetch: ToolContext["fetch"] = async (url, request) => {
    const checked = checkedUrl(String(url), tool.hosts ?? []);
    if ("refused" in checked) throw new ToolProblem("fetch_refused", `${String(url)}: ${checked.refused}`, "permanent");
    return context.fetch(url, request);
  };
  const result = await tool.run(tool.input.parse(args), { ...context, secrets, fetch, charge });
  const content = contentOf(result);
  if (secrets.isIn([content, result])) throw new Error(`the result of ${tool.name} has a secret`);
  const text = content.flatMap((block) => (block.type === "text" ? [block.text] : [])).join("\n");
  const failed = tool.failed(result);
  const answer = { failed, units: failed ? 0 : meter.end(), text, content };
  return { ...answer, data: "isError" in result ? undefined : tool.output.parse(result.data) };
}

function filesOver(store: Map<string, string | null>): TenantFiles {
  return {
    async list({ prefix = "", cursor = "", limit = 1_000 } = {}) {
      const all = [...store.keys()].toSorted().filter((path) => path.startsWith(prefix) && path > cursor);
      const page = all.slice(0, limit);
      return {
        files: page.map((path) => info(path, store.get(path) ?? "")),
        cursor: all.length > limit ? page.at(-1) : undefined,
      };
    },
    async read(path) {
      const text = store.get(path);
      return text === undefined ? undefined : { info: info(path, text ?? ""), text };
    },
    async write(path, text) {
      store.set(path, text);
      return info(path, text);
    },
    async delete(path) {
      return store.delete(path);
    },
  };
}

function info(path: string, text: string): FileInfo {
  return {
    path,
    sizeBytes: new TextEncoder().encode(text).byteLength,
    contentType: "text/plain",
    updatedAt: "2026-11-30T20:00:00.000Z",
  };
}
