// The signed context: its format, and the claims that cannot be signed.
import { createHmac } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { signContext } from "../../src/tenant-db/signed-context.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";

const word = (first: string, rest: string, maxLength: number) =>
  fc
    .tuple(
      fc.constantFrom(...first.split("")),
      fc.string({ unit: fc.constantFrom(...rest.split("")), maxLength: maxLength - 1 }),
    )
    .map(([head, tail]) => head + tail);
const lower = "abcdefghijklmnopqrstuvwxyz0123456789";
const claims = fc.record({
  keyId: word(lower, `${lower}_-`, 40),
  secret: fc.string({ minLength: 32, maxLength: 100, unit: "grapheme" }),
  tenantId: word(lower, `${lower}_-`, 40).map((id) => TenantId.parse(id)),
  database: word(lower, `${lower}ABCXYZ_-`, 63),
  expiresAtMs: fc.integer({ min: 1_000, max: 4_102_444_800_000 }),
});

test("a context is its claims as text and the HMAC-SHA256 of everything before the last dot", async () => {
  await fc.assert(
    fc.asyncProperty(claims, async (given) => {
      const context = await signContext(given);
      const parts = context.split(".");
      const body = parts.slice(0, -1).join(".");
      expect(parts).toEqual([
        "v1",
        given.keyId,
        given.tenantId,
        given.database,
        String(Math.floor(given.expiresAtMs / 1000)),
        createHmac("sha256", given.secret).update(body).digest("hex"),
      ]);
      expect(context.length).toBeLessThanOrEqual(256);
    }),
  );
});

test("two different sets of claims never share a context", async () => {
  await fc.assert(
    fc.asyncProperty(claims, claims, async (one, other) => {
      const same = await Promise.all([signContext(one), signContext(other)]).then(([a, b]) => a === b);
      const second = (given: typeof one) => ({ ...given, expiresAtMs: Math.floor(given.expiresAtMs / 1000) });
      expect(same).toBe(JSON.stringify(second(one)) === JSON.stringify(second(other)));
    }),
  );
});

const good = {
  keyId: "k1",
  secret: "s".repeat(32),
  tenantId: TenantId.parse("acme"),
  database: "shard",
  expiresAtMs: 1_800_000_000_000,
};

test.each([
  ["a key id with a dot", { keyId: "k.1" }],
  ["a tenant with a dot", { tenantId: "ac.me" as TenantId }],
  ["a tenant in upper case", { tenantId: "Acme" as TenantId }],
  ["an empty tenant", { tenantId: "" as TenantId }],
  ["a database with a dot", { database: "shard.1" }],
  ["an expiry that is not a number", { expiresAtMs: Number.NaN }],
  ["an infinite expiry", { expiresAtMs: Number.POSITIVE_INFINITY }],
  ["an expiry before 1970", { expiresAtMs: -1 }],
])("%s cannot be signed", async (_, wrong) => {
  await expect(signContext({ ...good, ...wrong })).rejects.toThrow(/a context needs/);
});
