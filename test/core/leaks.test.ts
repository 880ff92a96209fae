// The search for secrets in what a run leaves behind: it finds each kind in each kind of place, so that it can fail.
import { mkdtemp, mkdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { type CredentialKind, encodeScopes, mintCredential } from "../../src/core/keys/credentials.ts";
import type { TenantId } from "../../src/core/tenant/tenant.ts";
import { newSessionToken } from "../../src/identity/sessions/sessions.ts";
import { issuedIn, leaksIn } from "../support/leaks.ts";
import { filePlaces, leaksOf, withoutInvitations } from "../support/planted-secrets.ts";
import { refuseLeaks } from "../support/watched-fetch.ts";

const quiet = [
  '{"event":"call","tenantId":"tgk_x","requestId":"01a2"}',
  "eyJ is how tokens begin",
  "a bearer of news",
  "",
];

/** The deployment's own secrets. */
const named = {
  "the operator token": "op_planted-in-a-line",
  "a provider's client secret": "9b2f-planted-client-secret",
  "a Stripe key": "sk_test_planted_in_a_line",
  "a database password": "planted-password-1",
};

const credential = (kind: CredentialKind, fields: string[]): Promise<string> =>
  mintCredential("a root key of this test, long enough", { kind, tenantId: "acme" as TenantId, fields });
const secretPart = "the-secret-part-of-the-credential";

/** One secret of each kind that the product issues, as it is. */
async function issuedSecrets(): Promise<Record<string, string>> {
  const later = String(Date.now() + 60_000);
  const subject = await credential("grant", ["m1"]);
  return {
    "an API key": await credential("key", ["id-of-the-key", encodeScopes(["tools:read"]), secretPart]),
    "a set-up token": await credential("setup", [later]),
    "a status token": await credential("status", [later]),
    "a monitor token": await credential("monitor", ["1"]),
    "an invitation": await credential("invitation", ["id-of-it", secretPart]),
    "an impersonation": await credential("impersonation", ["id-of-it", later]),
    "an OAuth token or code": `${subject}:${"g".repeat(16)}:${"s".repeat(32)}`,
    "a session": `__Host-tollgate-session=${newSessionToken()}`,
    "a client's secret": `"client_secret":"${"c".repeat(32)}"`,
  };
}

test("each kind of secret is found in a line by its form or its value, and the line is shown without it", async () => {
  const byForm: Record<string, string> = {
    "a credential of Tollgate's": await credential("key", ["id-of-the-key", encodeScopes(["tools:read"]), secretPart]),
    "a signed token": `eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0xxxx.${"s".repeat(40)}`,
    "a database login": "postgresql://owner:secret@127.0.0.1:5432/control",
    "a bearer header": `Bearer ${"t".repeat(20)}`,
  };
  expect(leaksIn(quiet.join("\n"), { named })).toEqual([]);
  for (const [name, secret] of Object.entries({ ...byForm, ...named })) {
    const [leak = "", ...more] = leaksIn([...quiet, `{"event":"x","url":"/a?token=${secret}"}`, ...quiet].join("\n"), {
      named,
    });
    expect(leak, name).toContain(`${name}: {"event":"x"`);
    expect(leak, name).not.toContain(secret);
    expect(more, name).toEqual([]);
  }
});

test("each kind of credential that the product issues is found by its secret part alone, where only values are searched", async () => {
  for (const [name, secret] of Object.entries(await issuedSecrets())) {
    const issued = issuedIn(`{"answer":"${secret}"}`);
    expect([...issued.values()], name).toContain(name);
    for (const [part] of issued) {
      const [leak = ""] = leaksIn(`\u0000row ${part}, more`, { named, issued, valuesOnly: true });
      expect(leak, name).toContain(`${name}: `);
      expect(leak, name).not.toContain(part);
    }
  }
  // What names a grant is no secret.
  const { "an OAuth token or code": token = "" } = await issuedSecrets();
  const grant = token.slice(0, token.lastIndexOf(":"));
  expect(leaksIn(grant, { named, issued: issuedIn(token), valuesOnly: true })).toEqual([]);
});

test("a leak in any file of a run, in a mail, or in a refusal is reported with its place", async () => {
  const dir = await mkdtemp(join(tmpdir(), "tollgate-leaks-"));
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  const { "an API key": key = "", "an invitation": invitation = "" } = await issuedSecrets();
  const secrets = { named, issued: issuedIn(key + invitation) };
  const places = ["worker.log", "workerd/r2/files/blobs/1", "workerd/do/TenantObject/1.sqlite", "workerd/queue-wal"];
  for (const name of [...places, "settings.json", "postgres/base/1"]) {
    await mkdir(dirname(join(dir, name)), { recursive: true });
    await writeFile(join(dir, name), `a row \u0000 ${key}`);
  }
  const leaks = await leaksOf(filePlaces(dir), secrets);
  const found = leaks.map((leak) => /^the file (?<name>[^:]+): an API key: /.exec(leak)?.groups?.["name"]);
  expect(new Set(found)).toEqual(new Set(places));
  expect(leaks.join()).not.toContain(secretPart);

  const mail = `Open http://x/invitation?token=${invitation} now`;
  expect(leaksIn(withoutInvitations(mail), secrets)).toEqual([]);
  expect(leaksIn(withoutInvitations(`${mail} ${invitation}`), secrets)).toHaveLength(1);

  for (const secret of [key, ...Object.values(named)])
    expect(() => refuseLeaks("GET /x", `{"detail":"no ${secret}"}`, secrets)).toThrow(/^The refusal of GET \/x shows /);
  expect(() => refuseLeaks("GET /x", '{"detail":"token_invalid"}', secrets)).not.toThrow();
});

test("a line of some megabytes is searched to its end", () => {
  const long = "x".repeat(20_000_000);
  const lines = `${long}\n${long}.${secretPart}.eyJ${long}`;
  expect(leaksIn(lines, { named, issued: new Map([[secretPart, "an API key"]]) })).toHaveLength(1);
  expect(leaksIn(`tgk_a.${long} bearer ${long}`, { named })).toHaveLength(1);
});
