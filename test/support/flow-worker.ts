// The product's Worker with what only a test may do: set a tenant's clock, and end its object in the middle of things.
import { Provisioning } from "../../src/platform/provisioning.ts";
import { TenantObject as ProductObject } from "../../src/platform/tenant-object.ts";
import worker from "../../src/worker.ts";

const offsetsMs = new Map<string, number>();

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

export { Provisioning };

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
      default:
        return worker.fetch(request, env, ctx);
    }
  },
} satisfies ExportedHandler<Env>;
