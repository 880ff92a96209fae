// Sends requests to the whole app without a system. What a request does after its answer ends with its test: when the test is
// over, waits in that work take no time, and the set-up file late-work.ts waits for the work. Files of the project `core` share
// modules and timers, so work that outlives its test would appear in another one.
import { AsyncLocalStorage } from "node:async_hooks";
import type { Hono } from "hono";
import type { HttpEnv } from "../../src/http.ts";

interface TestScope {
  isOver: boolean;
  /** Given to `waitUntil`. */
  works: Promise<unknown>[];
  /** Timers that requests have set, and what they run. */
  timers: Map<NodeJS.Timeout, () => void>;
}

const scopes = new AsyncLocalStorage<TestScope>();
const newScope = (): TestScope => ({ isOver: false, works: [], timers: new Map() });
let current = newScope();

/** Rates of addresses that admit everything, unless a test has its own. */
const unlimited = { limit: async () => ({ success: true }) };
const rates = { ADDRESS_RATE: unlimited, REGISTRATION_RATE: unlimited, FAILURE_RATE: unlimited };

/** The answer of `app`. `after` also gets what the request does after it. */
export async function appFetch(
  app: Hono<HttpEnv>,
  request: Request,
  env: object,
  after: Promise<unknown>[] = [],
): Promise<Response> {
  const scope = current;
  const context = {
    waitUntil(work: Promise<unknown>): void {
      scope.works.push(work);
      after.push(work);
    },
    passThroughOnException() {},
    props: {},
  } as unknown as ExecutionContext;
  return scopes.run(scope, async () => app.fetch(request, { ...rates, ...env } as unknown as Env, context));
}

/** Ends what the requests of the test still do. */
export async function endLateWork(): Promise<void> {
  const ended = current;
  current = newScope();
  ended.isOver = true;
  for (const [timer, run] of ended.timers) {
    globalThis.clearTimeout(timer);
    run();
  }
  // A test that has timed out still runs, and may leave its work to one with fake timers.
  const late = new Promise<void>((resolve) => startTimer(resolve, LATE_MS).unref());
  while (ended.works.length > 0) await Promise.race([late, Promise.allSettled(ended.works.splice(0))]);
}

const { setTimeout: startTimer, clearTimeout: stopTimer } = globalThis;
/** Work without waits takes milliseconds. */
const LATE_MS = 5_000;

function startScopedTimer(run: (...values: unknown[]) => void, ms?: number, ...values: unknown[]): NodeJS.Timeout {
  const scope = scopes.getStore();
  if (scope === undefined) return startTimer(run, ms, ...values);
  const fire = (): void => {
    scope.timers.delete(timer);
    run(...values);
  };
  const timer = startTimer(fire, scope.isOver ? 0 : ms);
  scope.timers.set(timer, fire);
  return timer;
}

function stopScopedTimer(timer: NodeJS.Timeout | undefined): void {
  if (timer !== undefined) scopes.getStore()?.timers.delete(timer);
  stopTimer(timer);
}

// `setTimeout` has more than a call: `util.promisify` reads a symbol of it.
Object.assign(globalThis, {
  setTimeout: Object.defineProperties(startScopedTimer, Object.getOwnPropertyDescriptors(startTimer)),
  clearTimeout: stopScopedTimer,
});
