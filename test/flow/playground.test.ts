// The playground: a member calls a tool on a page with the own session. The call is charged once, audited, and refused like any other.
import { expect, test } from "vitest";
import { callTool, operator, system, until } from "../support/flow.ts";
import type { Browser } from "../support/sign-in.ts";
import { anOwnerOf, anOwnedTenant, ask } from "../support/signed-in.ts";

const pathOf = (id: string): string => `${system.publicUrl}/app/${id}/playground`;

/** Sends the form of the page as the person's browser does. */
async function send(
  browser: Browser,
  id: string,
  fields: Record<string, string>,
  origin = system.publicUrl,
): Promise<{ status: number; html: string }> {
  const cookie = [...browser.cookies(system.publicUrl)].map((pair) => pair.join("=")).join("; ");
  const headers = { cookie, origin, accept: "text/html", "content-type": "application/x-www-form-urlencoded" };
  const body = new URLSearchParams({ as: "fields", key: crypto.randomUUID(), ...fields }).toString();
  const answer = await fetch(pathOf(id), { method: "POST", headers, body, redirect: "manual" });
  return { status: answer.status, html: await answer.text() };
}

const receiptIn = (html: string): string | undefined => /\/calls\/(?<id>[0-9a-f-]{36})"/.exec(html)?.groups?.["id"];

async function keyOf(id: string): Promise<string> {
  const made = await operator("POST", `/tenants/${id}/keys`, { name: "test" });
  return ((await made.json()) as { apiKey: string }).apiKey;
}

const usedBy = async (apiKey: string): Promise<unknown> =>
  ((await callTool(apiKey, "get_usage")).data?.["hour"] as { used: number } | undefined)?.used;

test("a member sees the price, calls a tool, and sees result and receipt; the same form sent twice is one call, which is audited", async () => {
  const { id, browser } = await anOwnedTenant();
  const apiKey = await keyOf(id);
  const page = await browser.page(`${pathOf(id)}?tool=search_products`);
  expect(page.status).toBe(200);
  expect(page.html).toContain("This call costs 1 unit, which your account is charged");
  expect(page.html).toContain('name="arg.query"');
  expect(await usedBy(apiKey)).toBe(0);

  const form = { tool: "search_products", key: crypto.randomUUID(), "arg.query": "lamp", "arg.limit": "2" };
  const first = await send(browser, id, form);
  expect(first.status, first.html).toBe(200);
  expect(first.html).toContain("Charged: 1 unit.");
  const receipt = receiptIn(first.html);
  expect(receipt).toBeDefined();
  expect(receiptIn((await send(browser, id, form)).html)).toBe(receipt);
  expect(await usedBy(apiKey)).toBe(1);

  const json = await send(browser, id, { tool: "search_products", as: "json", json: '{"query": "", "limit": 1}' });
  expect(json.html).toContain("Charged: 1 unit.");
  expect(await usedBy(apiKey)).toBe(2);

  const log = async (): Promise<unknown> =>
    (await ask(browser, "GET", `/api/tenants/${id}/audit?action=callTool`)).json();
  await until(
    async () => ((await log()) as { events: unknown[] }).events.length === 3,
    "the audit log has each request",
  );
  expect(await log()).toMatchObject({ events: [{ target: "search_products", outcome: "succeeded" }, {}, {}] });
});

test("wrong arguments, a limit, a tool of another plan and another site's form are refused, and nothing is charged", async () => {
  const { id, browser } = await anOwnedTenant({ limits: { unitsPerHour: 3 } });
  const apiKey = await keyOf(id);
  const wrong = await send(browser, id, { tool: "search_products", "arg.query": "x", "arg.limit": "many" });
  expect([wrong.status, wrong.html]).toEqual([400, expect.stringContaining('value="many"')]);
  const limited = await send(browser, id, { tool: "generate_report" });
  expect(limited.html).toContain("cost_over_limit");
  expect((await send(browser, id, { tool: "of_two_plans" })).status).toBe(400);
  expect((await send(browser, id, { tool: "search_products", key: "1", "arg.query": "" })).status).toBe(400);
  expect((await send(browser, id, { tool: "search_products", "arg.query": "" }, "https://evil.example")).status).toBe(
    403,
  );
  expect((await browser.page(`${pathOf(id)}?tool=of_two_plans`)).html).not.toContain("of_two_plans");
  expect(await usedBy(apiKey)).toBe(0);
});

test("only a member with the right calls tools, only of the own account", async () => {
  const { id, browser } = await anOwnedTenant();
  const call = { tool: "search_products", "arg.query": "" };
  expect((await send(await anOwnerOf(id, "member"), id, call)).html).toContain("Charged: 1 unit.");
  expect((await send(await anOwnerOf(id, "billing"), id, call)).status).toBe(403);
  const stranger = (await anOwnedTenant()).browser;
  expect((await send(stranger, id, call)).status).toBe(404);
  await operator("POST", `/tenants/${id}/suspend`, {});
  expect((await send(browser, id, call)).html).toContain("tenant_suspended");
});
