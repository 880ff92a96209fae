import { expect, test } from "vitest";
import { encodeScopes, mintCredential } from "../../src/core/credentials.ts";
import type { TenantId } from "../../src/core/tenant.ts";
import { leaksIn } from "../support/leaks.ts";

const quiet = [
  '{"event":"call","tenantId":"tgk_x","requestId":"01a2"}',
  "eyJ is how tokens begin",
  "a bearer of news",
  "",
];

test("the check of the logs finds each kind of secret, and shows the line without it", async () => {
  const apiKey = await mintCredential("a root key of this test, long enough", {
    kind: "key",
    tenantId: "acme" as TenantId,
    fields: ["id-of-the-key", encodeScopes(["tools:read"]), "secret-part-of-it"],
  });
  const planted: Record<string, string> = {
    "a credential of Tollgate's": apiKey,
    "a signed token": `eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0xxxx.${"s".repeat(40)}`,
    "a database login": "postgresql://owner:secret@127.0.0.1:5432/control",
    "a bearer header": `Bearer ${"t".repeat(20)}`,
    "the operator's token": "op_planted-in-a-line",
  };
  const secrets = { "the operator's token": "op_planted-in-a-line" };
  expect(leaksIn(quiet.join("\n"), secrets)).toEqual([]);
  for (const [name, secret] of Object.entries(planted)) {
    const [leak = "", ...more] = leaksIn(
      [...quiet, `{"event":"x","url":"/a?token=${secret}"}`, ...quiet].join("\n"),
      secrets,
    );
    expect(leak, name).toContain(`${name}: {"event":"x"`);
    expect(leak, name).not.toContain(secret);
    expect(more, name).toEqual([]);
  }
});
