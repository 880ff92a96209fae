// Secrets of every kind, sent where they do not belong: in paths, queries, headers, bodies, forms and statements. None is in a log
// line, a row of the control tables, a refusal, a backup, an export or an archive. At the end of the run the same search goes over all
// that the system left.
import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { signUp } from "../../dev/demo.ts";
import { backUp, download } from "../support/backups.ts";
import { aJwt, callTool, operator, system } from "../support/flow.ts";
import { type Side, aCode, aGrant, aSide, bearer, cookies, emailOf, send } from "../support/front-door.ts";
import { asSuperuser } from "../support/flow.ts";
import { type Secrets, issuedIn } from "../support/leaks.ts";
import { mailedToken } from "../support/people.ts";
import { type Place, controlPlaces, filePlaces, leaksOf } from "../support/planted-secrets.ts";
import { files, leaves, reaches } from "../support/removals.ts";
import { aPerson } from "../support/sign-in.ts";

let side: Side;
const secrets: Record<string, string> = {};
beforeAll(async () => {
  side = await aSide();
  const order = await signUp(system.publicUrl, { plan: "free", name: "A buyer" });
  const { access, refreshToken } = await aGrant(side.owner, side.id);
  const { code } = await aCode(side.owner, side.id);
  const sub = await aPerson([]);
  await send("POST", `/api/tenants/${side.id}/invitations`, bearer(side.ownerToken), { email: emailOf(sub) });
  const monitor = await operator("POST", `/tenants/${side.id}/monitor-token`);
  const acting = await operator("POST", `/tenants/${side.id}/impersonations`, { reason: "Secrets are planted" });
  const ofTool = `planted-tenant-secret-${crypto.randomUUID()}`;
  const set = await send("PUT", `/api/tenants/${side.id}/secrets/shipping_api_key`, bearer(side.ownerToken), {
    value: ofTool,
  });
  expect(set.status).toBe(200);
  for (const name of ["shipping_api_key", "carrier_account"])
    expect((await callTool(side.apiKey, "use_secrets", { name, act: "digest" })).isError).toBeUndefined();
  Object.assign(secrets, {
    "a tenant's secret of a tool": ofTool,
    ...{ "an API key": side.apiKey, "an OAuth access token": access, "an OAuth refresh token": refreshToken },
    ...{ "an OAuth code": code, "a session": side.owner.session, "a person's token": side.ownerToken },
    ...{ "a set-up token": order.setupToken, "an invitation": await mailedToken(emailOf(sub)) },
    "a monitor token": ((await monitor.json()) as { monitorToken: string }).monitorToken,
    "an impersonation": ((await acting.json()) as { token: string }).token,
    "an operator's token": await aJwt({ sub: "sam", scope: "admin:global", roles: ["viewer"] }),
    ...{ "a database login": system.appUrl, ...system.secrets },
  });
});

const quoted = (text: string): string => text.replaceAll("'", "''");
const encoded = encodeURIComponent;
const form = (fields: Record<string, string>): URLSearchParams => new URLSearchParams(fields);

/** Requests that carry a text where no secret belongs. */
const places: Readonly<Record<string, (secret: string) => Promise<unknown>>> = {
  "a path": (secret) => send("GET", `/api/tenants/${encoded(secret)}/usage`, bearer(side.adminKey.apiKey)),
  "an unknown path": (secret) => send("GET", `/${encoded(secret)}`),
  "a path of the operator's": (secret) => operator("GET", `/tenants/${encoded(secret)}`),
  "the query of a status page": (secret) => send("GET", `/api/tenants/${side.id}/status?token=${encoded(secret)}`),
  "an unknown query parameter": (secret) => operator("GET", `/tenants?token=${encoded(secret)}`),
  "the name of a query parameter": (secret) => operator("GET", `/tenants?${encoded(secret)}=1`),
  "the query of health": (secret) => send("GET", `/health?tenant=${encoded(secret)}&token=${encoded(secret)}`),
  "the bearer of another door": (secret) => send("GET", "/admin/api/tenants", bearer(`${secret}x`)),
  "the bearer of the account": (secret) => send("GET", `/api/tenants/${side.id}`, bearer(`${secret}x`)),
  "the bearer of the MCP endpoint": (secret) => send("POST", "/mcp", bearer(`${secret}x`), {}),
  "a Basic header": (secret) =>
    send("POST", "/oauth/token", { authorization: `Basic ${btoa(`a:${secret}`)}` }, form({})),
  "a session's cookie": (secret) =>
    send("GET", `/api/tenants/${side.id}`, { cookie: `__Host-tollgate-session=${secret}x` }),
  "the headers of a browser": (secret) =>
    send("PATCH", `/api/tenants/${side.id}`, {
      ...cookies(side.owner),
      ...{
        "user-agent": secret,
        referer: `https://x.example/?${secret}`,
        origin: `https://${encoded(secret)}.example`,
      },
      ...{ "x-request-id": secret, "mcp-session-id": secret },
    }),
  "a field of a body": (secret) => send("POST", "/api/checkout", {}, { plan: secret, name: "x" }),
  "the name of a field": (secret) => send("POST", "/api/checkout", {}, { plan: "free", name: "x", [secret]: 1 }),
  "a body that is no JSON": (secret) =>
    send("POST", "/api/checkout", { "content-type": "application/json" }, `{"a":${secret}`),
  "an event of Stripe": (secret) =>
    send("POST", "/webhooks/stripe", { "stripe-signature": `t=1,v1=${secret}` }, { id: secret }),
  "the form of the token endpoint": (secret) =>
    send(
      "POST",
      "/oauth/token",
      {},
      form({ grant_type: "refresh_token", refresh_token: `${secret}x`, client_id: secret }),
    ),
  "a code at the token endpoint": (secret) =>
    send(
      "POST",
      "/oauth/token",
      {},
      form({ grant_type: "authorization_code", code: `${secret}x`, client_secret: secret }),
    ),
  "a request of a client": (secret) =>
    send(
      "GET",
      `/oauth/authorize?client_id=${encoded(secret)}&state=${encoded(secret)}&redirect_uri=${encoded(secret)}`,
    ),
  "a callback": (secret) => send("GET", `/oauth/callback?code=${encoded(secret)}&state=${encoded(secret)}`),
  "a form of consent": (secret) =>
    send(
      "POST",
      "/oauth/consent",
      { ...cookies(side.owner), origin: system.publicUrl },
      form({ handle: secret, binding: secret }),
    ),
  "the link of an invitation": (secret) => send("GET", `/invitation?token=${encoded(`${secret}x`)}`),
  "the acceptance of an invitation": (secret) =>
    send("POST", "/api/invitations/accept", bearer(side.ownerToken), { token: `${secret}x`.slice(0, 500) }),
  "a message of no method": (secret) =>
    send("POST", "/mcp", bearer(side.apiKey), { jsonrpc: "2.0", id: secret, method: secret }),
  "a statement that fails on its value": (secret) =>
    callTool(side.apiKey, "run_sql", { statements: [`SELECT '${quoted(secret)}'::integer`] }),
  "a statement that cannot be parsed": (secret) =>
    callTool(side.apiKey, "run_sql", { statements: [`SELEKT ${secret}`] }),
};

/** What looks like a credential in an error text fails its request; see `watchFetch`. */
test.each(Object.entries(places))("a secret in %s is in no log line, no row and no refusal", async (_, plant) => {
  for (const secret of Object.values(secrets)) await plant(secret);
});

/** What is searched for: the planted values, and what can be recognized in them. */
const planted = (): Secrets => ({
  named: secrets,
  issued: new Map(Object.values(secrets).flatMap((secret) => [...issuedIn(secret)])),
});

test("after all of them the log and the control tables have none", async () => {
  const log = { name: "the log", text: await readFile(system.logFile, "utf8") };
  expect(log.text.length).toBeGreaterThan(1_000);
  expect(await leaksOf([log], planted())).toEqual([]);
  expect(await leaksOf(controlPlaces(asSuperuser(system.controlUrl)), planted())).toEqual([]);
});

/** Whether the search at the end of the run reads these stored files: it finds them among the files of the system's folder. */
async function areRead(stored: readonly string[]): Promise<boolean> {
  const missing = new Set(stored);
  for await (const { text } of filePlaces(dirname(system.logFile)))
    for (const each of missing) if (text.includes(Buffer.from(each).toString("latin1"))) missing.delete(each);
  return missing.size === 0;
}

test("a backup, an export and the archive of the usage have none, and the search at the end of the run reads what is stored", async () => {
  await callTool(side.apiKey, "write_document", { path: "a.txt", text: "a text" });
  await backUp(side);
  const backups = await files(`backups/${side.id}/`);
  const exported: Place = { name: "the export", text: await (await download(side)).text() };
  // Both have the document's line, and the export has the audit log of what was tried.
  for (const text of [...Object.values(backups), exported.text]) expect(text).toContain("a.txt");
  expect(exported.text).toContain(`"action":"tenant.cross"`);
  expect(await areRead(Object.values(backups))).toBe(true);

  await leaves(side.id);
  const { name } = (await (await operator("GET", `/tenants/${side.id}`)).json()) as { name: string };
  expect((await operator("POST", `/tenants/${side.id}/remove?now=true`, { name })).status).toBe(202);
  await reaches(side.id, "done");
  const archive = await files(`archive/${side.id}/`);
  expect(Object.values(archive).join("")).toContain("write_document");
  expect(await areRead(Object.values(archive))).toBe(true);

  const stored = Object.entries({ ...backups, ...archive }).map(([key, text]) => ({ name: key, text }));
  expect(stored.length).toBeGreaterThan(2);
  expect(await leaksOf([...stored, exported], planted())).toEqual([]);
});
