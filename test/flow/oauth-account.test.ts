// OAuth clients and the account: a client gets the scopes that the person ticks, does what both they and the member's role of now
// permit, never touches a credential, and its acts are in the audit log with its name.
import { expect, test } from "vitest";
import { aTenant, system, until } from "../support/flow.ts";
import { textOf } from "../support/html.ts";
import { formsOf } from "../support/plain-browser.ts";
import { Browser, aPerson, anAuthorization, redeem } from "../support/sign-in.ts";
import { anOwnedTenant, ask, emailOf } from "../support/signed-in.ts";

const bothScopes = "tools:read account:read account:manage";

/** Lets a client in that asks for every scope; the person ticks these. */
async function letIn(browser: Browser, ticked: readonly string[]) {
  const asked = await anAuthorization();
  const url = new URL(asked.url);
  url.searchParams.set("scope", bothScopes);
  const consent = await browser.page(url.href);
  const chosen = Object.fromEntries(ticked.map((scope) => [scope, "allow"]));
  const back = await browser.submit(consent, { decision: "allow", ...chosen });
  if (!(back instanceof URL)) throw new Error(textOf(back.html));
  return { ...(await redeem(asked, back)), clientId: asked.clientId, consent };
}

interface Answer {
  status: number;
  code: unknown;
  detail: unknown;
  etag: string | null;
}
async function send(token: string, method: string, path: string, body?: unknown): Promise<Answer> {
  const response = await fetch(`${system.publicUrl}${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, "if-match": "*", "content-type": "application/json" },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const { code, detail } = (await response.json().catch(() => ({}))) as { code?: unknown; detail?: unknown };
  return { status: response.status, code, detail, etag: response.headers.get("etag") };
}

test("a client gets the scopes of the account that the person ticks, and none that is not ticked", async () => {
  const { id, browser } = await anOwnedTenant();
  const path = `/api/tenants/${id}`;
  const none = await letIn(browser, []);
  expect(formsOf(none.consent.html)[0]?.choices.map(([name]) => name)).toEqual(
    expect.arrayContaining(["account:read", "account:manage"]),
  );
  expect(none.consent.html).not.toContain("checked");
  expect(none.scope.split(" ")).not.toEqual(expect.arrayContaining([expect.stringContaining("account:")]));
  expect(await send(none.access_token, "GET", `${path}/usage`)).toMatchObject({ status: 403, code: "scope_missing" });

  const reads = await letIn(browser, ["account:read"]);
  expect(reads.scope.split(" ")).toContain("account:read");
  expect(reads.scope.split(" ")).not.toContain("account:manage");
  for (const read of ["", "/usage", "/members", "/configuration", "/audit", "/grants"])
    expect((await send(reads.access_token, "GET", path + read)).status, read).toBe(200);
  const patch = { branding: { productName: "Changed" } };
  expect(await send(reads.access_token, "PATCH", `${path}/configuration`, patch)).toMatchObject({
    ...{ status: 403, code: "scope_missing", detail: expect.stringContaining("account:manage") },
  });

  const manages = await letIn(browser, ["account:read", "account:manage"]);
  expect((await send(manages.access_token, "PATCH", `${path}/configuration`, patch)).status).toBe(200);
  const listed = (await (await ask(browser, "GET", `${path}/grants`)).json()) as {
    grants: { id: string; clientId: string }[];
  };
  const grant = listed.grants.find(({ clientId }) => clientId === manages.clientId);
  // No credential, no membership, no copy of the data and not the end of the account, although an owner may do all of it.
  for (const [method, target, body] of [
    ["POST", "/keys", { name: "x" }],
    ["GET", "/keys", undefined],
    ["POST", "/invitations", { email: "x@example.com", role: "member" }],
    ["DELETE", `/grants/${grant?.id}`, undefined],
    ["GET", "/export", undefined],
    ["POST", "/remove", { confirm: id }],
  ] as const)
    expect(await send(manages.access_token, method, path + target, body), target).toMatchObject({
      ...{ status: 403, code: "scope_missing" },
    });

  // The audit log names the client on whose behalf the member's configuration was changed.
  const changes = async () => {
    const { events } = (await (await ask(browser, "GET", `${path}/audit`)).json()) as {
      events: { action: string; outcome: string; actor: { kind: string }; detail: Record<string, unknown> }[];
    };
    return events.filter(({ action, outcome }) => /configuration/i.test(action) && outcome === "succeeded");
  };
  await until(async () => (await changes()).length > 0, "the change is in the audit log");
  expect((await changes())[0]).toMatchObject({
    actor: { kind: "member" },
    detail: { through: "grant", client: manages.clientId, grant: grant?.id },
  });
});

test("a client's rights follow the member's role, and end with the grant and the membership", async () => {
  const { id, browser } = await anOwnedTenant();
  const path = `/api/tenants/${id}`;
  const sub = await aPerson([]);
  await ask(browser, "POST", `${path}/invitations`, { email: emailOf(sub), role: "admin" });
  const theirs = new Browser();
  await theirs.signIn(`${system.publicUrl}/sign-in`, { sub });
  const { access_token: access, clientId } = await letIn(theirs, ["account:read", "account:manage"]);
  const patch = (name: string) => send(access, "PATCH", `${path}/configuration`, { branding: { productName: name } });
  expect((await patch("One")).status).toBe(200);
  const { members } = (await (await ask(browser, "GET", `${path}/members`)).json()) as {
    members: { id: string; email: string }[];
  };
  const memberId = members.find(({ email }) => email === emailOf(sub))?.id ?? "";
  const setRole = async (role: string) =>
    expect((await ask(browser, "PATCH", `${path}/members/${memberId}`, { role })).status).toBe(200);
  await setRole("member");
  expect(await patch("Two")).toMatchObject({ status: 403, code: "role_missing" });
  expect((await send(access, "GET", `${path}/usage`)).status).toBe(200);
  // A person without tools can let a client in for the account alone, and must allow something.
  await setRole("billing");
  expect((await send(access, "GET", `${path}/usage`)).status).toBe(200);
  await expect(letIn(theirs, [])).rejects.toThrow("ticked nothing");
  expect((await letIn(theirs, ["account:read"])).scope).toBe("account:read");
  // Another tenant is not there for the client.
  const other = await aTenant();
  expect(await send(access, "GET", `/api/tenants/${other.id}/usage`)).toMatchObject({ status: 404, code: "not_found" });

  await setRole("admin");
  const { grants } = (await (await ask(browser, "GET", `${path}/grants`)).json()) as {
    grants: { id: string; clientId: string; lastUsedAt: string | null }[];
  };
  const grant = grants.find((each) => each.clientId === clientId);
  expect(grant?.lastUsedAt).not.toBeNull();
  expect((await ask(browser, "DELETE", `${path}/grants/${grant?.id}`)).status).toBe(200);
  expect(await patch("Three")).toMatchObject({ status: 401, code: "token_invalid" });
  const next = await letIn(theirs, ["account:read"]);
  expect((await send(next.access_token, "GET", `${path}/usage`)).status).toBe(200);
  expect((await ask(browser, "DELETE", `${path}/members/${memberId}`)).status).toBe(200);
  expect(await send(next.access_token, "GET", `${path}/usage`)).toMatchObject({ status: 401, code: "member_removed" });
});
