// Which texts can be stored exactly, and how a value that contains another one is refused.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { NeonDbError } from "@neondatabase/serverless";
import { SqlError, failure } from "../../src/adapters/neon.ts";
import { mintCredential, toBase64Url } from "../../src/core/keys/credentials.ts";
import { repeatsClaim } from "../../src/identity/tokens/issuer-keys.ts";
import type { TenantId } from "../../src/core/tenant/tenant.ts";
import { newSessionToken } from "../../src/identity/sessions/sessions.ts";
import { errors } from "../../src/core/errors.ts";
import {
  brokenText,
  decodeUtf8,
  refusedTextIn,
  shownName,
  storableText,
  unstorableText,
} from "../../src/core/text/text.ts";

const anyText = fc.string({ unit: "binary" });

test("a text is storable exactly when UTF-8 returns it unchanged and it has no NUL", () => {
  fc.assert(
    fc.property(anyText, (text) => {
      const same =
        new TextDecoder("utf-8", { fatal: false, ignoreBOM: true }).decode(new TextEncoder().encode(text)) === text;
      expect(brokenText(text) === undefined).toBe(same);
      expect(unstorableText(text) === undefined).toBe(same && !text.includes("\0"));
      expect(storableText(1_000).safeParse(text).success).toBe(same && !text.includes("\0"));
    }),
  );
});

test("the first text that cannot be stored is found anywhere in a value, and named", () => {
  expect(refusedTextIn({ a: [1, { b: "x\0" }] })).toEqual({
    path: ["a", 1, "b"],
    reason: expect.stringMatching(/NUL/),
  });
  expect(refusedTextIn({ a: { "\ud83d": 1 } })).toEqual({ path: ["a"], reason: expect.stringMatching(/surrogate/) });
  expect(refusedTextIn("\0", brokenText)).toBe(undefined);
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      expect(refusedTextIn(value, () => undefined)).toBe(undefined);
    }),
  );
});

test("a value that is nested deeply is checked without recursion", () => {
  const deep = "[".repeat(100_000) + String.raw`"\u0000"` + "]".repeat(100_000);
  expect(refusedTextIn(JSON.parse(deep))?.path.length).toBe(100_000);
});

test("bytes are decoded exactly or not at all", () => {
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => {
      const text = decodeUtf8(bytes);
      if (text !== undefined) expect(new TextEncoder().encode(text)).toEqual(bytes);
    }),
  );
  expect(decodeUtf8(Buffer.from("caf\u00e9", "latin1"))).toBe(undefined);
  expect(decodeUtf8(Buffer.from("\uFEFFa"))).toBe("\uFEFFa");
  expect(decodeUtf8(Buffer.from("\uFEFFa"), { dropMark: true })).toBe("a");
});

test.each([
  ["22021", "text_invalid"],
  ["22P05", "text_invalid"],
  ["22P02", "internal"],
])("SQLSTATE %s has the code %s wherever a text reaches the database", (sqlState, code) => {
  const refused = Object.assign(new NeonDbError("quotes a row"), { code: sqlState, column: "c" });
  const error = failure(refused, "control_unavailable");
  expect(error).toBeInstanceOf(SqlError);
  expect(error).toMatchObject({ code, sqlState, column: "c", message: expect.not.stringContaining("quotes") });
  expect(errors.text_invalid.status).toBe(400);
});

test("a name that an object has twice is found at any depth and in any spelling, and no other text is taken for one", () => {
  for (const json of [
    '{"a":1,"a":1}',
    '{"a":1,"\\u0061":2}',
    '{"b":[{"x":{"a":1,"c":"a","a":2}}]}',
    '{"a":{"a":1},"b":2,"a":3}',
    String.raw`{"\"":1,"\"":2}`,
  ])
    expect(repeatsClaim(toBase64Url(Buffer.from(json))), json).toBe(true);
  for (const json of ['{"a":1,"b":"a","c":{"a":1}}', '[{"a":1},{"a":2}]', '["a","a"]', '{"a":"{\\"b\\":1,\\"b\\":2}"}'])
    expect(repeatsClaim(toBase64Url(Buffer.from(json))), json).toBe(false);
  fc.assert(fc.property(fc.jsonValue(), (value) => !repeatsClaim(toBase64Url(Buffer.from(JSON.stringify(value))))));
  fc.assert(fc.property(anyText, (text) => typeof repeatsClaim(toBase64Url(Buffer.from(text))) === "boolean"));
});

test("a name or a part of a path that could be a secret is not repeated, and each name of Tollgate's own is", async () => {
  const secrets = [
    await mintCredential("a root key of this test, long enough", {
      kind: "monitor",
      tenantId: "a" as TenantId,
      fields: ["1"],
    }),
    newSessionToken(),
    `op_${"0".repeat(48)}`,
    `sk_test_${"0".repeat(48)}`,
  ];
  for (const secret of secrets) expect(shownName(secret)).not.toContain(secret.slice(0, 8));
  expect(shownName("unitsPerMonth")).toBe("unitsPerMonth");
});
