// Members in a browser and with a client that they let in: a proved address accepts an invitation at the sign-in, and a change of
// the role or a removal is in force on the next request.
import { UnauthorizedError } from "@modelcontextprotocol/sdk/client/auth.js";
import { expect, test } from "vitest";
import { callTool } from "../support/flow.ts";
import { textOf } from "../support/html.ts";
import { Browser, aPerson, signedInClient } from "../support/sign-in.ts";
import { anOwnedTenant, ask, emailOf } from "../support/signed-in.ts";

test("a member's lower role and removal are in force on the browser's and the client's next request", async () => {
  const { id, browser } = await anOwnedTenant();
  const path = `/api/tenants/${id}`;
  const sub = await aPerson([]);
  await ask(browser, "POST", `${path}/invitations`, { email: emailOf(sub), role: "admin" });
  const theirs = new Browser();
  const { memory, client } = await signedInClient({ sub }, id, theirs);
  await using connected = client;
  expect((await connected.callTool({ name: "get_usage", arguments: {} })).isError).toBeFalsy();
  expect((await ask(theirs, "GET", `${path}/usage`)).status).toBe(200);
  const listed = (await (await ask(browser, "GET", `${path}/members`)).json()) as {
    members: { id: string; email: string }[];
  };
  const memberId = listed.members.find(({ email }) => email === emailOf(sub))?.id ?? "";

  // A lower role is in force on the next call, too.
  const access = memory.tokensNow?.access_token ?? "";
  expect((await ask(browser, "PATCH", `${path}/members/${memberId}`, { role: "billing" })).status).toBe(200);
  expect((await callTool(access, "get_usage")).refusal?.code).toBe("role_missing");
  expect((await ask(theirs, "GET", `${path}/members`)).status).toBe(403);
  expect((await ask(browser, "PATCH", `${path}/members/${memberId}`, { role: "member" })).status).toBe(200);
  expect((await callTool(access, "get_usage")).isError).toBeFalsy();

  const removed = await ask(browser, "DELETE", `${path}/members/${memberId}`);
  expect(await removed.json()).toEqual({ removed: true, delivered: true });
  await expect(callTool(access, "get_usage")).rejects.toThrow("Your membership of this account has ended.");
  // The client signs in again by itself, and the person reads why it does not work any more.
  memory.opened = undefined;
  await expect(connected.callTool({ name: "get_usage", arguments: {} })).rejects.toThrow(UnauthorizedError);
  const again = await theirs.page((memory.opened as URL | undefined)?.href ?? "no sign-in");
  expect([again.status, textOf(again.html)]).toEqual([
    403,
    expect.stringContaining("is no longer a member of A tenant. Ask an administrator there for an invitation"),
  ]);
  const refused = await ask(theirs, "GET", `${path}/usage`);
  expect(refused.status).toBe(404);
  expect((await ask(theirs, "POST", `${path}/plan`, {}, "https://evil.example")).status).toBe(403);
});
