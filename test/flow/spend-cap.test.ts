// Limits that a person raises: calls stop at the spend cap, an owner raises it or changes the plan, the call that waits completes, and
// the invoice equals the cap to the unit.
import { randomUUID } from "node:crypto";
import { Client as ModernClient, StreamableHTTPClientTransport as ModernTransport } from "@modelcontextprotocol/client";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { afterAll, expect, test } from "vitest";
import { planOf } from "../../src/core/plans/plans.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { DAY_MS, HOUR_MS } from "../../src/core/time.ts";
import { fallbackUsage } from "../../src/core/usage.ts";
import {
  type TestTenant,
  type ToolAnswer,
  callTool,
  controlRows,
  endObject,
  fireCron,
  modernMeta,
  operator,
  simulator,
  system,
  toQueue,
  until,
} from "../support/flow.ts";
import { unitsBilled } from "../support/removals.ts";
import { type Browser } from "../support/sign-in.ts";
import { anOwnerOf, anOwnedTenant } from "../support/signed-in.ts";
import { aSubscriber, rowOf } from "../support/subscribers.ts";

afterAll(() => simulator("/clock", { offsetMs: 0 }));

const search = (tenant: TestTenant): Promise<ToolAnswer> => callTool(tenant.apiKey, "search_products", { query: "" });

/** Changes the tenant's configuration as its own administrator. */
async function configure(tenant: TestTenant, patch: unknown): Promise<{ status: number; body: unknown }> {
  const url = `${system.publicUrl}/api/tenants/${tenant.id}/configuration`;
  const authorization = `Bearer ${tenant.apiKey}`;
  const etag = (await fetch(url, { headers: { authorization } })).headers.get("etag") ?? "";
  const headers = { authorization, "content-type": "application/merge-patch+json", "if-match": etag };
  const answer = await fetch(url, { method: "PATCH", headers, body: JSON.stringify(patch) });
  return { status: answer.status, body: await answer.json() };
}

/** Makes the tenant's object count all included units but `left` as used. */
async function useUp(tenantId: string, left: number): Promise<void> {
  const units = (planOf("pro").includedUnits ?? 0) - left;
  const used = { callId: randomUUID(), tool: "search_products", units, atMs: Date.now() };
  await toQueue("queue", fallbackUsage(TenantId.parse(tenantId), used));
  const counted = `SELECT FROM fallback_calls WHERE tenant_id = $1 AND counted_at IS NOT NULL`;
  await until(async () => (await controlRows(counted, [tenantId])).length === 1, "the object counts the usage");
}

/** A paying tenant that has used all included units but `left`, without an hour's limit. */
async function aSpender(left: number): Promise<TestTenant> {
  const tenant = await aSubscriber({ plan: "pro" });
  await operator("PATCH", `/tenants/${tenant.id}`, { limits: { unitsPerHour: "none", callsPerMinute: "none" } });
  await useUp(tenant.id, left);
  return tenant;
}

/** A tenant at a spend cap of nothing, with its owner's browser and a key. */
async function atItsCap(): Promise<{ id: string; browser: Browser; apiKey: string }> {
  const limits = { spendCapCents: 0, unitsPerHour: null };
  const { id, browser } = await anOwnedTenant({ plan: "pro", limits });
  const key = await operator("POST", `/tenants/${id}/keys`, { scopes: ["tools:read", "tools:write"] });
  const { apiKey } = (await key.json()) as { apiKey: string };
  await useUp(id, 0);
  return { id, browser, apiKey };
}

/** Calls until one is refused. Returns how many were served, and the refusal. */
async function untilRefused(tenant: TestTenant): Promise<{ served: number; refused: ToolAnswer }> {
  for (let served = 0; ; served += 1) {
    const answer = await search(tenant);
    if (answer.refusal !== undefined) return { served, refused: answer };
    if (served > 100) throw new Error("no call was refused");
  }
}

test("calls stop at the spend cap, the next call after a raise is served, and the invoice equals the cap to the unit", async () => {
  const tenant = await aSpender(2);
  expect(await configure(tenant, { spend: { capCents: 1 } })).toMatchObject({ status: 200, body: { delivered: true } });
  // Two included units and ten of a tenth of a cent. Many at once do not exceed it.
  const burst = await Promise.all(Array.from({ length: 10 }, () => search(tenant)));
  expect(burst.filter(({ refusal }) => refusal === undefined)).toHaveLength(10);
  expect((await callTool(tenant.apiKey, "generate_report")).refusal?.code).toBe("spend_cap_reached");
  // Eight of a tenth of a cent are used, and the tool tells the same.
  const { data } = await callTool(tenant.apiKey, "get_usage");
  expect(data).toMatchObject({ spend: { capCents: 1, spentCents: "0.8", leftCents: "0.2", leftUnits: 2 } });
  const { periodEndMs } = await rowOf(tenant.id);
  const untilPeriodEnd = (): number => Math.ceil((periodEndMs - Date.now()) / 1_000);
  const atMost = untilPeriodEnd();
  const { served, refused } = await untilRefused(tenant);
  expect(served).toBe(2);
  expect(refused.refusal).toMatchObject({
    code: "spend_cap_reached",
    limit: 50_010,
    used: 50_010,
    cost: 1,
    capCents: 1,
  });
  // The seconds are counted at the refusal, and a second may begin before the test reads its clock.
  expect(refused.refusal?.retryAfterSeconds).toBeLessThanOrEqual(atMost);
  expect(refused.refusal?.retryAfterSeconds).toBeGreaterThanOrEqual(untilPeriodEnd());
  for (const fact of ["0.01 USD", "0.001 USD", "An owner", new Date(periodEndMs).toISOString().slice(0, 10)])
    expect(refused.text).toContain(fact);

  // The object forgets what it had in memory, and a fallback call still counts.
  await endObject(tenant.id);
  expect((await search(tenant)).refusal?.code).toBe("spend_cap_reached");
  expect(await configure(tenant, { spend: { capCents: 2 } })).toMatchObject({ status: 200 });
  expect((await untilRefused(tenant)).served).toBe(10);
  await operator("PATCH", `/tenants/${tenant.id}`, { limits: { maxSpendCapCents: 3 } });
  expect(await configure(tenant, { spend: { capCents: 4 } })).toMatchObject({
    status: 409,
    body: { code: "conflict" },
  });
  expect(await configure(tenant, { spend: { capCents: 3 } })).toMatchObject({ status: 200 });
  expect((await untilRefused(tenant)).served).toBe(10);
  // A lower cap refuses at once, and takes nothing back.
  expect(await configure(tenant, { spend: { capCents: 0 } })).toMatchObject({ status: 200 });
  expect((await untilRefused(tenant)).served).toBe(0);

  const ledger = `SELECT coalesce(sum(units), 0)::int AS units FROM ledger WHERE tenant_id = $1`;
  const inLedger = async (): Promise<unknown> => (await controlRows(ledger, [tenant.id]))[0]?.["units"];
  await until(async () => (await inLedger()) === 50_030, "the ledger has every call");
  await fireCron("*/5 * * * *", Date.now() + 61_000);
  const laterMs = (Math.floor(Date.now() / DAY_MS) + 5) * DAY_MS + 3 * HOUR_MS;
  await simulator("/clock", { offsetMs: laterMs - Date.now() });
  const closed = `SELECT FROM billing_periods WHERE tenant_id = $1 AND invoice_id LIKE 'in_%'`;
  await until(async () => (await controlRows(closed, [tenant.id])).length >= 1, "the period's invoice is final");
  expect((await unitsBilled(tenant.id)) - 50_000).toBe(30);
  await simulator("/clock", { offsetMs: 0 });
}, 60_000);

// ---- while an agent waits

const call = { name: "search_products", arguments: { query: "" } };

interface Asked {
  url: string;
  message: string;
}

/**
 * An agent of the newest revision whose person answers each offer. The SDK asks them, and sends the same call again with the answer.
 */
async function aModernAgent(
  token: string,
  answer: (asked: Asked, round: number) => Promise<"accept" | "decline" | "cancel">,
): Promise<{ agent: ModernClient; asked: Asked[] }> {
  const asked: Asked[] = [];
  const agent = new ModernClient(
    { name: "flow-test", version: "1" },
    { capabilities: { elicitation: { url: {} } }, versionNegotiation: { mode: "auto" } },
  );
  agent.setRequestHandler("elicitation/create", async ({ params }) => {
    if (params.mode !== "url") throw new Error("a form was asked for");
    asked.push({ url: params.url, message: params.message });
    return { action: await answer({ url: params.url, message: params.message }, asked.length) };
  });
  const requestInit = { headers: { authorization: `Bearer ${token}` } };
  await agent.connect(new ModernTransport(new URL(`${system.publicUrl}/mcp`), { requestInit }));
  return { agent, asked };
}

/** Submits the form of a page with the person's session. Returns the text of the page that follows. */
async function submit(browser: Browser, url: string, fields: Record<string, string>): Promise<string> {
  const cookies = [...browser.cookies(system.publicUrl)].map((pair) => pair.join("=")).join("; ");
  const headers = { cookie: cookies, origin: system.publicUrl, "content-type": "application/x-www-form-urlencoded" };
  const body = new URLSearchParams(fields).toString();
  const answer = await fetch(url, { method: "POST", headers, body, redirect: "manual" });
  expect(answer.status, await answer.clone().text()).toBe(303);
  const message = answer.headers.get("set-cookie")?.split(";")[0] ?? "";
  const shown = await fetch(new URL(answer.headers.get("location") ?? "", url), {
    headers: { cookie: `${cookies}; ${message}` },
  });
  return shown.text();
}

const chargesOf = (tenantId: string): Promise<{ units: number }[]> =>
  controlRows<{ units: number }>(`SELECT units FROM ledger WHERE tenant_id = $1`, [tenantId]);

test("a call that meets the spend cap waits for the owner, who raises it on the page of the link, and completes, charged once", async () => {
  const { id, browser, apiKey } = await atItsCap();

  // A client that cannot show a page reads the link. It opens nothing without the session of one who may pay.
  const plain = await search({ id, apiKey });
  const page = `${system.publicUrl}/app/${id}/limit`;
  expect(plain.refusal).toMatchObject({ upgradeUrl: page, capCents: 0 });
  expect((await fetch(page, { redirect: "manual" })).headers.get("location")).toContain("/sign-in");
  const member = await anOwnerOf(id, "member");
  expect((await member.page(page)).html).toContain("Only an owner");
  const stranger = (await anOwnedTenant()).browser;
  expect((await stranger.page(page)).status).toBe(404);

  // The person opens the page and raises the cap while the call waits. Another agent of the account waits, too.
  const agents = await Promise.all(
    [1, 2].map(() =>
      aModernAgent(apiKey, ({ url }, round) => {
        expect(url).toBe(page);
        if (round === 1) setTimeout(() => void submit(browser, page, { cap: "0.01", from: "0" }), 1_500);
        return Promise.resolve("accept");
      }),
    ),
  );
  const results = await Promise.all(agents.map(({ agent }) => agent.callTool(call)));
  for (const { isError, _meta } of results) {
    expect(isError).toBeFalsy();
    expect(_meta?.["tollgate/receipt"]).toMatchObject({ units: 1 });
  }
  expect(agents.map(({ asked }) => asked.length)).toEqual([1, 1]);
  // Both raised the same cap: the second form found that it was raised.
  expect((await browser.page(page)).html).toContain("The cap is $0.01");
  await until(async () => (await chargesOf(id)).length === 3, "each call is charged once");

  // Declined: the refusal with the link, and no second question.
  for (let n = 0; n < 8; n += 1) expect((await search({ id, apiKey })).refusal).toBeUndefined();
  const declining = await aModernAgent(apiKey, () => Promise.resolve("decline"));
  const declined = await declining.agent.callTool(call);
  expect(declined).toMatchObject({ isError: true, _meta: { "tollgate/refusal": { code: "spend_cap_reached" } } });
  expect(declining.asked).toHaveLength(1);
  for (const { agent } of [...agents, declining]) await agent.close();
}, 60_000);

test("an answer that comes twice is one call, and an agent that has gone is not charged when its owner pays", async () => {
  const { id, browser, apiKey } = await atItsCap();
  const page = `${system.publicUrl}/app/${id}/limit`;

  const send = async (params: Record<string, unknown>, path = "/mcp") => {
    const _meta = { ...modernMeta, "io.modelcontextprotocol/clientCapabilities": { elicitation: { url: {} } } };
    const body = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { ...call, ...params, _meta } };
    const headers = {
      ...{ authorization: `Bearer ${apiKey}`, "content-type": "application/json", accept: "application/json" },
      ...{ "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": call.name },
    };
    const answer = await fetch(system.publicUrl + path, { method: "POST", headers, body: JSON.stringify(body) });
    const text = await answer.text();
    return JSON.parse(text === "" ? "{}" : text) as { result: Record<string, unknown> };
  };
  const { result: offer } = await send({});
  expect(offer).toMatchObject({
    resultType: "input_required",
    inputRequests: { raise_limit: { params: { url: page } } },
  });
  const answer = { inputResponses: { raise_limit: { action: "accept" } }, requestState: offer["requestState"] };

  // The agent goes while it waits. Nothing is left of its call when the owner pays.
  const requestState = (await send({})).result["requestState"];
  await send({ ...answer, requestState }, "/test/leave?afterMs=500").catch(() => undefined);
  const twice = [send(answer), send(answer)];
  await new Promise((resolve) => setTimeout(resolve, 500));
  expect(await submit(browser, page, { cap: "0.02", from: "0" })).toContain("The spend cap is $0.02");
  const [first, second] = (await Promise.all(twice)).map(({ result }) => result);
  expect(first).toMatchObject({ resultType: "complete", _meta: { "tollgate/receipt": { units: 1 } } });
  expect(second?.["_meta"]).toEqual(first?.["_meta"]);
  expect((await send(answer)).result["_meta"]).toEqual(first?.["_meta"]);
  await until(async () => (await chargesOf(id)).length === 2, "the calls are in the ledger");
  // A form from before: the cap was raised by another request.
  expect(await submit(browser, page, { cap: "5", from: "0" })).toContain("changed meanwhile");
}, 60_000);

test("a call that meets its month leads to a larger plan, after which an agent of the older revision sends it again", async () => {
  const tenant = await aSubscriber({ plan: "free" });
  await operator("PATCH", `/tenants/${tenant.id}`, { limits: { unitsPerMonth: 1 } });
  const browser = await anOwnerOf(tenant.id);
  expect((await search(tenant)).refusal).toBeUndefined();

  const agent = new Client({ name: "flow-test", version: "1" }, { capabilities: { elicitation: { url: {} } } });
  const requestInit = { headers: { authorization: `Bearer ${tenant.apiKey}` } };
  await agent.connect(new StreamableHTTPClientTransport(new URL(`${system.publicUrl}/mcp`), { requestInit }));
  const page = `${system.publicUrl}/app/${tenant.id}/limit`;
  await expect(agent.callTool(call)).rejects.toMatchObject({
    code: -32042,
    data: { elicitations: [{ mode: "url", url: page, elicitationId: expect.any(String) }] },
  });
  const shown = (await browser.page(page)).html;
  expect(shown).toContain("Change to Starter for $19 a month");
  expect(await submit(browser, page, { plan: "starter", from: "free" })).toContain("The plan is Starter");
  expect(await submit(browser, page, { plan: "starter", from: "free" })).toContain("is Starter already");
  expect((await agent.callTool(call)).isError).toBeFalsy();
  await agent.close();

  // Without the capability the refusal is the answer, with the link.
  await operator("PATCH", `/tenants/${tenant.id}`, { limits: { unitsPerMonth: 1 } });
  const refused = await search(tenant);
  expect(refused.refusal).toMatchObject({ code: "period_exhausted", upgradeUrl: page });
}, 60_000);
