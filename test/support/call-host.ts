// One call on a host in memory: the product's sequence, with small fakes around it.
import { Admission } from "../../src/calls/admission.ts";
import { type CallHost, type CallUsage, runCall } from "../../src/calls/run-call.ts";
import type { CallRequest, FinishedCall } from "../../src/core/call.ts";
import { TenantConfig, TenantId } from "../../src/core/tenant/tenant.ts";
import type { Charge } from "../../src/core/usage.ts";
import { toolContext } from "./tool-context.ts";

export const NOW_MS = Date.UTC(2026, 10, 30, 20);
export const tenantId = TenantId.parse("acme");

export const config = TenantConfig.parse({
  id: tenantId,
  version: 1,
  name: "Acme",
  plan: "free",
  strategy: "shared",
  placement: null,
  state: "active",
  trialUntilMs: null,
  limits: { unitsPerHour: 1, unitsPerMonth: null, callsPerMinute: null, callsInFlight: 10 },
  allowedTools: null,
  keys: [{ id: "k1", hash: "h1", expiresAtMs: null, lineId: "line-1" }],
  links: [],
  members: [],
  removedMembers: [],
});

/** Costs one unit, which is all that the tenant has. */
export const request: CallRequest = {
  callId: "call-1",
  attempt: 1,
  caller: { kind: "key", tenantId, keyId: "k1", keyHash: "h1", scopes: ["tools:read"] },
  tool: "search_products",
  args: { query: "", limit: 10 },
};
export const canary: CallRequest = {
  ...request,
  tool: "health_check",
  args: {},
  caller: { kind: "canary", tenantId, scopes: ["tools:read"], expiresAtMs: NOW_MS + 1 },
};

/** A host with a tenant that may use one unit an hour. `own` replaces parts of it. */
export function startHost(own: { host?: Partial<CallHost>; usage?: Partial<CallUsage> } = {}) {
  const admission = new Admission();
  const charges: Charge[] = [];
  const lines: (string | undefined)[] = [];
  const keysUsed: string[] = [];
  const usage: CallUsage = {
    admission,
    keyUsed: (keyId) => void keysUsed.push(keyId),
    chargeOf: () => undefined,
    fallbackCharges: () => [],
    keyed: undefined,
    spendCanary: () => true,
    usedSince: () => 0,
    recent: () => [],
    history: () => [],
    charge: (charge, line) => {
      charges.push(charge);
      lines.push(line);
      return undefined;
    },
    ...own.usage,
  };
  const { db } = toolContext().context;
  const host: { -readonly [Name in keyof CallHost]: CallHost[Name] } = {
    env: {
      ...{ FILES: { list: async () => ({ objects: [], truncated: false }) } as never, PUBLIC_URL: "https://x.example" },
      ...{ DNS_URL: "https://dns.example/query", TOOL_HOSTS_LOCAL: "" },
      ENCRYPTION_KEYS: JSON.stringify([{ id: "k1", secret: "the encryption key of the tests, which is long" }]),
    },
    now: () => NOW_MS,
    tenant: () => config,
    scopes: ({ scopes }) => scopes,
    refuse: () => undefined,
    rows: () => ({ ...db, forCall: () => db }),
    usage: () => usage,
    ...own.host,
  };
  const finished: FinishedCall[] = [];
  host.finished ??= (ended) => void finished.push(ended);
  const call = (made = request, abort = new AbortController()) => runCall(host, made, { abort, progress: undefined });
  const used = () => admission.quota(config.limits, NOW_MS).hour.used;
  return { admission, call, callHost: host, charges, finished, lines, keysUsed, used };
}

/** Rows whose first statement fails or hangs. */
export function rowsThat(query: () => Promise<never>): CallHost["rows"] {
  const db = { ...toolContext().context.db, query };
  return () => ({ ...db, forCall: () => db });
}
