// The product's Worker with what only a test may do: set a tenant's clock, end its object in the middle of things, call
// it past the MCP endpoint, leave in the middle of a call, take the monitor away, trust one issuer more; and one tool
// more, whose calls must never run twice.
import * as z from "zod";
import type { CallOutcome, CallRequest } from "../../src/core/call.ts";
import { authenticate } from "../../src/mcp/auth.ts";
import { Provisioning as ProductProvisioning } from "../../src/platform/provisioning.ts";
import { TenantObject as ProductObject } from "../../src/platform/tenant-object.ts";
import { catalogue } from "../../src/tools/catalogue.ts";
import { type Tool, defineTool, isFailure } from "../../src/tools/tool.ts";
import worker from "../../src/worker.ts";

const takeFromStock = defineTool({
  name: "take_from_stock",
  title: "Take from stock",
  description: "Takes one piece of a product out of stock.",
  units: 1,
  scopes: ["tools:write"],
  input: z.strictObject({ id: z.string() }),
  output: z.strictObject({ stock: z.int() }),
  annotations: { readOnly: false, idempotent: false, destructive: true },
  failed: isFailure,

  async run({ id }, { db }) {
    const [row] = await db.query<{ stock: number }>(
      `UPDATE products SET stock = stock - 1 WHERE id = $1 RETURNING stock`,
      [id],
    );
    return row === undefined ? { isError: true, text: "There is no such product." } : { data: row };
  },
});
(catalogue as Map<string, Tool>).set(takeFromStock.name, takeFromStock);

const offsetsMs = new Map<string, number>();
let monitorIsDown = false;
let trustingEnv: Env | undefined;

export class TenantObject extends ProductObject {
  protected override now(): number {
    return Date.now() + (offsetsMs.get(this.ctx.id.name ?? "") ?? 0);
  }

  /** Ends the object as a crash would: what runs is lost, what is stored stays. */
  endNow(): void {
    this.ctx.abort("ended by a test");
  }

  /** What the object has stored. */
  stored(): Record<string, unknown>[] {
    const { sql } = this.ctx.storage;
    const tables = sql.exec(`SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'calls'`).toArray();
    return tables.length === 0 ? [] : sql.exec(`SELECT * FROM calls ORDER BY n`).toArray();
  }
}

export class Provisioning extends ProductProvisioning {
  constructor(ctx: ExecutionContext, env: Env) {
    // The monitor has nothing there, and says so.
    super(ctx, monitorIsDown ? { ...env, MONITOR_URL: `${env.MONITOR_URL}/down` } : env);
  }
}

export default {
  ...worker,
  async fetch(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    const tenantId = searchParams.get("tenant") ?? "";
    const object = env.TENANT.getByName(tenantId) as unknown as DurableObjectStub<TenantObject>;
    switch (pathname) {
      case "/test/clock":
        offsetsMs.set(tenantId, Number(searchParams.get("offsetMs")));
        return Response.json({ tenantId, offsetMs: offsetsMs.get(tenantId) });
      case "/test/end":
        await object.endNow().catch(() => undefined);
        return Response.json({ ended: tenantId });
      case "/test/stored":
        return Response.json(await object.stored());
      case "/test/monitor":
        monitorIsDown = searchParams.get("down") === "true";
        return Response.json({ monitorIsDown });
      case "/test/trust":
        trustingEnv = trusting(env, searchParams.get("issuer"));
        return Response.json({ issuers: trustingEnv.OIDC_ISSUERS });
      case "/test/call":
        return Response.json(await callObject(request, env));
      case "/test/leave": {
        // The local runtime does not tell of a client that leaves before its answer begins.
        const signal = AbortSignal.timeout(Number(searchParams.get("afterMs")));
        return worker.fetch(new Request(`${env.PUBLIC_URL}/mcp`, new Request(request, { signal })), env, ctx);
      }
      default:
        return worker.fetch(request, trustingEnv ?? env, ctx);
    }
  },
} satisfies ExportedHandler<Env>;

/** The environment of a deployment that trusts one issuer more. */
function trusting(env: Env, issuer: string | null): Env {
  if (issuer === null) return env;
  const more = { issuer, jwksUrl: `${issuer}/.well-known/jwks.json`, tenantClaim: "tenant_id" };
  return { ...env, OIDC_ISSUERS: JSON.stringify([...(JSON.parse(env.OIDC_ISSUERS) as unknown[]), more]) };
}

/** One attempt of a call, as the MCP endpoint makes it after it has identified the caller. */
async function callObject(request: Request, env: Env): Promise<CallOutcome> {
  const authentication = await authenticate(request.headers.get("authorization"), env, Date.now());
  if ("refused" in authentication) throw new Error(authentication.refused);
  const { caller } = authentication;
  const call = { ...(await request.json<Omit<CallRequest, "caller">>()), caller };
  return (await env.TENANT.getByName(caller.tenantId).call(call)) as CallOutcome;
}
