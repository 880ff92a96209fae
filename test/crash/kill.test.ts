// Kills `npm start` and all its processes during calls and a sign-up, then starts it again on the same disk. No receipt of
// a client may be lost, and no process may be left running at the end.
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, expect, test } from "vitest";
import { textOf } from "../support/html.ts";
import { PlainBrowser } from "../support/plain-browser.ts";
import { postJson } from "../../dev/demo.ts";
import { isFree } from "../../cli/ports.ts";
import {
  type Demo,
  type Seen,
  areStreamsWhole,
  callOnce,
  callUntil,
  controlRows,
  demoSystem,
  ledgerIds,
  membersOf,
  until,
} from "./demo-system.ts";

const STOP_WITHIN_MS = 15_000;
/** Calls run for this long at least before the kill. */
const CALLS_FOR_MS = 1_500;

const system = await demoSystem();
afterAll(() => system.end());

test("npm start prints the address, and as whom an owner, a member and an operator sign in", async () => {
  const started = await system.start();
  const { demo, output } = started;
  const prints = (line: RegExp): Promise<void> =>
    expect.poll(output, { timeout: 30_000 }).toMatch(line) as unknown as Promise<void>;
  const url = demo.baseUrl.replaceAll(/[.]/g, "[.]");
  await prints(new RegExp(`Ready in .* s[.] Open ${url}\n`));
  await prints(new RegExp(`Owner +${url}/app +[(]choose .+: owner[)]`));
  await prints(new RegExp(`Member +${url}/app +[(]choose .+: member[)]`));
  await prints(new RegExp(`Operator +${url}/admin +[(]choose .+: viewer, .+: support, .+: admin[)]`));

  // Each of them gets in by the name that was printed.
  const browser = () => new PlainBrowser({ publicUrl: demo.baseUrl, issuerUrl: new URL(demo.issuer.url).origin });
  for (const [label, path, heading] of [
    ["Owner", "/app", "Overview"],
    ["Member", "/app", "Overview"],
    ["Operator", "/admin/sign-in/issuer", "Overview"],
  ] as const) {
    const [, name = ""] = new RegExp(`${label} +\\S+ +[(]choose ([^:]+):`).exec(output()) ?? [];
    const visitor = browser();
    const list = await visitor.page(demo.baseUrl + path);
    const form = list.html.split("<form").find((each) => textOf(`<form${each}`).includes(name)) ?? "";
    const sub = /name="sub" value="([^"]+)"/.exec(form)?.[1] ?? "";
    const page = await visitor.submit(list, { sub });
    expect(page instanceof URL ? page.href : textOf(page.html), label).toContain(heading);
  }
  await system.kill(started);
});

test("a kill of the whole system loses no receipt of a client, and a stop leaves no process running", async () => {
  const first = await system.start();
  const { tenants } = first.demo;
  expect(tenants.map(({ plan }) => plan)).toEqual(["free", "starter", "pro", "enterprise"]);

  // A sign-up that is held at provisioning.
  await proxyFaults([{ kind: "slow", ms: 120_000, sql: "INTO provisioning_steps" }]);
  const order = await signUpUntilProvisioning(first.demo);

  const seen = new Map<string, Seen>(tenants.map(({ id }) => [id, { receipts: new Set<string>(), unanswered: 0 }]));
  const killed = new AbortController();
  const calling = tenants.flatMap(({ id, plan, apiKey }) =>
    // The free plan has 100 units an hour, so it gets one slow caller.
    Array.from({ length: plan === "free" ? 1 : 3 }, () =>
      callUntil(killed.signal, first.demo.baseUrl, apiKey, seenOf(seen, id)),
    ),
  );
  await sleep(CALLS_FOR_MS);
  await until(async () => [...seen.values()].every(({ receipts }) => receipts.size > 0), "each customer has a receipt");
  await system.kill(first);
  killed.abort();
  await Promise.all(calling);

  const second = await system.start();
  const { demo } = second;
  expect(demo.baseUrl).toBe(first.demo.baseUrl);
  expect(demo.tenants.map(({ id, apiKey }) => ({ id, apiKey }))).toEqual(
    tenants.map(({ id, apiKey }) => ({ id, apiKey })),
  );
  for (const { id, apiKey } of tenants) expect(await callOnce(demo.baseUrl, apiKey, seenOf(seen, id))).toBe(true);

  // The ledger has every receipt of a client. Additional rows can only be calls whose answer the kill lost.
  await until(async () => {
    const ids = await ledgerIds(demo);
    const arrived = [...seen].every(([id, { receipts }]) => receipts.isSubsetOf(ids.get(id) ?? new Set()));
    return arrived && (await areStreamsWhole(demo));
  }, "all calls are in the ledger");
  const ids = await ledgerIds(demo);
  for (const [id, { receipts, unanswered }] of seen) {
    expect(ids.get(id)?.size).toBeLessThanOrEqual(receipts.size + unanswered);
  }
  expect(await controlRows(demo, `SELECT call_id FROM ledger_conflicts`)).toEqual([]);

  // The sweep resumes only a silent sign-up, so the test backdates the attempt's heartbeat.
  await controlRows(
    demo,
    `UPDATE provisioning_attempts SET progressed_at = now() - interval '2 minutes' WHERE tenant_id = $1 AND finished_at IS NULL`,
    [order.tenantId],
  );
  await fireSweep(demo);
  await until(async () => (await stateOf(order)) === "active", "the interrupted sign-up is active");
  const key = await postJson(`${demo.baseUrl}/api/tenants/${order.tenantId}/keys`, { name: "first" }, order.setupToken);
  const theirs: Seen = { receipts: new Set(), unanswered: 0 };
  expect(await callOnce(demo.baseUrl, (key as { apiKey: string }).apiKey, theirs)).toBe(true);

  // The Worker of `npm start` has what this demonstration needs; the flow tests run a bundle of another entry.
  expect(await system.runs("dev/demo-id-jag.ts")).toContain("the next call with the same token is refused: 401");

  const members = membersOf(demo.pids.group);
  expect(members.length).toBeGreaterThan(2); // the leader, the Worker's processes, PostgreSQL's
  second.front.kill("SIGINT");
  const exitCode = await Promise.race([second.exited, sleep(STOP_WITHIN_MS, "still running" as const, { ref: false })]);
  expect(exitCode).toBe(0);
  expect(membersOf(demo.pids.group)).toEqual([]);
  for (const each of [system.port, ...Object.values(system.settings().ports)])
    expect(await isFree(each), `port ${each} is free`).toBe(true);
}, 300_000);

async function proxyFaults(rules: readonly Record<string, unknown>[]): Promise<void> {
  await postJson(`http://127.0.0.1:${system.settings().ports["neon"]}/_proxy/faults`, rules);
}

interface Order {
  tenantId: string;
  checkoutUrl: string;
  statusUrl: string;
  setupToken: string;
}

async function signUpUntilProvisioning({ baseUrl }: Demo): Promise<Order> {
  const order = (await postJson(`${baseUrl}/api/checkout`, { plan: "starter", name: "Interrupted" })) as Order;
  await (await fetch(order.checkoutUrl, { method: "POST", redirect: "manual" })).arrayBuffer();
  await until(async () => (await stateOf(order)) === "provisioning", "the sign-up is being provisioned");
  return order;
}

async function stateOf({ statusUrl }: Order): Promise<string> {
  return ((await (await fetch(statusUrl)).json()) as { state: string }).state;
}

async function fireSweep({ baseUrl }: Demo): Promise<void> {
  const response = await fetch(`${baseUrl}/cdn-cgi/handler/scheduled?cron=*+*+*+*+*`);
  expect(response.ok, await response.text()).toBe(true);
}

function seenOf(seen: ReadonlyMap<string, Seen>, tenantId: string): Seen {
  const of = seen.get(tenantId);
  if (of === undefined) throw new Error(`${tenantId} is none of this test`);
  return of;
}
