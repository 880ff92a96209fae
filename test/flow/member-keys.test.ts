// API keys of a tenant's people: a key has no right that its maker lacks, and ends with its maker.
import { expect, test } from "vitest";
import { callTool } from "../support/flow.ts";
import { aMember, anOwnedTenant, send } from "../support/people.ts";

test("a member makes keys with the member's own rights, and they end with the member on the very next call", async () => {
  const tenant = await anOwnedTenant();
  const developer = await aMember(tenant, "developer");
  const keysUrl = `/api/tenants/${tenant.id}/keys`;
  const made = async (token: string, body: unknown = { name: "agent" }): Promise<Response> =>
    send("POST", keysUrl, token, body);
  const key = (await (await made(developer.token)).json()) as { id: string; apiKey: string };
  expect((await callTool(key.apiKey, "get_usage")).isError).toBeFalsy();
  const codeOf = async (response: Response): Promise<unknown> => ((await response.json()) as { code?: unknown }).code;
  // A developer does not manage the account, so a developer's key does not, either. An owner's may.
  const admin = { name: "script", scopes: ["tenant:admin"] };
  expect(await codeOf(await made(developer.token, admin))).toBe("role_missing");
  const ownersKey = (await (await made(tenant.ownerToken, admin)).json()) as { id: string; apiKey: string };
  expect((await send("GET", `/api/tenants/${tenant.id}/usage`, ownersKey.apiKey)).status).toBe(200);
  for (const [method, path] of [
    ["PATCH", ""],
    ["POST", "/rotate"],
  ] as const)
    expect(await codeOf(await send(method, `${keysUrl}/${ownersKey.id}${path}`, developer.token, {}))).toBe(
      "role_missing",
    );
  // A key makes no key, and a member without the right makes none.
  expect(await codeOf(await made(ownersKey.apiKey))).toBe("scope_missing");
  const plain = await aMember(tenant, "member");
  expect(await codeOf(await made(plain.token))).toBe("role_missing");
  const listed = (await (await send("GET", keysUrl, developer.token)).json()) as {
    keys: { id: string; createdBy: unknown; lastUsedAt: string | null }[];
  };
  expect(listed.keys.find(({ id }) => id === key.id)).toMatchObject({
    createdBy: { kind: "member", id: developer.memberId },
    lastUsedAt: expect.any(String),
  });

  const member = `/api/tenants/${tenant.id}/members/${developer.memberId}`;
  expect((await send("PATCH", member, tenant.ownerToken, { role: "billing" })).status).toBe(200);
  expect((await callTool(key.apiKey, "get_usage")).refusal?.code).toBe("role_missing");
  expect((await send("PATCH", member, tenant.ownerToken, { role: "member" })).status).toBe(200);
  expect((await callTool(key.apiKey, "get_usage")).isError).toBeFalsy();
  expect((await send("DELETE", member, tenant.ownerToken)).status).toBe(200);
  await expect(callTool(key.apiKey, "get_usage")).rejects.toThrow("HTTP 401");
});
