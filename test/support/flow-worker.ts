// The product's Worker with routes for tests. They set a tenant's clock, end its object, call it without the MCP endpoint,
// disconnect during a call, disable the monitor, trust another issuer, add migrations, and make the object or the queue
// unreachable. As in `npm start`, customers' providers exist at public names. The Worker also has tools for tests, among them one whose calls must never run twice.
import { AsyncLocalStorage } from "node:async_hooks";
import type { Migration } from "../../src/tenant-db/branch.ts";
import type { CallOutcome, CallRequest } from "../../src/core/call.ts";
import type { OauthAnswer, TokenRequest } from "../../src/identity/oauth/server.ts";
import { authenticate } from "../../src/identity/tokens/authenticate.ts";
import { Provisioning as ProductProvisioning } from "../../src/lifecycle/provisioning-workflow.ts";
import { SessionBudget as ProductBudget, SESSION_BUDGET_NAME } from "../../src/tenant-db/session-budget.ts";
import { tenantMigrations } from "../../src/tenant-db/migrations.ts";
import { createContext } from "../../src/control/context.ts";
import { rotateEncryptionKeys } from "../../src/operations/key-rotation.ts";
import { TenantObject as ProductObject } from "../../src/tenant-object.ts";
import { catalogue } from "../../src/tools/catalogue.ts";
import type { Tool } from "../../src/tools/tool.ts";
import worker from "../../dev/worker.ts";
import { countingCalls } from "./counted-objects.ts";
import { flowTools } from "./flow-tools.ts";

for (const tool of flowTools) (catalogue as Map<string, Tool>).set(tool.name, tool);

const offsetsMs = new Map<string, number>();
/** The offset for code that reads the machine's clock itself, as the OAuth library does. */
const offsetMs = new AsyncLocalStorage<number>();
const machineNow = Date.now.bind(Date);
Date.now = () => machineNow() + (offsetMs.getStore() ?? 0);
/** How often clients of a tenant have renewed their tokens. */
const renewals = new Map<string, number>();
let monitorIsDown = false;
const released = tenantMigrations.length;
let budgetOfTest: number | undefined;
let trustingEnv: Env | undefined;
/** The setting `TENANT_HOSTS`, of the Worker and of tenants' objects. */
let hostsOfTest = "{}";

/**
 * A fault of a tenant's object as the Worker sees it. `away`: out of reach. `silent`: it never answers. `answers-lost` and
 * `cut-off`: the answer to a call is lost, after the call or in the middle of it. `no-queue`: the object and the queue are
 * out of reach.
 */
type ObjectFault = "away" | "overloaded" | "silent" | "answers-lost" | "cut-off" | "no-queue";
const objectFaults = new Map<string, ObjectFault>();
/** Number of calls that the Worker sent to an object with a fault. */
let callsSent = 0;

// Exports declared here replace the product's.
export * from "../../dev/worker.ts";

/** Tenants whose objects cannot send to the queue. */
const refusedByQueue = new Set<string>();

export class TenantObject extends ProductObject {
  constructor(ctx: DurableObjectState, env: Env) {
    const USAGE = Object.assign(Object.create(env.USAGE) as Queue, {
      sendBatch: async (messages: Iterable<MessageSendRequest>) => {
        if (refusedByQueue.has(ctx.id.name ?? "")) throw new Error("The queue refuses messages.");
        return env.USAGE.sendBatch(messages);
      },
    });
    const ofTest: Env = {
      ...env,
      USAGE,
      get TENANT_HOSTS() {
        return hostsOfTest;
      },
    };
    super(ctx, ofTest);
  }

  protected override now(): number {
    return machineNow() + (offsetsMs.get(this.ctx.id.name ?? "") ?? 0);
  }

  override async oauthToken(request: TokenRequest): Promise<OauthAnswer> {
    const tenantId = this.ctx.id.name ?? "";
    const answer = await offsetMs.run(offsetsMs.get(tenantId) ?? 0, () => super.oauthToken(request));
    const isRenewal = new URLSearchParams(request.body).get("grant_type") === "refresh_token";
    if (isRenewal && answer.status === 200) renewals.set(tenantId, (renewals.get(tenantId) ?? 0) + 1);
    return answer;
  }

  /** Ends the object as a crash does: running work is lost, stored data stays. */
  endNow(): void {
    this.ctx.abort("ended by a test");
  }

  /** Summary of the object's storage. */
  async remains(): Promise<{ tables: string[]; alarmAtMs: number | null }> {
    const { sql } = this.ctx.storage;
    const tables = sql.exec<{ name: string }>(`SELECT name FROM sqlite_master WHERE type = 'table'`).toArray();
    return { tables: tables.map(({ name }) => name), alarmAtMs: await this.ctx.storage.getAlarm() };
  }

  /** The object's rows of calls. */
  stored(): Record<string, unknown>[] {
    const { sql } = this.ctx.storage;
    const tables = sql.exec(`SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'calls'`).toArray();
    return tables.length === 0 ? [] : sql.exec(`SELECT * FROM calls ORDER BY n`).toArray();
  }
}

/** Keys in the buckets under these prefixes. */
async function filesUnder(env: Env, prefixes: readonly string[]): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const bucket of [env.FILES, env.BACKUPS]) {
    for (const prefix of prefixes) {
      const { objects } = await bucket.list({ prefix });
      for (const { key } of objects) found[key] = (await (await bucket.get(key))?.text()) ?? "";
    }
  }
  return found;
}

export class SessionBudget extends ProductBudget {
  protected override budget(): number {
    return budgetOfTest ?? super.budget();
  }

  forget(): void {
    this.ctx.storage.sql.exec(`DELETE FROM holders`);
  }

  /** Session slots by holder. */
  holders(): Record<string, number> {
    const rows = this.ctx.storage.sql
      .exec<{ name: string; slots: number }>(`SELECT name, slots FROM holders`)
      .toArray();
    return Object.fromEntries(rows.map(({ name, slots }) => [name, slots]));
  }
}

export class Provisioning extends ProductProvisioning {
  constructor(ctx: ExecutionContext, env: Env) {
    // This path of the monitor answers with an error.
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
      case "/test/renewals":
        return Response.json({ renewals: renewals.get(tenantId) ?? 0 });
      case "/test/end":
        await object.endNow().catch(() => undefined);
        return Response.json({ ended: tenantId });
      case "/test/stored":
        return Response.json(await object.stored());
      case "/test/remains": {
        const { tables, alarmAtMs } = await object.remains();
        return Response.json({ tables: [...tables], alarmAtMs });
      }
      case "/test/files":
        return Response.json(await filesUnder(env, searchParams.getAll("prefix")));
      case "/test/holders": {
        const budget = env.SESSIONS.getByName(SESSION_BUDGET_NAME) as unknown as DurableObjectStub<SessionBudget>;
        return Response.json(await budget.holders());
      }
      case "/test/budget": {
        const sessions = searchParams.get("sessions");
        budgetOfTest = sessions === null ? undefined : Number(sessions);
        // Ignore sessions that other tests have left open.
        if (searchParams.has("forget")) {
          await (env.SESSIONS.getByName(SESSION_BUDGET_NAME) as unknown as DurableObjectStub<SessionBudget>).forget();
        }
        return Response.json({ budgetOfTest });
      }
      case "/test/rotate": {
        const keys = (JSON.parse(env.ENCRYPTION_KEYS) as unknown[]).toReversed();
        await rotateEncryptionKeys(createContext({ ...env, ENCRYPTION_KEYS: JSON.stringify(keys) }));
        return Response.json({ rotated: true });
      }
      case "/test/monitor":
        monitorIsDown = searchParams.get("down") === "true";
        return Response.json({ monitorIsDown });
      case "/test/trust":
        trustingEnv = trusting(env, searchParams.get("issuer"), searchParams.get("settings"));
        return Response.json({ issuers: trustingEnv.OIDC_ISSUERS });
      case "/test/hosts":
        hostsOfTest = searchParams.get("setting") ?? "{}";
        return Response.json({ hostsOfTest });
      case "/test/with-vars": {
        // One request to `path` of a deployment with other settings.
        const vars = JSON.parse(searchParams.get("vars") ?? "{}") as Partial<Env>;
        const path = searchParams.get("path") ?? "/";
        return worker.fetch(new Request(`${env.PUBLIC_URL}${path}`, request), { ...env, ...vars }, ctx);
      }
      case "/test/counted": {
        // One request to `path`, whose answer names the calls of objects that it took.
        const calls: string[] = [];
        const asked = new Request(`${env.PUBLIC_URL}${searchParams.get("path")}`, request);
        const answer = await worker.fetch(asked, countingCalls(env, calls), ctx);
        const body = await answer.arrayBuffer();
        return new Response(body, { status: answer.status, headers: { "x-object-calls": calls.join(" ") } });
      }
      case "/test/document":
        documents.set(searchParams.get("url") ?? "", await request.text());
        return Response.json([...documents.keys()]);
      case "/test/object": {
        const fault = searchParams.get("fault");
        if (fault === null) objectFaults.delete(tenantId);
        else objectFaults.set(tenantId, fault as ObjectFault);
        return Response.json({ fault, callsSent });
      }
      case "/test/queue":
        await env.USAGE.send(await request.json());
        return Response.json({ sent: true });
      case "/test/dead-queue": {
        const body: unknown = await request.json();
        const outcomes: string[] = [];
        const message = {
          ...{ id: crypto.randomUUID(), timestamp: new Date(), body, attempts: 1 },
          ack: () => outcomes.push("ack"),
          retry: () => outcomes.push("retry"),
        };
        const batch = { queue: "tollgate-usage-dead", messages: [message] };
        await worker.queue(batch as unknown as MessageBatch, env);
        return Response.json({ id: message.id, outcomes });
      }
      case "/test/queue-refuses":
        if (searchParams.get("refuses") === "true") refusedByQueue.add(searchParams.get("tenant") ?? "");
        else refusedByQueue.delete(searchParams.get("tenant") ?? "");
        return Response.json([...refusedByQueue]);
      case "/test/call":
        return Response.json(await callObject(request, env));
      case "/test/migrations":
        // Additional migration files for tenants' schemas, or none.
        (tenantMigrations as Migration[]).splice(released, Infinity, ...(await request.json<Migration[]>()));
        return Response.json(tenantMigrations);
      case "/test/leave": {
        // The local runtime does not report a client that disconnects before its answer begins.
        const signal = AbortSignal.timeout(Number(searchParams.get("afterMs")));
        return worker.fetch(new Request(`${env.PUBLIC_URL}/mcp`, new Request(request, { signal })), env, ctx);
      }
      default:
        return worker.fetch(request, withHosts(outOfReach(trustingEnv ?? env)), ctx);
    }
  },
  queue: (batch: MessageBatch, env: Env) => worker.queue(batch, outOfReach(env)),
  scheduled: (controller: ScheduledController, env: Env) => worker.scheduled(controller, outOfReach(env)),
} satisfies ExportedHandler<Env>;

/** The environment in which tenants have the hosts that a test has given them. */
function withHosts(env: Env): Env {
  return hostsOfTest === "{}" ? env : { ...env, TENANT_HOSTS: hostsOfTest };
}

/** The environment in which tenants' objects have the faults that a test has set. */
function outOfReach(env: Env): Env {
  if (objectFaults.size === 0) return env;
  const TENANT = Object.assign(Object.create(env.TENANT) as Env["TENANT"], {
    getByName: (name: string) => {
      const stub = env.TENANT.getByName(name);
      const fault = objectFaults.get(name);
      return fault === undefined ? stub : faultyStub(stub, fault);
    },
  });
  const USAGE = Object.assign(Object.create(env.USAGE) as Env["USAGE"], {
    send: async (body: { tenantId: string }) => {
      if (objectFaults.get(body.tenantId) === "no-queue") throw new Error("The queue is out of reach.");
      return env.USAGE.send(body);
    },
  });
  return { ...env, TENANT, USAGE };
}

function faultyStub(stub: DurableObjectStub<ProductObject>, fault: ObjectFault): DurableObjectStub<ProductObject> {
  const methods: ProxyHandler<DurableObjectStub<ProductObject>> = {
    get:
      (_target, method) =>
      async (...args: unknown[]): Promise<unknown> => {
        if (method === "call") callsSent += 1;
        if (fault === "silent") return new Promise(() => undefined);
        if (fault === "overloaded")
          throw Object.assign(new Error("Durable Object is overloaded."), { overloaded: true });
        if (fault === "answers-lost" || fault === "cut-off") {
          const answer = (stub[method as "probe"] as (...given: unknown[]) => Promise<unknown>)(...args);
          if (method !== "call") return answer;
          if (fault === "answers-lost") await answer;
          else answer.catch(() => undefined);
          // From here on, both the object and the queue are unreachable.
          objectFaults.set(stub.name ?? "", "away");
        }
        throw Object.assign(new Error("Network connection lost."), { retryable: true });
      },
  };
  return new Proxy({} as DurableObjectStub<ProductObject>, methods);
}

/**
 * The environment of a deployment that trusts one additional issuer, or several with these settings. Tollgate's client has the
 * same secret at each, as at the local provider and its imitations.
 */
function trusting(env: Env, issuer: string | null, settings: string | null): Env {
  if (issuer === null && settings === null) return env;
  const more =
    settings === null
      ? [{ issuer, jwksUrl: `${issuer}/.well-known/jwks.json`, tenantClaim: "tenant_id" }]
      : (JSON.parse(settings) as { issuer: string }[]);
  const [secret] = Object.values(JSON.parse(env.OIDC_CLIENT_SECRETS) as Record<string, string>);
  const secrets = Object.fromEntries(more.map((each) => [each.issuer, secret]));
  return {
    ...env,
    OIDC_ISSUERS: JSON.stringify([...(JSON.parse(env.OIDC_ISSUERS) as unknown[]), ...more]),
    OIDC_CLIENT_SECRETS: JSON.stringify({ ...(JSON.parse(env.OIDC_CLIENT_SECRETS) as object), ...secrets }),
  };
}

/** Documents of the outside world, by URL. No test has a public HTTPS server with which clients describe themselves. */
const documents = new Map<string, string>();
const outside = globalThis.fetch.bind(globalThis);
globalThis.fetch = async (input, init) => {
  const url = input instanceof Request ? input.url : String(input);
  const document = documents.get(url);
  if (document === undefined) return outside(input, init);
  return new Response(document, { headers: { "content-type": "application/json" } });
};

/** One attempt of a call, as the MCP endpoint makes it after it has identified the caller. */
async function callObject(request: Request, env: Env): Promise<CallOutcome> {
  const authentication = await authenticate(request.headers.get("authorization"), createContext(env), Date.now());
  if ("refused" in authentication) throw new Error(authentication.refused);
  const { caller } = authentication;
  const call = { ...(await request.json<Omit<CallRequest, "caller">>()), caller };
  return (await env.TENANT.getByName(caller.tenantId).call(call)) as CallOutcome;
}
