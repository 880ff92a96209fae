// A local stand-in for Stripe: the part of the v1 API that the product uses, a pay page, signed webhooks and, under /_sim,
// seeded faults and a virtual clock. It refuses everything else. It listens on loopback only; /_sim needs no key.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { Stripe } from "stripe";
import { readBody } from "../loopback.ts";
import { Api, type Outcome } from "./api.ts";
import type { Context } from "./context.ts";
import { control, type Controls } from "./control.ts";
import { dueSeconds, happen } from "./due.ts";
import { newEvent } from "./events.ts";
import { Faults } from "./faults.ts";
import { present, type StoredObject } from "./objects.ts";
import { page, visitPage } from "./pages.ts";
import { noticePage } from "./pay-page.ts";
import { Store } from "./store.ts";
import { type WebhookEndpoint, Webhooks } from "./webhooks.ts";

interface RequestNames {
  id: string | null;
  key: string | null;
}

/** Stripe does not publish its limit. This one is far above any real request. */
const MAX_BODY_BYTES = 1_048_576;

export interface StripeSimulatorOptions {
  /** 0 takes a free port. */
  port: number;
  /** Created if missing. ":memory:" keeps the data in memory. */
  databaseFile: string;
  secretKey: string;
  webhook?: WebhookEndpoint;
  /** Receiver of thin events until an event destination is registered through the API. */
  thinWebhook?: WebhookEndpoint;
  /** Delay until a received meter event appears in summaries. Default 0; also `POST /_sim/meter-lag`. */
  meterLagMs?: number;
  log?: (line: string) => void;
  /** Milliseconds since the epoch, before the virtual offset. Default Date.now. */
  clock?: () => number;
}

export interface StripeSimulator {
  url: string;
  port: number;
  /** Makes all waiting webhooks due now. For a receiver that has just started. */
  retryWebhooks: () => void;
  close: () => Promise<void>;
}

/** Starts the simulator on 127.0.0.1. Rejects when the port is taken or the database cannot be opened. */
export async function startStripeSimulator(options: StripeSimulatorOptions): Promise<StripeSimulator> {
  const { clock = Date.now, log = () => undefined } = options;
  const store = new Store(options.databaseFile);
  let offsetMs = Number(store.setting("clockOffsetMs") ?? 0);
  let meterLagMs = options.meterLagMs ?? 0;
  let validatesLater = false;
  let origin = "";
  const nowMs = (): number => clock() + offsetMs;
  const faults = new Faults();
  const webhooks = new Webhooks(store, { snapshot: options.webhook, thin: options.thinWebhook }, nowMs, log);
  const api = new Api(store, options.secretKey, transact);

  /** Runs a request in a transaction. Due changes run first, in their own transaction. Webhooks start after the commit. */
  function transact<T>(request: RequestNames, work: (context: Context) => T): T {
    const now = nowMs();
    let announced = false;
    const at = (ms: number, names: RequestNames): Context => {
      const announce: Context["announce"] = (type, object) => tell(type, object, undefined);
      const tell = (type: Stripe.Event.Type, object: StoredObject, previous: object | undefined) => {
        const source = { id: names.id, idempotency_key: names.key };
        const event = newEvent(Math.floor(ms / 1000), type, snapshot(object), previous, source);
        store.put(event, null);
        webhooks.plan(event);
        announced = true;
      };
      const save: Context["save"] = (type, object, previous) => {
        store.put(object, dueSeconds(object));
        if (type !== null) tell(type, object, previous === undefined ? undefined : snapshot(previous));
      };
      const announceThin: Context["announceThin"] = (event) => {
        store.put(event, null);
        webhooks.plan(event);
        announced = true;
      };
      const { key: idempotencyKey } = names;
      const tells = { save, announce, announceThin };
      return { store, nowMs: ms, origin, meterLagMs, validatesLater, idempotencyKey, ...tells };
    };
    if (store.nextDue(Math.floor(now / 1000)) !== undefined) {
      const noRequest = { id: null, key: null };
      store.transaction(() => happen(at(now, noRequest), (seconds) => at(seconds * 1000, noRequest)));
    }
    const result = store.transaction(() => work(at(now, request)));
    if (announced) setImmediate(() => webhooks.kick());
    return result;
  }

  const controls: Controls = {
    store,
    faults,
    webhooks,
    clock: () => ({ nowMs: nowMs(), offsetMs }),
    setOffsetMs: (value) => {
      offsetMs = value;
      store.setSetting("clockOffsetMs", String(value));
      transact({ id: null, key: null }, () => undefined);
      webhooks.kick();
    },
    setMeterLagMs: (value) => (meterLagMs = value),
    setValidatesLater: (value) => (validatesLater = value),
  };

  async function answer(request: IncomingMessage, url: URL): Promise<Outcome> {
    const body = (await readBody(request, MAX_BODY_BYTES))?.toString("utf8");
    if (body === undefined) return page(413, noticePage("Too large", "The request is too large."));
    const method = request.method ?? "GET";
    if (url.pathname.startsWith("/_sim/")) return control(controls, method, url.pathname, body);
    const fault = faults.next(method, url.pathname);
    const visit = visitPage(method, url.pathname, body, (work) => transact({ id: null, key: null }, work));
    if (visit !== undefined) return visit(fault);
    const header = (name: string) => {
      const value = request.headers[name];
      return Array.isArray(value) ? value[0] : value;
    };
    return api.handle({ method, path: url.pathname, query: url.search.slice(1), body, header }, fault, nowMs());
  }

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const startedMs = performance.now();
    const name = `${request.method} ${request.url?.split("?")[0]}`;
    let outcome: Outcome;
    try {
      outcome = await answer(request, new URL(origin + (request.url ?? "/")));
    } catch (error) {
      // A client that disconnected, or a bug in the simulator. The answer must not look like Stripe's.
      log(`${name}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
      outcome = { status: 500, headers: { "content-type": "text/plain" }, body: "the simulator failed" };
    }
    const status = outcome === "closed" ? outcome : outcome.status;
    log(`${name} ${status} ${(performance.now() - startedMs).toFixed(1)} ms`);
    if (outcome === "closed") return void request.socket.destroy();
    response.writeHead(outcome.status, outcome.headers).end(outcome.body);
  }

  const server = createServer((request, response) => void serve(request, response));
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen(options.port, "127.0.0.1", resolve);
  }).catch((error: unknown) => {
    store.close();
    throw error;
  });
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : options.port;
  origin = `http://127.0.0.1:${port}`;
  webhooks.kick();

  return {
    url: origin,
    port,
    retryWebhooks: () => webhooks.retryNow(),
    close: async () => {
      webhooks.close();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
      store.close();
    },
  };
}

/** The form of an object in an event: nothing expanded. */
function snapshot(object: StoredObject): object {
  return present(object, [], () => null);
}
