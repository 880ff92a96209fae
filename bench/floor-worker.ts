// The floor: the least work that a call needs. Parse, one RPC to the tenant's object, one database round trip of the tool
// (signed context and query in one batch), one SQLite row, answer. No authentication, checks, limits or metering. /callback is
// an alternative: the object calls back into the Worker, which runs the tool, and then writes its row.
import { DurableObject } from "cloudflare:workers";
import { signContext } from "../src/tenant-db/signed-context.ts";
import type { TenantId } from "../src/core/tenant/tenant.ts";
import { searchProducts } from "../test/support/fixture-app/tools/search-products.ts";
import type { TenantDb, ToolContext } from "../src/tools/tool.ts";

interface FloorEnv {
  TENANT: DurableObjectNamespace<FloorTenant>;
  SHARED_DATABASE_URL: string;
  NEON_FETCH_ENDPOINT: string;
  CONTEXT_KEYS: string;
}
type Arguments = Record<string, unknown>;
interface Call {
  id: number;
  params: { name: string; arguments: Arguments };
}
interface Answer {
  results: { fields: { name: string; dataTypeID: number }[]; rows: (string | null)[][] }[];
}

const INT4 = 23;
const counters = { call: 0, admit: 0 };
const contexts = new Map<string, string>();

async function contextOf(env: FloorEnv, tenantId: string): Promise<string> {
  const [{ id: keyId, secret }] = JSON.parse(env.CONTEXT_KEYS) as [{ id: string; secret: string }];
  const database = new URL(env.SHARED_DATABASE_URL).pathname.slice(1);
  const expiresAtMs = Date.now() + 550_000; // the database takes up to 600 s; a run is shorter
  const context = await signContext({ keyId, secret, tenantId: tenantId as TenantId, database, expiresAtMs });
  contexts.set(tenantId, context);
  return context;
}

async function search(env: FloorEnv, tenantId: string, args: Arguments) {
  const query: TenantDb["query"] = async <Row>(text: string, params: readonly unknown[] = []): Promise<Row[]> => {
    const context = contexts.get(tenantId) ?? (await contextOf(env, tenantId));
    const texts = params.map((value) =>
      Array.isArray(value) ? `{${value.map((v) => JSON.stringify(v)).join(",")}}` : value,
    );
    const response = await fetch(env.NEON_FETCH_ENDPOINT, {
      method: "POST",
      headers: {
        "neon-connection-string": env.SHARED_DATABASE_URL,
        "neon-raw-text-output": "true",
        "neon-array-mode": "true",
      },
      body: JSON.stringify({
        queries: [
          { query: "SELECT tollgate.enter($1, $2)", params: [context, 20_000] },
          { query: text, params: texts },
        ],
      }),
    });
    const { fields = [], rows = [] } = ((await response.json()) as Answer).results[1] ?? {};
    const typed = (value: string | null, index: number) => (fields[index]?.dataTypeID === INT4 ? Number(value) : value);
    return rows.map((row) => Object.fromEntries(row.map((value, i) => [fields[i]?.name, typed(value, i)])) as Row);
  };
  const result = await searchProducts.run(args, { db: { query } } as ToolContext);
  if ("isError" in result) throw new Error(result.text);
  return { content: [{ type: "text", text: JSON.stringify(result.data) }], structuredContent: result.data };
}

export class FloorTenant extends DurableObject<FloorEnv> {
  constructor(ctx: DurableObjectState, env: FloorEnv) {
    super(ctx, env);
    ctx.storage.sql.exec(
      `CREATE TABLE IF NOT EXISTS calls (n INTEGER PRIMARY KEY, call_id TEXT, at_ms INTEGER, tool TEXT, units INTEGER)`,
    );
  }
  #charge(tool: string): void {
    const values = [crypto.randomUUID(), Date.now(), tool, 1];
    this.ctx.storage.sql.exec(`INSERT INTO calls (call_id, at_ms, tool, units) VALUES (?, ?, ?, ?)`, ...values);
  }
  async call(tool: string, args: Arguments) {
    counters.call += 1;
    const result = await search(this.env, this.ctx.id.name ?? "", args);
    this.#charge(tool);
    return result;
  }
  async admit(tool: string, run: () => Promise<void>): Promise<void> {
    counters.admit += 1;
    await run();
    this.#charge(tool);
  }
}

export default {
  async fetch(request, env) {
    if (request.url.endsWith("/bench/counters")) return Response.json(counters);
    const { id, params } = (await request.json()) as Call;
    const tenantId = request.headers.get("x-tenant") ?? "";
    const tenant = env.TENANT.getByName(tenantId);
    let result: unknown;
    if (!request.url.endsWith("/callback")) result = await tenant.call(params.name, params.arguments);
    else await tenant.admit(params.name, async () => void (result = await search(env, tenantId, params.arguments)));
    return Response.json({ jsonrpc: "2.0", id, result });
  },
} satisfies ExportedHandler<FloorEnv>;
