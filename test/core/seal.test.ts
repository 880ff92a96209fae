// Sealed logins: what opens them, and what does not.
import fc from "fast-check";
import { expect, test } from "vitest";
import { connectionUrl, ownName, purposeOf } from "../../src/core/placement.ts";
import { SEAL_IV_BYTES, parseSealKeys, seal, sealedWithNewest, unseal } from "../../src/core/encryption.ts";

const keyOf = (id: string) => ({ id, secret: id.padEnd(32, ".") });
const iv = () => crypto.getRandomValues(new Uint8Array(SEAL_IV_BYTES));

test("what is sealed opens for its purpose, whatever it is, and shows nothing of itself", async () => {
  await fc.assert(
    fc.asyncProperty(fc.string({ unit: "grapheme" }), fc.string(), async (secret, purpose) => {
      const sealed = await seal([keyOf("a")], purpose, secret, iv());
      expect(await unseal([keyOf("a")], purpose, sealed)).toBe(secret);
      if (secret.length > 8) expect(sealed).not.toContain(secret);
      await expect(unseal([keyOf("a")], `${purpose}.`, sealed)).rejects.toThrow(/does not open/);
    }),
  );
});

test("keys rotate: the newest seals, the ones before still open, a retired one does not", async () => {
  const before = await seal([keyOf("a")], "p", "user:password", iv());
  const rotating = [keyOf("b"), keyOf("a")];
  expect(await unseal(rotating, "p", before)).toBe("user:password");
  expect(sealedWithNewest(rotating, before)).toBe(false);
  const after = await seal(rotating, "p", "user:password", iv());
  expect(sealedWithNewest(rotating, after)).toBe(true);
  expect(await unseal([keyOf("b")], "p", after)).toBe("user:password");
  await expect(unseal([keyOf("b")], "p", before)).rejects.toThrow(/needs a key/);
});

test("a changed character anywhere keeps it shut, and the error quotes nothing", async () => {
  const sealed = await seal([keyOf("a")], "p", "user:hunter2hunter2", iv());
  for (let at = 0; at < sealed.length; at += 3) {
    const changed = sealed.slice(0, at) + (sealed[at] === "A" ? "B" : "A") + sealed.slice(at + 1);
    // The last character of base64 may carry bits that mean nothing.
    const opened = await unseal([keyOf("a")], "p", changed).catch((error: unknown) => String(error));
    if (opened !== "user:hunter2hunter2") expect(opened).not.toMatch(/hunter2/);
    else expect(at).toBe(sealed.length - 1);
  }
});

test.each(["", "[]", '[{"id":"a","secret":"short"}]', "not json with s3cret"])(
  "keys that cannot be used are refused without being quoted: %s",
  (json) => {
    expect(() => parseSealKeys(json)).toThrow(/SEAL_KEYS/);
    expect(() => parseSealKeys(json)).not.toThrow(/s3cret|short/);
  },
);

test("a connection string keeps every character of a login apart", () => {
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

test("placements have names and seals of their own, shared tables one seal for all", () => {
  expect(new Set([1, 2, 11, 12, 111].map(ownName)).size).toBe(5);
  expect(purposeOf({ id: 1, strategy: "shared", shardId: "s" })).toBe(
    purposeOf({ id: 2, strategy: "shared", shardId: "s" }),
  );
  expect(purposeOf({ id: 1, strategy: "schema", shardId: "s" })).not.toBe(
    purposeOf({ id: 2, strategy: "schema", shardId: "s" }),
  );
});
