// Encrypted logins decrypt with the right key and for their own purpose only.
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  IV_BYTES,
  type KeyRing,
  decrypt,
  encrypt,
  isEncryptedWithNewest,
  parseKeyRing,
} from "../../src/core/keys/encryption.ts";
import { connectionUrl, ownName, purposeOf } from "../../src/core/tenant/placement.ts";

const keyOf = (id: string) => ({ id, secret: id.padEnd(32, ".") });
const iv = () => crypto.getRandomValues(new Uint8Array(IV_BYTES));

test("a secret decrypts for its own purpose only, and its ciphertext does not contain it", async () => {
  await fc.assert(
    fc.asyncProperty(fc.string({ unit: "grapheme" }), fc.string(), async (secret, purpose) => {
      const encrypted = await encrypt([keyOf("a")], purpose, secret, iv());
      expect(await decrypt([keyOf("a")], purpose, encrypted)).toBe(secret);
      if (secret.length > 8) expect(encrypted).not.toContain(secret);
      await expect(decrypt([keyOf("a")], `${purpose}.`, encrypted)).rejects.toThrow(/does not decrypt/);
    }),
  );
});

test("keys rotate: the newest encrypts, older ones still decrypt, a retired one does not", async () => {
  const before = await encrypt([keyOf("a")], "p", "user:password", iv());
  const rotating: KeyRing = [keyOf("b"), keyOf("a")];
  expect(await decrypt(rotating, "p", before)).toBe("user:password");
  expect(isEncryptedWithNewest(rotating, before)).toBe(false);
  const after = await encrypt(rotating, "p", "user:password", iv());
  expect(isEncryptedWithNewest(rotating, after)).toBe(true);
  expect(await decrypt([keyOf("b")], "p", after)).toBe("user:password");
  await expect(decrypt([keyOf("b")], "p", before)).rejects.toThrow(/needs a key/);
});

test("a secret with a changed character does not decrypt, and the error does not quote it", async () => {
  const encrypted = await encrypt([keyOf("a")], "p", "user:hunter2hunter2", iv());
  for (let at = 0; at < encrypted.length; at += 3) {
    const changed = encrypted.slice(0, at) + (encrypted[at] === "A" ? "B" : "A") + encrypted.slice(at + 1);
    // Some bits of the last base64 character have no meaning.
    const decrypted = await decrypt([keyOf("a")], "p", changed).catch((error: unknown) => String(error));
    if (decrypted !== "user:hunter2hunter2") expect(decrypted).not.toMatch(/hunter2/);
    else expect(at).toBe(encrypted.length - 1);
  }
});

test("a key ring keeps its order, because the first key signs and encrypts", () => {
  const keys = [
    { id: "new", secret: "n".repeat(32) },
    { id: "old", secret: "o".repeat(32) },
  ];
  expect(parseKeyRing("CONTEXT_KEYS", JSON.stringify(keys))).toEqual(keys);
});

test.each([
  ["an empty text", ""],
  ["no JSON", "top-secret-value"],
  ["no list", `{"id":"k1","secret":"top-secret-value-top-secret-value"}`],
  ["no key", "[]"],
  ["a short secret", `[{"id":"k1","secret":"top-secret-value"}]`],
  ["a key id with a dot", `[{"id":"k.1","secret":"top-secret-value-top-secret-value"}]`],
  ["two keys of one id", JSON.stringify([1, 2].map(() => ({ id: "k1", secret: "top-secret-value-top-secret-value" })))],
])("a malformed key ring (%s) is refused with the variable's name and without a value", (_, json) => {
  for (const variable of ["CONTEXT_KEYS", "ENCRYPTION_KEYS"] as const) {
    expect(() => parseKeyRing(variable, json)).toThrow(variable);
    expect(() => parseKeyRing(variable, json)).not.toThrow(/top-secret-value/);
  }
});

test("a connection string encodes every character of a login", () => {
  fc.assert(
    fc.property(
      fc.string({ minLength: 1 }).filter((user) => !user.includes(":")),
      fc.string(),
      (user, password) => {
        const url = new URL(connectionUrl({ host: "db.example:5433", database: "a b" }, `${user}:${password}`));
        expect([decodeURIComponent(url.username), decodeURIComponent(url.password)]).toEqual([user, password]);
        expect([url.host, decodeURIComponent(url.pathname)]).toEqual(["db.example:5433", "/a b"]);
      },
    ),
  );
});

test("each placement has its own name and purpose; placements on shared tables share one purpose", () => {
  expect(new Set([1, 2, 11, 12, 111].map(ownName)).size).toBe(5);
  expect(purposeOf({ id: 1, strategy: "shared", shardId: "s" })).toBe(
    purposeOf({ id: 2, strategy: "shared", shardId: "s" }),
  );
  expect(purposeOf({ id: 1, strategy: "schema", shardId: "s" })).not.toBe(
    purposeOf({ id: 2, strategy: "schema", shardId: "s" }),
  );
});
