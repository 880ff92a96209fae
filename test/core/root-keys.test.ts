// The root keys of CREDENTIAL_KEY: both forms of the setting, and what a rotation ends.
import { expect, test } from "vitest";
import { type Credential, mintCredential, verifyCredential } from "../../src/core/keys/credentials.ts";
import { keysWithoutRoot, newestRootKey, rootKeysOf, usedRootKeys } from "../../src/core/keys/root-keys.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";

const old = "an old root key of more than thirty-two characters";
const young = "a new root key of more than thirty-two characters";
const tenantId = TenantId.parse("acme");
const apiKey: Credential = { kind: "key", tenantId, fields: ["k1", "cmVhZA", "secret"] };
const setup: Credential = { kind: "setup", tenantId, fields: ["1800000000000"] };

const json = (...keys: Record<string, string>[]): string => JSON.stringify(keys);

test("the first root key makes credentials, and a credential names it", async () => {
  const setting = json({ id: "2027", secret: young }, { id: "2026", secret: old });
  expect((await newestRootKey(setting)).id).toBe("2027");
  expect(await mintCredential(setting, apiKey)).toContain(".2027.");
  expect((await newestRootKey(`${young}, ${old}`)).id).toMatch(/^r[0-9a-f]{8}$/);
  await expect(newestRootKey(" , ")).rejects.toThrow("empty");
});

test.each([
  ["both verify all", json({ id: "2027", secret: young }, { id: "2026", secret: old }), true, true],
  [
    "the old one verifies API keys only",
    json({ id: "2027", secret: young }, { id: "2026", secret: old, verifies: "stored" }),
    true,
    false,
  ],
  ["the old one is gone", json({ id: "2027", secret: young }), false, false],
  ["its id has another secret", json({ id: "2027", secret: young }, { id: "2026", secret: `${old}!` }), false, false],
  ["its id is another one", json({ id: "2027", secret: young }, { id: "2025", secret: old }), false, false],
])("what an old root key made, when %s", async (_, setting, keyWorks, setupWorks) => {
  const before = json({ id: "2026", secret: old });
  const works = async (credential: Credential): Promise<boolean> =>
    (await verifyCredential(setting, await mintCredential(before, credential))) !== undefined;
  expect([await works(apiKey), await works(setup)]).toEqual([keyWorks, setupWorks]);
  expect(await verifyCredential(setting, await mintCredential(setting, setup))).toEqual(setup);
});

test("a change from the plain form to JSON ends no credential", async () => {
  const token = await mintCredential(`${young},${old}`, apiKey);
  expect(await verifyCredential(json({ id: "2027", secret: young }), token)).toEqual(apiKey);
  expect(await verifyCredential(json({ id: "2027", secret: old }), token)).toBeUndefined();
});

test("a secret under an id that it does not have verifies nothing of the other one", async () => {
  const setting = json({ id: "a", secret: young }, { id: "b", secret: old });
  const swapped = json({ id: "b", secret: young }, { id: "a", secret: old });
  expect(await verifyCredential(swapped, await mintCredential(setting, apiKey))).toBeUndefined();
});

test.each([
  ["no JSON", "[{"],
  ["no list of objects", `["${old}"]`],
  ["an empty list", "[]"],
  ["a short secret", json({ id: "a", secret: "short" })],
  ["an id with a dot", json({ id: "a.b", secret: old })],
  ["one id twice", json({ id: "a", secret: old }, { id: "a", secret: young })],
  ["an unknown field", json({ id: "a", secret: old, keysOnly: "true" })],
  ["a first key that verifies API keys only", json({ id: "a", secret: old, verifies: "stored" })],
])("a setting with %s is refused, and the message quotes no secret", async (_, setting) => {
  const error: unknown = await rootKeysOf(setting).catch((thrown: unknown) => thrown);
  expect(String(error)).toContain("CREDENTIAL_KEY");
  for (const secret of [old, young, "short"]) expect(String(error)).not.toContain(secret);
});

test("live API keys whose root key is missing are counted, by root key, under either spelling of its id", async () => {
  const [plainId = ""] = (await rootKeysOf(old)).keys.map(({ id }) => id);
  const uses = [
    { rootKey: "2027", keys: 3, tenants: 2 },
    { rootKey: "2026", keys: 5, tenants: 4 },
    { rootKey: plainId, keys: 7, tenants: 1 },
  ];
  const both = usedRootKeys(await rootKeysOf(json({ id: "2027", secret: young }, { id: "2026", secret: old })), uses);
  expect(both.map(({ id, apiKeys, verifies }) => [id, apiKeys, verifies])).toEqual([
    ["2027", 3, "all"],
    ["2026", 12, "all"],
  ]);
  expect(keysWithoutRoot(both)).toBe(0);
  const one = usedRootKeys(await rootKeysOf(json({ id: "2027", secret: young })), uses);
  expect(one.map(({ id, apiKeys, verifies }) => [id, apiKeys, verifies])).toEqual([
    ["2027", 3, "all"],
    ["2026", 5, "nothing"],
    [plainId, 7, "nothing"],
  ]);
  expect(keysWithoutRoot(one)).toBe(12);
});
