// Tollgate reads back the credentials that it mints and refuses any other text. It needs neither storage nor a tenant's
// object to refuse a forged one.
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import {
  type Credential,
  type CredentialKind,
  bearerToken,
  decodeScopes,
  encodeScopes,
  mintCredential,
  secretsEqual,
  sha256Hex,
  toBase64Url,
  verifyCredential,
  isOneOf,
  credentialPattern,
} from "../../src/core/keys/credentials.ts";
import { newestRootKey } from "../../src/core/keys/root-keys.ts";
import { TenantId, tenantIdPattern } from "../../src/core/tenant/tenant.ts";

const ROOT_KEY = "root-key-of-these-tests";
const prefixes = {
  ...({ key: "tgk", canary: "tgc", setup: "tgs", status: "tgp", monitor: "tgm" } as const),
  ...({ invitation: "tgi", impersonation: "tga", grant: "tgo" } as const),
};
const kinds = Object.keys(prefixes) as CredentialKind[];

const tenantIds = fc.stringMatching(tenantIdPattern).map((id) => TenantId.parse(id));
const field = fc.stringMatching(/^[A-Za-z0-9_-]{1,128}$/);
const credentials: fc.Arbitrary<Credential> = fc.oneof(
  fc.record({ kind: fc.constant("key" as const), tenantId: tenantIds, fields: fc.tuple(field, field, field) }),
  fc.record({
    kind: fc.constantFrom("canary" as const, "setup" as const, "status" as const, "grant" as const),
    tenantId: tenantIds,
    fields: fc.tuple(field),
  }),
  fc.record({ kind: fc.constant("monitor" as const), tenantId: tenantIds, fields: fc.constant(["1"]) }),
  fc.record({ kind: fc.constant("impersonation" as const), tenantId: tenantIds, fields: fc.tuple(field, field) }),
  fc.record({ kind: fc.constant("invitation" as const), tenantId: tenantIds, fields: fc.tuple(field, field) }),
);

function aCredential(overrides: Partial<Credential> = {}): Credential {
  const fields = {
    key: ["k1", "cmVhZA", "secret"],
    canary: ["1800000000000"],
    setup: ["1800000000000"],
    status: ["1800000000000"],
    monitor: ["1"],
    impersonation: ["i1", "1800000000000"],
    invitation: ["i1", "secret"],
    grant: ["m1"],
  };
  const kind = overrides.kind ?? "key";
  return { kind, tenantId: TenantId.parse("acme"), fields: fields[kind], ...overrides };
}

const ROOT_KEY_ID = (await newestRootKey(ROOT_KEY)).id;

/** A token with a genuine MAC over any text. */
function signed(text: string, rootKey = ROOT_KEY_ID): string {
  const body = `${text}.${rootKey}`;
  return withChecksum(`${body}.${createHmac("sha256", ROOT_KEY).update(body).digest("base64url")}`);
}

/** The checksum as docs/keys.md describes it for scanners. */
function withChecksum(text: string): string {
  const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  let written = "";
  for (let rest = BigInt(crc32(text)); written.length < 6; rest /= 62n)
    written = `${digits[Number(rest % 62n)]}${written}`;
  return text + written;
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

test("a credential of any kind is read back as written, and its MAC covers all its fields", async () => {
  await fc.assert(
    fc.asyncProperty(credentials, async (credential) => {
      const token = await mintCredential(ROOT_KEY, credential);
      const { kind, tenantId, fields } = credential;
      expect(token).toBe(signed([`${prefixes[kind]}_${tenantId}`, ...fields].join(".")));
      expect(await verifyCredential(ROOT_KEY, token)).toEqual({ kind, tenantId, fields: [...fields] });
    }),
  );
});

test("the longest credential can be read back", async () => {
  const longest = aCredential({ tenantId: TenantId.parse("t".repeat(40)), fields: Array(3).fill("f".repeat(128)) });
  expect(await verifyCredential(ROOT_KEY, await mintCredential(ROOT_KEY, longest))).toEqual(longest);
});

test("a token that differs in any one character is refused", async () => {
  const edit = fc.record({
    at: fc.nat(),
    how: fc.constantFrom("replace", "insert", "remove"),
    char: fc.oneof(
      fc.constantFrom(...`${letters}.=+/ \n\0`.split("")),
      fc.nat(0xffff).map((code) => String.fromCharCode(code)),
    ),
  });
  await fc.assert(
    fc.asyncProperty(credentials, edit, async (credential, { at, how, char }) => {
      const token = await mintCredential(ROOT_KEY, credential);
      const index = at % (token.length + (how === "insert" ? 1 : 0));
      const rest = token.slice(how === "insert" ? index : index + 1);
      const edited = token.slice(0, index) + (how === "remove" ? "" : char) + rest;
      fc.pre(edited !== token);
      expect(await verifyCredential(ROOT_KEY, edited)).toBeUndefined();
    }),
    { numRuns: 2_000 },
  );
});

test.each(kinds)("the MAC of a %s has exactly one accepted spelling", async (kind) => {
  // Four characters decode to the same last byte: accepting them all would give a key several spellings and digests.
  const token = (await mintCredential(ROOT_KEY, aCredential({ kind }))).slice(0, -6);
  const accepted = [];
  for (const last of letters) {
    if ((await verifyCredential(ROOT_KEY, withChecksum(token.slice(0, -1) + last))) !== undefined) accepted.push(last);
  }
  expect(accepted).toEqual([token.at(-1)]);
});

test.each(kinds.flatMap((kind) => kinds.filter((other) => other !== kind).map((other) => ({ kind, other }))))(
  "a $kind does not pass for a $other",
  async ({ kind, other }) => {
    // The fields of the other kind, so that only the MAC can refuse it.
    const credential = { ...aCredential({ kind: other }), kind };
    const body = [`${prefixes[kind]}_${credential.tenantId}`, ...credential.fields].join(".");
    const passed = signed(body).slice(0, -6).replace(prefixes[kind], prefixes[other]);
    expect(await verifyCredential(ROOT_KEY, withChecksum(passed))).toBeUndefined();
  },
);

test("root keys are rotated: the newest makes credentials, all verify, and a key that is gone ends its credentials", async () => {
  const old = await mintCredential("old root", aCredential());
  const renewed = await mintCredential("new root, old root", aCredential());
  expect(renewed).toBe(await mintCredential("new root", aCredential()));
  for (const token of [old, renewed]) expect(await verifyCredential("new root,old root", token)).toEqual(aCredential());
  expect(await verifyCredential("newer root, new root", old)).toBeUndefined();
  expect(await verifyCredential("newer root, new root", renewed)).toEqual(aCredential());
  for (const none of ["", ",", " , "]) expect(await verifyCredential(none, old)).toBeUndefined();
});

const published = new RegExp(
  /^    (?<source>\\btg\S+)$/m.exec(readFileSync(join(import.meta.dirname, "../../docs/keys.md"), "utf8"))?.groups?.[
    "source"
  ] ?? "(?!)",
  "g",
);

test("the published expression is the one in use, and finds each credential in a text as a whole", async () => {
  expect(published.source).toBe(credentialPattern.source);
  await fc.assert(
    fc.asyncProperty(
      credentials,
      fc.constantFrom(" ", "'", '"', "=", ":", "/", "\n", "("),
      async (credential, edge) => {
        const token = await mintCredential(ROOT_KEY, credential);
        expect(`key${edge}${token}${edge} end`.match(published)).toEqual([token]);
        // Its holder's own programs need no root key to tell a genuine form from a mistyped one.
        expect(withChecksum(token.slice(0, -6))).toBe(token);
      },
    ),
  );
});

test.each([
  ["a JWT", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhY21lIn0.c2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJlc2lnbmE"],
  ["a word with the prefix inside", `x${signed("tgm_acme.1")}`],
  ["the visible beginning of a key", "tgk_acme.AbCdEfGhIjKl"],
  ["a file name", "tgk_build.min.js.map.gz"],
])("the published expression does not find %s", (_, text) => {
  expect(text.match(published)).toBeNull();
});

test("the operator's token is one of a list, and no part of the list", async () => {
  const setting = "new-token, old-token";
  for (const token of ["new-token", "old-token"]) expect(await isOneOf(setting, token)).toBe(true);
  for (const token of ["", " ", ",", setting, "new-token,old-token", "new", "old-token "])
    expect(await isOneOf(setting, token), token).toBe(false);
  expect(await isOneOf("", "")).toBe(false);
});

test("a credential is refused for another tenant and under another root key", async () => {
  await fc.assert(
    fc.asyncProperty(credentials, tenantIds, fc.string({ minLength: 1 }), async (credential, other, rootKey) => {
      fc.pre(other !== credential.tenantId && rootKey !== ROOT_KEY && !rootKey.trimStart().startsWith("["));
      const token = await mintCredential(ROOT_KEY, credential);
      const prefix = `${prefixes[credential.kind]}_`;
      const elsewhere = withChecksum(
        token.slice(0, -6).replace(`${prefix}${credential.tenantId}`, `${prefix}${other}`),
      );
      expect(await verifyCredential(ROOT_KEY, elsewhere)).toBeUndefined();
      expect(await verifyCredential(rootKey, token)).toBeUndefined();
    }),
  );
});

test.each([
  ["nothing", ""],
  ["a prefix", "tgk_"],
  ["no MAC", "tgk_acme.k1.cmVhZA.secret"],
  ["an empty MAC", "tgk_acme.k1.cmVhZA.secret."],
  ["a JWT", "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl"],
  ["an unknown prefix", signed("tgx_acme")],
  ["no prefix", signed("acme")],
  ["a tenant in upper case", signed("tgm_Acme")],
  ["no tenant", signed("tgm_")],
  ["a field too few", signed("tgk_acme.k1.cmVhZA")],
  ["a field too many", signed("tgk_acme.k1.cmVhZA.secret.more")],
  ["a monitor token without its generation", signed("tgm_acme")],
  ["an empty field", signed("tgk_acme.k1..secret")],
  ["a field of other characters", signed("tgk_acme.k1.cmVhZA=.secret")],
  ["a field over 128 characters", signed(`tgs_acme.${"1".repeat(129)}`)],
  ["a MAC with padding", withChecksum(`${signed("tgm_acme.1").slice(0, -6)}=`)],
  ["an unknown root key", signed("tgm_acme.1", "r00000000")],
  [
    "no root key",
    withChecksum(`tgm_acme.1.${createHmac("sha256", ROOT_KEY).update("tgm_acme.1").digest("base64url")}`),
  ],
  ["no checksum", signed("tgm_acme.1").slice(0, -6)],
  ["a wrong checksum", signed("tgm_acme.1").replace(/.$/, (last) => (last === "0" ? "1" : "0"))],
])("%s is refused for any MAC", async (_, token) => {
  expect(await verifyCredential(ROOT_KEY, token)).toBeUndefined();
});

test.each([
  ["a field with a dot", { fields: ["k.1", "cmVhZA", "secret"] }],
  ["an empty field", { fields: ["k1", "", "secret"] }],
  ["a field over 128 characters", { fields: ["k1", "c".repeat(129), "secret"] }],
  ["a field too few", { fields: ["k1", "secret"] }],
  ["a tenant with a dot", { tenantId: "ac.me" as TenantId }],
])("a credential that could not be read back is not minted: %s", async (_, wrong) => {
  await expect(mintCredential(ROOT_KEY, aCredential(wrong))).rejects.toThrow(/credential/);
});

test("scopes are read back as written and without duplicates", () => {
  const scope = fc.stringMatching(/^[!#-[\]-~]{1,17}$/); // as RFC 6749, section 3.3, spells them
  fc.assert(
    fc.property(fc.array(scope, { minLength: 1, maxLength: 5 }), (scopes) => {
      const encoded = encodeScopes(scopes);
      expect(encoded).toMatch(/^[A-Za-z0-9_-]{1,128}$/);
      expect(decodeScopes(encoded)).toEqual([...new Set(scopes)]);
    }),
  );
});

test("repeated scopes fit into a key, because duplicates are dropped", async () => {
  const fields = ["k1", encodeScopes(Array<string>(50).fill("tools:read")), "secret"];
  const token = await mintCredential(ROOT_KEY, aCredential({ fields }));
  expect((await verifyCredential(ROOT_KEY, token))?.fields).toEqual(fields);
});

test("any random bytes can be encoded as a field", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 90 }), (bytes) => {
      const encoded = toBase64Url(bytes);
      expect(encoded).toMatch(/^[A-Za-z0-9_-]{1,128}$/);
      expect([...Buffer.from(encoded, "base64url")]).toEqual([...bytes]);
    }),
  );
});

test.each([
  ["Bearer abc", "abc"],
  ["bearer abc", "abc"],
  ["BEARER   a.b-c_d~e+f/g==  ", "a.b-c_d~e+f/g=="],
  ["Bearer", undefined],
  ["Bearer ", undefined],
  ["Bearerabc", undefined],
  ["Bearer a b", undefined],
  ["Bearer a, Bearer b", undefined],
  [" Bearer abc", undefined],
  ["Basic abc", undefined],
  ["abc", undefined],
  ["", undefined],
  [null, undefined],
  [undefined, undefined],
])("the bearer token of %j is %j", (header, token) => {
  expect(bearerToken(header)).toBe(token);
});

test("two secrets are equal only when they are the same text", async () => {
  await fc.assert(
    fc.asyncProperty(fc.string({ unit: "grapheme" }), fc.string({ unit: "grapheme" }), async (one, other) => {
      expect(await secretsEqual(one, one)).toBe(true);
      expect(await secretsEqual(one, other)).toBe(one === other);
      expect(await secretsEqual(one, `${one} `)).toBe(false);
    }),
  );
});

test("a digest is SHA-256 in lower-case hex", async () => {
  expect(await sha256Hex("abc")).toBe("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
});
