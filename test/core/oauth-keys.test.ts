// Where the OAuth server's keys are stored: a table over every form of key that the library writes, and over texts that
// strangers send in their place.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { mintCredential } from "../../src/core/keys/credentials.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { partsOfToken, placeOfKey, placeOfPrefix } from "../../src/identity/oauth/keys.ts";

const tenantId = TenantId.parse("acme-2");
const subject = await mintCredential("root", { kind: "grant", tenantId, fields: ["m_1-A"] });
const grantId = "AbCdEfGhIjKlMn-_";
const digest = "0123456789abcdef".repeat(4);
const secret = "s".repeat(32);
const inTenant = { in: "tenant", tenantId, subject, grantId };
const inRegistry = { in: "registry", name: expect.stringMatching(/^oauth-registry-([0-9]|1[0-5])$/) };

test.each([
  ["a grant", `grant:${subject}:${grantId}`, inTenant],
  ["an access token", `token:${subject}:${grantId}:${digest}`, inTenant],
  ["a registered client", `client:${grantId}`, inRegistry],
  ["a client with a metadata document", "client:https://client.example/oauth/client.json", inRegistry],
  ["a handle of consent or sign-in", `transaction:${digest}`, inRegistry],
  ["a used client assertion", `client-assertion-jti:${digest}`, inRegistry],
  ["a used identity assertion", `enterprise-jti:${digest}`, inRegistry],
])("the key of %s has its place", (_name, key, place) => {
  expect(placeOfKey(key)).toEqual(place);
});

test.each([
  ["nothing", ""],
  ["no kind", grantId],
  ["a kind that the library does not have", `session:${digest}`],
  ["a grant without an id", `grant:${subject}`],
  ["a grant with an empty id", `grant:${subject}:`],
  ["a grant of a subject that is no minted credential", `grant:acme-2.m1:${grantId}`],
  ["a grant of a key's credential", `grant:${subject.replace("tgo_", "tgk_")}:${grantId}`],
  ["a grant whose tenant is no tenant id", `grant:${subject.replace("acme-2", "ACME")}:${grantId}`],
  ["a grant of a reserved tenant", `grant:${subject.replace("acme-2", "canary-1")}:${grantId}`],
  ["a grant with a part too many", `grant:${subject}:${grantId}:${grantId}`],
  ["a token without its grant", `token:${subject}:${digest}`],
  ["a token whose digest is no digest", `token:${subject}:${grantId}:${"g".repeat(64)}`],
  ["a handle that is no digest", "transaction:../client"],
  ["a handle with a part too many", `transaction:${digest}:x`],
  ["a client without an id", "client:"],
  ["a client id with a space", "client:a b"],
  ["a client id with NUL", "client:a\0"],
  ["a client id outside of ASCII", "client:ümlaut"],
  ["a client id of half a megabyte", `client:${"a".repeat(500_000)}`],
])("%s has no place", (_name, key) => {
  expect(placeOfKey(key)).toBeUndefined();
});

test("the library's lists of one member or one grant have a place, lists over many objects have none", () => {
  const place = { in: "tenant", tenantId, subject };
  expect(placeOfPrefix(`grant:${subject}:`)).toEqual(place);
  expect(placeOfPrefix(`token:${subject}:${grantId}:`)).toEqual(place);
  const wide = ["", "grant:", "token:", "client:", `grant:${subject}`, `token:${subject}:`, `token:${subject}::`];
  for (const prefix of wide) expect(placeOfPrefix(prefix), prefix).toBeUndefined();
});

test("a token names its tenant, its member and its grant; any other text names none", () => {
  expect(partsOfToken(`${subject}:${grantId}:${secret}`)).toEqual({ tenantId, subject, grantId });
  const others = ["", subject, `${subject}:${grantId}`, `${subject}:${grantId}:short`, `x:${grantId}:${secret}`];
  for (const text of [...others, `${subject}:${grantId}:${secret}:${secret}`])
    expect(partsOfToken(text), text).toBeUndefined();
});

test("no text makes the rules throw, and a key of one place is never that of two tenants", () => {
  const part = fc.oneof(fc.constantFrom(subject, grantId, digest, secret, "grant", "token", "client"), fc.string());
  fc.assert(
    fc.property(fc.array(part, { maxLength: 6 }), (parts) => {
      const text = parts.join(":");
      const place = placeOfKey(text);
      if (place?.in === "tenant") expect(place.tenantId).toBe(tenantId);
      placeOfPrefix(text);
      partsOfToken(text);
    }),
    { numRuns: 2_000 },
  );
});

test("registrations spread over all registry objects", () => {
  const names = new Set<string>();
  for (let number = 0; number < 1_000; number += 1) {
    const place = placeOfKey(`client:client-${number}`);
    if (place?.in === "registry") names.add(place.name);
  }
  expect(names.size).toBe(16);
});
