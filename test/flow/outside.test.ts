// Tools that ask other services, through the real Worker: the answer of a stand-in, what the call's line says, and the walls.
import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { aTenant, anAgent, callTool, system, until } from "../support/flow.ts";
import { anOwnerOf, ask } from "../support/signed-in.ts";

async function anAccount(key?: string) {
  const tenant = await aTenant();
  const browser = await anOwnerOf(tenant.id);
  const setKey = async (value: string): Promise<void> => {
    const set = await ask(browser, "PUT", `/api/tenants/${tenant.id}/secrets/shipping_api_key`, { value });
    expect(set.status).toBe(200);
  };
  if (key !== undefined) await setKey(key);
  const quote = (args: Record<string, unknown> = {}) => callTool(tenant.apiKey, "ask_outside", args);
  return { ...tenant, setKey, quote };
}

/** The line that the log has about a call of this tenant. */
async function lineOf(tenantId: string): Promise<Record<string, unknown>> {
  let found: string | undefined;
  await until(async () => {
    const lines = (await readFile(system.logFile, "utf8")).split("\n");
    found = lines.findLast((line) => line.includes('"event":"call"') && line.includes(tenantId));
    return found !== undefined;
  }, "the call is in the log");
  return JSON.parse(found?.slice(found.indexOf("{")) ?? "{}") as Record<string, unknown>;
}

test("a tool asks a service with the tenant's own key, and the call's line counts the request", async () => {
  const key = `ship_planted-tenant-secret-${crypto.randomUUID()}`;
  const { id, quote, setKey } = await anAccount(key);
  const answer = await quote();
  expect(answer).toMatchObject({
    data: { status: 200, body: '{"priceCents":850,"currency":"EUR","days":3}' },
    receipt: { units: 1 },
  });
  const line = await lineOf(id);
  expect(line).toMatchObject({ tool: "ask_outside", outcome: "ok", fetches: 1, fetchMs: expect.any(Number) });
  expect(JSON.stringify(line)).not.toContain(key);
  // A change is in force on the next call.
  await setKey("not-a-key-of-the-service");
  expect((await quote()).data).toMatchObject({ status: 401 });
});

test("a name with a private address, an unlisted host and a host without an address end the call free of charge", async () => {
  const { quote } = await anAccount("ship_some-key");
  const put = (name: string, addresses: string[]) =>
    fetch(`${system.issuerUrl}/dns/addresses/${name}`, {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(addresses),
    });
  for (const addresses of [["127.0.0.1"], ["169.254.169.254"], ["::ffff:10.0.0.1"], ["93.184.216.34", "fd00::1"]]) {
    await put("private.example", addresses);
    const refused = await quote({ url: `https://private.example/secret-path?key=abc` });
    expect(refused).toMatchObject({ isError: true, receipt: undefined });
    expect(refused.text).toMatch(
      /^fetch_refused: .*The call was not charged\. Request to private\.example: its address is not public\.$/,
    );
  }
  for (const url of [
    system.publicUrl,
    system.issuerUrl,
    "https://evil.example/",
    "https://127.0.0.1/",
    "https://[::1]/",
  ])
    expect((await quote({ url })).text, url).toMatch(/^fetch_refused: /);
  expect((await quote({ url: "https://nowhere.example/" })).text).toMatch(
    /^fetch_failed: .*Request to nowhere\.example: the DNS has no address of it\.$/,
  );
});

test("clients learn which tools reach beyond the tenant's own data", async () => {
  const { apiKey } = await aTenant();
  await using agent = await anAgent(apiKey);
  const { tools } = await agent.listTools();
  const open = tools.filter(({ annotations }) => annotations?.openWorldHint === true).map(({ name }) => name);
  expect(open).toEqual(["ask_outside"]);
});
