// The world of a run: an attacker, a victim and tenants to spoil, with every kind of credential of the attacker.
import * as z from "zod";
import type { Credential, World } from "./cases.ts";
import { operationsOf } from "./run.ts";
import { REDIRECT, signIn } from "./sign-in.ts";

interface Site {
  baseUrl: string;
  operatorToken: string;
  /** Signs any claims. */
  tokenUrl: string;
  issuerUrl: string;
}

const Made = z.object({ id: z.string(), statusUrl: z.url() });
const Key = z.object({ id: z.string(), apiKey: z.string() });
const Order = z.object({ tenantId: z.string(), setupToken: z.string(), checkoutUrl: z.url(), statusUrl: z.url() });
const State = z.object({ state: z.string() });
const Tools = z.object({
  result: z.object({ tools: z.array(z.object({ name: z.string(), inputSchema: z.record(z.string(), z.unknown()) })) }),
});

/** Generous enough that the tenants' own limits refuse nothing. */
const noLimits = { callsPerMinute: null, unitsPerHour: null, unitsPerMonth: null };

/** Signs up an attacker, a victim and tenants to spoil, and collects every kind of credential of the attacker. */
export async function makeWorld({ baseUrl, operatorToken, tokenUrl, issuerUrl }: Site): Promise<World> {
  const post = async (path: string, body: unknown, token?: string): Promise<unknown> => {
    const response = await fetch(`${baseUrl}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json", ...(token !== undefined && { authorization: `Bearer ${token}` }) },
      body: JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`${path} answered ${response.status}: ${await response.text()}`);
    return response.json();
  };
  const active = async (statusUrl: string): Promise<void> => {
    for (let polls = 0; polls < 400; polls += 1)
      if (State.parse(await (await fetch(statusUrl)).json()).state === "active") return;
    throw new Error("a tenant was not set up");
  };
  const marker = `fuzz-secret-${crypto.randomUUID()}`;
  const create = async (name: string): Promise<string> => {
    const made = Made.parse(await post("/admin/api/tenants", { plan: "pro", name, limits: noLimits }, operatorToken));
    await active(made.statusUrl);
    return made.id;
  };
  const keyOf = async (id: string, scopes?: string[]): Promise<z.infer<typeof Key>> =>
    Key.parse(
      await post(
        `/admin/api/tenants/${id}/keys`,
        { name: "fuzz", ...(scopes !== undefined && { scopes }) },
        operatorToken,
      ),
    );

  const order = Order.parse(await post("/api/checkout", { plan: "free", name: "The attacker" }));
  await (await fetch(order.checkoutUrl, { method: "POST", redirect: "manual" })).arrayBuffer();
  await active(order.statusUrl);
  const attacker = order.tenantId;
  const victim = await create(marker);
  const disposable = [await create("Spoiled 1"), await create("Spoiled 2")];
  await fetch(`${baseUrl}/admin/api/tenants/${attacker}`, {
    method: "PATCH",
    headers: { authorization: `Bearer ${operatorToken}`, "content-type": "application/json" },
    body: JSON.stringify({ limits: noLimits }),
  });
  const [full, reader, victims] = [
    await keyOf(attacker, ["tools:read", "tools:write", "tenant:admin"]),
    await keyOf(attacker, ["tools:read"]),
    await keyOf(victim, ["tools:read", "tools:write"]),
  ];
  // A document of the victim's, so that its rows and files hold the marker, too.
  await mcp(baseUrl, victims.apiKey, "tools/call", {
    name: "write_document",
    arguments: { path: "secret.txt", content: marker },
  });
  const monitor = z
    .object({ monitorToken: z.string() })
    .parse(await post(`/admin/api/tenants/${attacker}/monitor-token`, {}, operatorToken)).monitorToken;
  const sign = async (claims: object): Promise<string> =>
    z.object({ access_token: z.string() }).parse(
      await (
        await fetch(tokenUrl, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify(claims),
        })
      ).json(),
    ).access_token;
  const claims = { tenant_id: attacker, sub: "fuzz-user", scope: "tools:read tools:write" };
  const jwt = await sign(claims);
  const nowS = Math.floor(Date.now() / 1000);
  const statusToken = new URL(order.statusUrl).searchParams.get("token") ?? "";

  // The owner of the attacker's tenant, who has signed in, and a member of the victim's.
  const person = async (sub: string, tenantId: string): Promise<void> => {
    const email = `${sub}@example.com`;
    await post(`/admin/api/tenants/${tenantId}/members`, { email }, operatorToken);
    const body = JSON.stringify({ name: sub, email, organisations: [] });
    const headers = { "content-type": "application/json" };
    const put = await fetch(`${issuerUrl}/people/${sub}`, { method: "PUT", headers, body });
    if (!put.ok) throw new Error(`no person: ${put.status} ${await put.text()}`);
  };
  await person("fuzz-owner", attacker);
  await person("fuzz-victim", victim);
  const site = { baseUrl, issuerUrl };
  const owner = await signIn(site, "fuzz-owner", attacker);
  const revoked = await signIn(site, "fuzz-owner", attacker);
  const theirs = await signIn(site, "fuzz-victim", victim);
  await fetch(`${baseUrl}/oauth/revoke`, {
    method: "POST",
    body: new URLSearchParams({ token: revoked.refresh, client_id: revoked.clientId }),
  });
  const ownersToken = await sign({ tenant_id: attacker, sub: "fuzz-owner", scope: "tools:read tenant:admin" });
  const impersonation = z
    .object({ token: z.string() })
    .parse(await post(`/admin/api/tenants/${attacker}/impersonations`, { reason: "fuzz" }, operatorToken)).token;
  const nearly = (text: string): string => text.slice(0, -4) + (text.endsWith("AAAA") ? "BBBB" : "AAAA");

  const own = (name: string, token: string, schemes: string[]): Credential => ({
    ...{ name, token, schemes, tenantId: attacker },
  });
  const credentials: Credential[] = [
    own("a key with every scope", full.apiKey, ["adminKey", "agentToken", "statusToken", "statusLink"]),
    own("a key that reads", reader.apiKey, ["agentToken", "statusToken", "statusLink"]),
    own("the set-up token", order.setupToken, ["setupToken", "statusToken", "statusLink"]),
    own("the status token", statusToken, ["statusToken", "statusLink"]),
    own("the monitor token", monitor, ["monitorToken", "monitorLink"]),
    own("a user's token", jwt, ["agentToken", "personToken"]),
    own("the owner's token", ownersToken, ["agentToken", "personToken", "memberToken"]),
    own("an OAuth token", owner.access, ["agentToken"]),
    own("an impersonation", impersonation, ["impersonation", "statusToken", "statusLink"]),
    { ...own("the owner's session", owner.session, ["session"]), isCookie: true },
    { ...own("the victim's OAuth token", theirs.access, ["agentToken"]), tenantId: victim },
    { ...own("the victim's session", theirs.session, ["session"]), tenantId: victim, isCookie: true },
    {
      name: "the operator's token",
      token: operatorToken,
      schemes: ["operatorToken", "statusToken", "statusLink"],
      tenantId: undefined,
    },
  ];
  const useless = [
    { name: "an expired token", token: await sign({ ...claims, exp: nowS - 3_600 }) },
    { name: "a token of later", token: await sign({ ...claims, nbf: nowS + 3_600 }) },
    { name: "a token for another audience", token: await sign({ ...claims, aud: "https://other.example/mcp" }) },
    { name: "a token of an unknown organisation", token: await sign({ ...claims, tenant_id: "no-such-organisation" }) },
    { name: "a token without an organisation", token: await sign({ sub: "fuzz-user", scope: "tools:read" }) },
    { name: "a revoked OAuth token", token: revoked.access },
    { name: "a refresh token", token: owner.refresh },
    { name: "a used code", token: owner.usedCode },
    { name: "nearly the victim's OAuth token", token: nearly(theirs.access) },
    {
      name: "the secret of the victim's OAuth token behind the attacker's name",
      token: mixed(owner.access, theirs.access),
    },
    { name: "part of the operator's token", token: operatorToken.slice(0, -1) },
  ];
  const { tools } = Tools.parse(await mcp(baseUrl, full.apiKey, "tools/list", {})).result;
  return {
    operations: await operationsOf(baseUrl),
    credentials,
    useless,
    attacker,
    victim,
    marker,
    disposable,
    ids: [attacker, victim, full.id, reader.id, victims.id, "secret.txt", ...disposable, "no-such-tenant"],
    tools,
    origins: [baseUrl, issuerUrl, new URL(REDIRECT).origin].map((url) => new URL(url).origin),
    known: {
      ...{ clientId: owner.clientId, access: owner.access, refresh: owner.refresh, usedCode: owner.usedCode },
      revoked: { access: revoked.access, refresh: revoked.refresh },
      nearlyVictims: {
        ...{ access: nearly(theirs.access), refresh: nearly(theirs.refresh), code: nearly(theirs.usedCode) },
      },
      ...{ resource: `${baseUrl}/mcp`, issuer: issuerUrl, tenants: [attacker, victim], invitation: "tgi_x.y.z.w" },
    },
  };
}

/** A token with the subject of one and the rest of another. */
function mixed(subjectOf: string, restOf: string): string {
  return [subjectOf.split(":")[0], ...restOf.split(":").slice(1)].join(":");
}

async function mcp(baseUrl: string, token: string, method: string, params: object): Promise<unknown> {
  const response = await fetch(`${baseUrl}/mcp`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${token}`,
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      "mcp-protocol-version": "2025-11-25",
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
  });
  return response.json();
}
