// The demonstration: signs up one customer for each plan and makes a few calls as their agents. A customer takes the real path
// (Checkout, payment, webhook, Workflow, canary); the operator creates customers of plans by contract. Customers of an
// earlier run stay.
import { renameSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import * as z from "zod";
import { config } from "../src/core/app-config.ts";
import { tenantRoles } from "../src/core/actor.ts";
import { planNames, planOf } from "../src/core/plans/plans.ts";
import { type DemoTenant, saveSettings } from "../cli/settings.ts";
import type { Person } from "./issuer/people.ts";
import type { System } from "./system.ts";

const names = ["Willow Books", "Harbour Tools", "Northwind Trading", "Meridian Group"];
const customers = planNames.map((plan, index) => ({ plan, name: names[index] ?? `Customer ${index + 1}` }));

/** A sign-up takes about a second, and a few seconds on a busy machine. A minute means that it is stuck. */
const SIGN_UP_WITHIN_MS = 60_000;

const Checkout = z.object({ tenantId: z.string(), checkoutUrl: z.url(), statusUrl: z.url(), setupToken: z.string() });
const Status = z.object({ state: z.string(), error: z.string().nullish() });
const Key = z.object({ apiKey: z.string() });
const Made = z.object({ id: z.string(), statusUrl: z.url() });

export type SignedUp = z.infer<typeof Checkout> & { paidAt: number; activeAt: number };

/** Signs one customer up as a browser would: order, pay on the simulator's page, poll the status until it is active. */
export async function signUp(
  publicUrl: string,
  customer: { plan: string; name: string; email?: string },
): Promise<SignedUp> {
  const order = Checkout.parse(await postJson(`${publicUrl}/api/checkout`, customer));
  const paid = await fetch(order.checkoutUrl, { method: "POST", redirect: "manual" });
  await paid.arrayBuffer();
  if (paid.status !== 303) throw new Error(`The pay page answered ${paid.status}`);
  const paidAt = performance.now();
  await untilActive(order.statusUrl, customer.name);
  return { ...order, paidAt, activeAt: performance.now() };
}

async function untilActive(statusUrl: string, name: string): Promise<void> {
  const deadline = Date.now() + SIGN_UP_WITHIN_MS;
  for (;;) {
    const status = Status.parse(await (await fetch(statusUrl)).json());
    if (status.state === "active") return;
    if (Date.now() > deadline)
      throw new Error(`${name} is still ${status.state}: ${status.error ?? "no error was recorded"}`);
    await sleep(10);
  }
}

/** Creates a customer by contract through the operator's API, and its first key. */
async function takeOn(
  { publicUrl, settings }: System,
  customer: { plan: string; name: string },
): Promise<{ id: string; apiKey: string }> {
  const { operatorToken } = settings.secrets;
  const made = Made.parse(await postJson(`${publicUrl}/admin/api/tenants`, customer, operatorToken));
  await untilActive(made.statusUrl, customer.name);
  const key = await postJson(`${publicUrl}/admin/api/tenants/${made.id}/keys`, { name: "first" }, operatorToken);
  return { id: made.id, apiKey: Key.parse(key).apiKey };
}

/** The first API key of a customer that has just signed up. */
export async function firstKey(
  publicUrl: string,
  { tenantId, setupToken }: { tenantId: string; setupToken: string },
): Promise<string> {
  const key = await postJson(`${publicUrl}/api/tenants/${tenantId}/keys`, { name: "first" }, setupToken);
  return Key.parse(key).apiKey;
}

async function paysFor(
  publicUrl: string,
  customer: { plan: string; name: string },
): Promise<{ id: string; apiKey: string }> {
  const signedUp = await signUp(publicUrl, customer);
  return { id: signedUp.tenantId, apiKey: await firstKey(publicUrl, signedUp) };
}

/** Creates the customers that do not exist yet, and makes a few calls as each customer's agent. */
export async function runDemonstration(
  system: System,
  step: <T>(title: string, work: () => Promise<T>) => Promise<T>,
): Promise<DemoTenant[]> {
  if (system.stripe === undefined) return []; // the real Stripe accepts no simulated payments
  const { settings, publicUrl } = system;
  for (const { plan, name } of customers) {
    if (settings.demoTenants.some((tenant) => tenant.plan === plan)) continue;
    const { amountCents, strategy } = planOf(plan);
    await step(
      amountCents === null ? `${name} signs a contract for ${plan}` : `${name} signs up for ${plan}`,
      async () => {
        const { id, apiKey } =
          amountCents === null ? await takeOn(system, { plan, name }) : await paysFor(publicUrl, { plan, name });
        settings.demoTenants.push({ id, name, plan, strategy, apiKey });
        saveSettings(system.dir, settings);
      },
    );
  }
  await step("Their agents make a few calls", async () => {
    for (const tenant of settings.demoTenants) await callAFewTools(publicUrl, tenant.apiKey);
  });
  return settings.demoTenants;
}

/** Makes people members of their organisations with their role. They sign in by their address. Members of an earlier run stay. */
export async function addMembers({ publicUrl, settings }: System, people: readonly Person[]): Promise<void> {
  for (const { email, name, roles, organisations } of people) {
    const role = tenantRoles.find((each) => roles.includes(each));
    if (role === undefined) continue;
    for (const { id } of organisations) {
      const url = `${publicUrl}/admin/api/tenants/${id}/members`;
      const response = await fetch(url, {
        method: "POST",
        headers: { authorization: `Bearer ${settings.secrets.operatorToken}`, "content-type": "application/json" },
        body: JSON.stringify({ email, name, role }),
      });
      await response.body?.cancel();
      if (!response.ok && response.status !== 409) throw new Error(`${url} answered ${response.status}`);
    }
  }
}

/** Writes the file with which other programs find the system. The file appears complete or not at all. */
export async function writeDemoFile(path: string, system: System, tenants: readonly DemoTenant[]): Promise<void> {
  const { publicUrl, settings, issuer, stripe, mailbox, databases } = system;
  const { operatorToken, stripeSecretKey, stripeWebhookSecret } = settings.secrets;
  const demo = {
    baseUrl: publicUrl,
    mcpUrl: `${publicUrl}/mcp`,
    healthUrl: `${publicUrl}/health`,
    operator: { token: operatorToken },
    tenants: await Promise.all(
      tenants.map(async ({ id, name, plan, strategy, apiKey }) => ({
        id,
        name,
        plan,
        strategy,
        apiKey,
        jwt: await issuer?.sign({
          tenant_id: id,
          sub: "demo-user",
          scope: Object.keys(config.scopes).join(" "),
          exp: Math.floor(Date.now() / 1000) + 86_400,
        }),
        monitorToken: await monitorToken(publicUrl, operatorToken, id),
      })),
    ),
    issuer: issuer && {
      url: issuer.url,
      jwksUrl: issuer.jwksUrl,
      tokenUrl: issuer.tokenUrl,
      people: issuer.people.all(),
      providers: {
        auth0: issuer.issuers.auth0,
        cognito: issuer.issuers.cognito,
        entra: issuer.issuers.entra("{tenant id}"),
      },
    },
    stripe: stripe && { apiBase: stripe.url, secretKey: stripeSecretKey, webhookSecret: stripeWebhookSecret },
    mailbox: mailbox && { url: mailbox.url },
    postgres: databases && { controlUrl: databases.controlUrl, appUrl: databases.appUrl },
    pids: { group: process.pid },
  };
  writeFileSync(`${path}.new`, `${JSON.stringify(demo, null, 2)}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/** Writes an MCP client's configuration: the URL, and an API key as a header. Claude Code and many editors read this form. */
export function writeMcpFile(path: string, publicUrl: string, apiKey: string): void {
  const headers = { Authorization: `Bearer ${apiKey}` };
  const configuration = { mcpServers: { tollgate: { type: "http", url: `${publicUrl}/mcp`, headers } } };
  writeFileSync(path, `${JSON.stringify(configuration, null, 2)}\n`, { mode: 0o600 });
}

async function monitorToken(publicUrl: string, operatorToken: string, tenantId: string): Promise<string> {
  const response = await fetch(`${publicUrl}/admin/api/tenants/${tenantId}`, {
    headers: { authorization: `Bearer ${operatorToken}` },
  });
  return z.object({ monitorToken: z.string() }).parse(await response.json()).monitorToken;
}

/** Makes the demonstration's calls as an agent. A refusal is an answer. */
export async function callAFewTools(publicUrl: string, apiKey: string): Promise<void> {
  const client = new Client({ name: "tollgate-demo", version: "1" });
  const requestInit = { headers: { authorization: `Bearer ${apiKey}` } };
  await client.connect(new StreamableHTTPClientTransport(new URL(`${publicUrl}/mcp`), { requestInit }));
  try {
    for (const { tool, input } of config.demonstration ?? []) await client.callTool({ name: tool, arguments: input });
    await client.callTool({ name: "get_usage", arguments: {} });
  } finally {
    await client.close();
  }
}

/** Posts JSON and returns the JSON of the response. Throws with status and text if the response is not a success. */
export async function postJson(url: string, body: unknown, token?: string): Promise<unknown> {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${url} answered ${response.status}: ${(await response.text()).slice(0, 300)}`);
  return response.json();
}
