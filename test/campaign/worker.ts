// The product's Worker with the campaign's crashes. In an object, a crash is the platform's own abort. In the Worker, a
// crash makes every later request of the invocation fail, and the invocation fails at its end. Earlier effects stay, and
// error handling has no further effect, as if the process had ended there.
import { AsyncLocalStorage } from "node:async_hooks";
import type { Step, TenantWork } from "../../src/control/work.ts";
import type { CallOutcome, CallRequest, Progress } from "../../src/core/call.ts";
import { TenantObject as ProductObject } from "../../src/tenant-object.ts";
import worker from "../../src/worker.ts";
import { type Plan, type PointCounts, type RequestPoint, noCrashes, requestPoints } from "./points.ts";

// Exports declared here replace the product's.
export * from "../../src/worker.ts";

interface Invocation {
  dead: boolean;
  /** Ends the current object. */
  endObject?: () => void;
}

class Killed extends Error {
  constructor() {
    super("the process ended here");
  }
}

// Without this, wrangler maps the stack frames of each error to the sources, which costs more time than the tests.
Error.stackTraceLimit = 0;

const invocations = new AsyncLocalStorage<Invocation>();
let plan: Plan = noCrashes;
const counts: PointCounts = {};
const draws = new Map<number, number>();
let messageCount = 0;
let offsetMs = 0;

// One virtual clock for the whole Worker. Timers stay real. Alarm times are converted to real time.
const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...given: [] | [string | number | Date]) {
    super(given[0] ?? RealDate.now() + offsetMs);
  }
  static override now(): number {
    return RealDate.now() + offsetMs;
  }
} as DateConstructor;

/** True if this occurrence of a point crashes. Depends on the seed, the point and its count in this run. */
function strikes(point: number): boolean {
  const met = (draws.get(point) ?? 0) + 1;
  draws.set(point, met);
  const count = (counts[point] ??= { met: 0, hit: 0 });
  count.met += 1;
  if (draw(plan.seed, point, met) >= (plan.chances[point] ?? 0)) return false;
  count.hit += 1;
  return true;
}

/** A pseudorandom number in [0, 1): the finalizer of MurmurHash3 over the three arguments. */
function draw(seed: number, point: number, n: number): number {
  let bits = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(point, 0x85ebca6b) ^ Math.imul(n, 0xc2b2ae35)) >>> 0;
  for (const [shift, factor] of [
    [16, 0x85ebca6b],
    [13, 0xc2b2ae35],
  ] as const) {
    bits = Math.imul(bits ^ (bits >>> shift), factor) >>> 0;
  }
  return ((bits ^ (bits >>> 16)) >>> 0) / 2 ** 32;
}

function kill(invocation: Invocation): never {
  invocation.dead = true;
  invocation.endObject?.();
  throw new Killed();
}

const send = globalThis.fetch;
globalThis.fetch = async (input, init) => {
  const invocation = invocations.getStore();
  if (invocation === undefined) return send(input, init);
  if (invocation.dead) throw new Killed();
  const met = pointsOf(invocation, input, init);
  for (const { point, when } of met) {
    if (when === "after" || !strikes(point)) continue;
    if (when === "refused") return new Response("refused by the campaign", { status: 503 });
    kill(invocation);
  }
  const response = await send(input, init);
  for (const { point, when } of met) {
    if (when !== "after" || !strikes(point)) continue;
    await response.body?.cancel();
    kill(invocation);
  }
  return response;
};

function pointsOf(invocation: Invocation, input: RequestInfo | URL, init: RequestInit | undefined): RequestPoint[] {
  const { pathname } = new URL(input instanceof Request ? input.url : String(input));
  const method = init?.method ?? (input instanceof Request ? input.method : "GET");
  const body = typeof init?.body === "string" ? init.body : "";
  const where = invocation.endObject === undefined ? "worker" : "object";
  return requestPoints.filter((each) => {
    if (each.where !== undefined && each.where !== where) return false;
    if (each.sql !== undefined) return pathname.endsWith("/sql") && body.includes(each.sql);
    const [wantedMethod, wantedPath = ""] = each.stripe?.split(" ") ?? [];
    const [start = "", end] = wantedPath.split("*");
    const isThere = end === undefined ? pathname === start : pathname.startsWith(start) && pathname.endsWith(end);
    return method === wantedMethod && isThere;
  });
}

/** Loses or duplicates an object's usage messages. The object repeats them until the ledger acknowledges them. */
function unreliable(queue: Queue, endObject: () => void): Queue {
  return new Proxy(queue, {
    get(target, name) {
      if (name !== "sendBatch") return Reflect.get(target, name, target) as unknown;
      return async (messages: Iterable<MessageSendRequest>) => {
        const sent = [...messages].flatMap((message) => {
          const chance = draw(plan.seed, 1_000, (messageCount += 1));
          if (chance < plan.lostMessages) return [];
          return chance < plan.lostMessages + plan.doubledMessages ? [message, message] : [message];
        });
        const sending = sent.length === 0 ? Promise.resolve() : target.sendBatch(sent);
        if (strikes(22)) endObject();
        await sending;
        if (strikes(5)) endObject();
      };
    },
  });
}

export class TenantObject extends ProductObject {
  readonly #invocation = (): Invocation => ({ dead: false, endObject: () => this.ctx.abort("ended by the campaign") });

  constructor(ctx: DurableObjectState, env: Env) {
    const { storage } = ctx;
    const setAlarm = storage.setAlarm.bind(storage);
    storage.setAlarm = (at, options) => setAlarm(Number(at) - offsetMs, options);
    super(ctx, { ...env, USAGE: unreliable(env.USAGE, () => ctx.abort("ended by the campaign")) });
  }

  override async call(request: CallRequest, progress?: (progress: Progress) => Promise<void>): Promise<CallOutcome> {
    const outcome = await invocations.run(this.#invocation(), () => super.call(request, progress));
    if (strikes(3)) {
      await this.ctx.storage.sync(); // the charge is durable, but the answer is not sent
      this.ctx.abort("ended by the campaign");
    }
    return outcome;
  }

  override applyInbox(): Promise<void> {
    return invocations.run(this.#invocation(), () => super.applyInbox());
  }

  override advance(work: TenantWork): Promise<Step> {
    if (work.kind !== "plan_change" && work.kind !== "removal") return super.advance(work);
    return invocations.run(this.#invocation(), () => super.advance(work));
  }

  override changePlan(): Promise<void> {
    return invocations.run(this.#invocation(), () => super.changePlan());
  }

  override reactivate(how: { again: boolean }): ReturnType<ProductObject["reactivate"]> {
    return invocations.run(this.#invocation(), () => super.reactivate(how));
  }

  override cancelPlanChange(): Promise<boolean> {
    return invocations.run(this.#invocation(), () => super.cancelPlanChange());
  }

  override async alarm(): Promise<void> {
    if (strikes(4)) this.ctx.abort("ended by the campaign");
    await super.alarm();
  }

  endNow(): void {
    this.ctx.abort("ended by the campaign");
  }

  /** Fires the alarm as the platform does. A stub cannot call `alarm()` directly. */
  sendNow(): Promise<void> {
    return this.alarm();
  }

  /** All charges of this object, from its rows and from the folded ones, and the number of rows it keeps. */
  charged(): { units: number; rows: number } {
    const { sql } = this.ctx.storage;
    if (sql.exec(`SELECT 1 FROM sqlite_master WHERE name = 'calls'`).toArray().length === 0)
      return { units: 0, rows: 0 };
    return sql
      .exec<{ units: number; rows: number }>(
        `SELECT (SELECT coalesce(sum(units), 0) FROM calls) + (SELECT coalesce(sum(units), 0) FROM totals) AS units,
                (SELECT count(*) FROM calls) AS rows`,
      )
      .one();
  }
}

/** Awaits work that may end its object. */
async function ended(work: PromiseLike<void>): Promise<"lived" | "died"> {
  try {
    await work;
    return "lived";
  } catch {
    return "died";
  }
}

/** Runs one invocation that may be killed. A killed invocation always fails. */
async function invoke<T>(work: () => T | Promise<T>, invocation: Invocation = { dead: false }): Promise<T> {
  const result = await invocations.run(invocation, work);
  if (invocation.dead) throw new Killed();
  return result;
}

export default {
  async fetch(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    const tenant = searchParams.get("tenant") ?? "";
    const object = env.TENANT.getByName(tenant) as unknown as DurableObjectStub<TenantObject>;
    switch (pathname) {
      case "/campaign/plan":
        plan = await request.json<Plan>();
        draws.clear();
        messageCount = 0;
        return Response.json(plan);
      case "/campaign/counts":
        return Response.json(counts);
      case "/campaign/clock":
        offsetMs = Number(searchParams.get("offsetMs"));
        return Response.json({ offsetMs });
      case "/campaign/send":
        return Response.json({ alarm: await ended(object.sendNow()) });
      case "/campaign/end":
        return Response.json({ end: await ended(object.endNow()) });
      case "/campaign/charged":
        return Response.json(await object.charged());
      default:
        // Kill only requests that Stripe repeats. Calls are killed in their object.
        return pathname.startsWith("/webhooks/")
          ? invoke(() => worker.fetch(request, env, ctx))
          : worker.fetch(request, env, ctx);
    }
  },
  async queue(batch, env) {
    const invocation: Invocation = { dead: false };
    const messages = batch.messages.map((message) => watch(message, invocation));
    const watched = { queue: batch.queue, metadata: batch.metadata, messages };
    await invoke(() => worker.queue(watched as unknown as MessageBatch, env), invocation);
  },
  scheduled: (controller, env) => invoke(() => worker.scheduled(controller, env)),
} satisfies ExportedHandler<Env>;

/** Ignores a killed consumer's acks and retries. Drops retry delays, because the run's hours pass in seconds. */
function watch(message: Message, invocation: Invocation): Message {
  return new Proxy(message, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target);
      if (name !== "ack" && name !== "retry") return value;
      return () => {
        if (invocation.dead) return;
        if (name === "ack") target.ack();
        else target.retry({ delaySeconds: 0 });
      };
    },
  });
}
