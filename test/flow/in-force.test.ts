// Changes that end or limit an access, while 50 callers use it: every call that begins after the answer to the change gets the new
// outcome, and the calls before it the old one.
import { beforeAll, expect, test } from "vitest";
import { modernMeta, postMcp, system, until } from "../support/flow.ts";
import { anOwnedTenant, ask, emailOf } from "../support/signed-in.ts";
import { Browser, aPerson, anAuthorization, redeem } from "../support/sign-in.ts";

const CALLERS = 50;
/** Calls of each caller after the change. */
const AFTER = 3;

let tenant: Awaited<ReturnType<typeof anOwnedTenant>>;
let path: string;
beforeAll(async () => {
  const limits = { callsPerMinute: null, unitsPerHour: null, unitsPerMonth: null, callsInFlight: 200 };
  tenant = await anOwnedTenant({ limits });
  path = `/api/tenants/${tenant.id}`;
});

/** A change by the tenant's owner. */
async function owner(method: string, target: string, body?: unknown): Promise<Record<string, unknown>> {
  const response = await ask(tenant.browser, method, path + target, body);
  const text = await response.text();
  expect(response.ok, `${method} ${target}: ${response.status} ${text}`).toBe(true);
  return JSON.parse(text) as Record<string, unknown>;
}

/** A signed-in member with a client that has this token. */
async function aMember(role = "developer") {
  const sub = await aPerson([]);
  await owner("POST", "/invitations", { email: emailOf(sub), role });
  const browser = new Browser();
  const asked = await anAuthorization();
  const consent = await browser.signIn(asked.url, { sub });
  const back = await browser.submit(consent, { decision: "allow", "account:read": "allow" });
  if (!(back instanceof URL)) throw new Error("the consent has failed");
  const { access_token: access } = await redeem(asked, back);
  const { members } = (await owner("GET", "/members")) as { members: { id: string; email: string }[] };
  const memberId = members.find(({ email }) => email === emailOf(sub))?.id ?? "";
  const { grants } = (await owner("GET", "/grants")) as { grants: { id: string; memberId: string }[] };
  const grantId = grants.find((grant) => grant.memberId === memberId)?.id ?? "";
  return { sub, browser, access, memberId, grantId };
}

async function aKey(browser = tenant.browser): Promise<{ id: string; apiKey: string }> {
  const response = await ask(browser, "POST", `${path}/keys`, { name: "in force", scopes: ["tools:read"] });
  expect(response.status).toBe(201);
  return (await response.json()) as { id: string; apiKey: string };
}

/** Calls a tool. Returns `ok`, the code of the refusal, or the HTTP status. */
async function call(token: string): Promise<string> {
  const response = await postMcp(token, {
    ...{ jsonrpc: "2.0", id: 1, method: "tools/call" },
    params: { name: "get_usage", arguments: {}, _meta: modernMeta },
  });
  if (response.status !== 200) return String(response.status);
  const { result } = (await response.json()) as { result: { isError?: boolean; _meta?: Record<string, unknown> } };
  const refusal = result._meta?.["tollgate/refusal"] as { code: string } | undefined;
  return refusal?.code ?? (result.isError === true ? "failed" : "ok");
}

/** Reads the account. */
async function read(headers: Record<string, string>): Promise<string> {
  const response = await fetch(`${system.publicUrl}${path}/usage`, { headers });
  return response.status === 200 ? "ok" : String(response.status);
}

interface Case {
  call: () => Promise<string>;
  change: () => Promise<unknown>;
}

const cases: Record<string, { prepare: () => Promise<Case>; after: string }> = {
  "a member is removed, as the member's client sees it": {
    prepare: async () => {
      const { access, memberId } = await aMember();
      return { call: () => call(access), change: () => owner("DELETE", `/members/${memberId}`) };
    },
    after: "401",
  },
  "a member is removed, as the member's key sees it": {
    prepare: async () => {
      const { browser, memberId } = await aMember();
      const { apiKey } = await aKey(browser);
      return { call: () => call(apiKey), change: () => owner("DELETE", `/members/${memberId}`) };
    },
    after: "401",
  },
  "a member is removed, as the member's browser sees it": {
    prepare: async () => {
      const { browser, memberId } = await aMember();
      const cookie = `__Host-tollgate-session=${browser.session}`;
      return { call: () => read({ cookie }), change: () => owner("DELETE", `/members/${memberId}`) };
    },
    after: "404",
  },
  "a member gets a role without tools": {
    prepare: async () => {
      const { access, memberId } = await aMember();
      return {
        call: () => call(access),
        change: () => owner("PATCH", `/members/${memberId}`, { role: "billing" }),
      };
    },
    after: "role_missing",
  },
  "a grant is revoked": {
    prepare: async () => {
      const { access, grantId } = await aMember();
      return { call: () => call(access), change: () => owner("DELETE", `/grants/${grantId}`) };
    },
    after: "401",
  },
  "a grant is revoked, on a route of the account": {
    prepare: async () => {
      const { access, grantId } = await aMember();
      const authorization = `Bearer ${access}`;
      return { call: () => read({ authorization }), change: () => owner("DELETE", `/grants/${grantId}`) };
    },
    after: "401",
  },
  "a key is revoked": {
    prepare: async () => {
      const { id, apiKey } = await aKey();
      return { call: () => call(apiKey), change: () => owner("DELETE", `/keys/${id}`) };
    },
    after: "401",
  },
  "a key loses the tool": {
    prepare: async () => {
      const { id, apiKey } = await aKey();
      return { call: () => call(apiKey), change: () => owner("PATCH", `/keys/${id}`, { tools: ["health_check"] }) };
    },
    after: "tool_not_in_key",
  },
  "a session is ended": {
    prepare: async () => {
      const { browser, memberId } = await aMember();
      const cookie = `__Host-tollgate-session=${browser.session}`;
      const { sessions } = (await owner("GET", "/sessions")) as { sessions: { id: string; memberId: string }[] };
      const session = sessions.find((each) => each.memberId === memberId);
      return { call: () => read({ cookie }), change: () => owner("DELETE", `/sessions/${session?.id}`) };
    },
    after: "401",
  },
  // The last one: it is about all callers of the tenant.
  "the configuration changes": {
    prepare: async () => {
      const { apiKey } = await aKey();
      const change = async (): Promise<void> => {
        const response = await fetch(`${system.publicUrl}/admin/api/tenants/${tenant.id}/configuration`, {
          method: "PATCH",
          headers: {
            authorization: `Bearer ${system.operatorToken}`,
            ...{ "content-type": "application/merge-patch+json", "if-match": "*" },
          },
          body: JSON.stringify({ allowedTools: ["health_check"] }),
        });
        expect(await response.json()).toMatchObject({ delivered: true });
      };
      return { call: () => call(apiKey), change };
    },
    after: "tool_not_allowed",
  },
};

test.each(Object.entries(cases))(
  "%s: in force on the very next call of each of 50 callers",
  async (_, { prepare, after }) => {
    const { call: once, change } = await prepare();
    let changedAtMs = Infinity;
    const calls: { beganAtMs: number; outcome: string }[] = [];
    const caller = async (): Promise<void> => {
      for (let seen = 0; seen < AFTER;) {
        const beganAtMs = performance.now();
        calls.push({ beganAtMs, outcome: await once() });
        if (beganAtMs > changedAtMs) seen += 1;
      }
    };
    const callers = Promise.all(Array.from({ length: CALLERS }, caller));
    // A caller that fails ends the wait.
    await Promise.race([callers, until(async () => calls.length >= CALLERS, "each caller has called")]);
    await change();
    changedAtMs = performance.now();
    await callers;
    const outcomes = (isAfter: boolean): string[] => [
      ...new Set(calls.filter(({ beganAtMs }) => beganAtMs > changedAtMs === isAfter).map(({ outcome }) => outcome)),
    ];
    expect(outcomes(true)).toEqual([after]);
    // While the change is made, a call has the old outcome or the new one.
    expect([["ok"], ["ok", after]]).toContainEqual(outcomes(false));
  },
);
