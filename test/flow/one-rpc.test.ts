// What a request costs in calls of Durable Objects: one for each message, by whichever credential, also for the first call after a
// sign-in and for the first one of a new token.
import { expect, test } from "vitest";
import { aJwt, aTenant, modernMeta, system } from "../support/flow.ts";
import { Browser, aPerson, anAuthorization, redeem, token } from "../support/sign-in.ts";

/** The calls of objects that one message takes. */
async function callsOf(credential: string, method: string, params: Record<string, unknown> = {}): Promise<string> {
  const response = await fetch(`${system.publicUrl}/test/counted?path=/mcp`, {
    method: "POST",
    headers: {
      ...{ "content-type": "application/json", accept: "application/json, text/event-stream" },
      ...{ "mcp-protocol-version": "2026-07-28", "mcp-method": method, authorization: `Bearer ${credential}` },
      ...(typeof params["name"] === "string" && { "mcp-name": params["name"] }),
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params: { ...params, _meta: modernMeta } }),
  });
  const text = await response.text();
  expect({ status: response.status, isError: text.includes('"isError":true') }, text).toEqual({
    ...{ status: 200, isError: false },
  });
  return response.headers.get("x-object-calls") ?? "";
}

test("a message costs one call of the tenant's object, and no other object, by key, by JWT and by a client's token", async () => {
  const tenant = await aTenant();
  const asked = await anAuthorization();
  const sub = await aPerson([tenant.id]);
  const first = await redeem(asked, await new Browser().letIn(asked.url, { sub }));
  const refreshed = await token({
    ...{ grant_type: "refresh_token", refresh_token: first.refresh_token, client_id: asked.clientId },
  });
  const second = (await refreshed.json()) as typeof first;
  const credentials = [
    tenant.apiKey,
    await aJwt({ tenant_id: tenant.id, scopes: ["tools:read"] }),
    // The first use of each, before any memory of it.
    ...[first.access_token, second.access_token],
    first.access_token,
  ];
  for (const credential of credentials) {
    expect(await callsOf(credential, "tools/call", { name: "get_usage", arguments: {} })).toBe("TENANT.call");
    expect(await callsOf(credential, "tools/list")).toBe("TENANT.authorize");
  }
});
