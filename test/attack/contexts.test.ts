// Tests of contexts in the shared tier that need more than one statement: changed characters, expiry and retired keys.
import { DatabaseError } from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { prepareSharedShard } from "../../cli/migrations/prepare.ts";
import { acme, aContext, contextKeys, globex, type Shard, startShard } from "../support/shard.ts";
import { withoutWall } from "../support/walls.ts";

let shard: Shard;
beforeAll(async () => void (shard = await startShard()), 30_000);
afterAll(async () => shard[Symbol.asyncDispose]());
beforeEach(async () => shard.seed());

const INSUFFICIENT_PRIVILEGE = "42501";
const stateOf = (error: unknown) => (error instanceof DatabaseError ? error.code : String(error));
const keyOf = (id: string, secret: string) => ({ id, secret: secret.padEnd(32, ".") });

describe("a context is refused", () => {
  test("when any character was changed", async () => {
    const context = await aContext({ tenantId: globex });
    const outcomes = await Promise.all(
      Array.from({ length: 12 }, async (_, i) => {
        const at = Math.floor((i * context.length) / 12);
        const flipped = context.slice(0, at) + (context[at] === "0" ? "1" : "0") + context.slice(at + 1);
        return shard.plainly(shard.appUrl, flipped, "SELECT FROM products").then(() => "accepted", stateOf);
      }),
    );
    expect(new Set(outcomes)).toEqual(new Set([INSUFFICIENT_PRIVILEGE]));
  });

  test.each([
    "x",
    "....",
    "v1.k1.globex.shard_test.9999999999",
    "v1.k1.globex.shard_test.soon.00",
    "é".repeat(300),
    "a".repeat(100_000),
  ])("that is malformed, and the error does not repeat it: %.20s", async (context) => {
    const refused = shard.plainly(shard.appUrl, context, "SELECT id FROM products");
    await expect(refused).rejects.toMatchObject({ code: INSUFFICIENT_PRIVILEGE, message: "tenant context refused" });
  });

  test("when it is replayed after it has expired", async () => {
    const context = await aContext({ lifeMs: 2_900 });
    const read = () => shard.plainly(shard.appUrl, context, "SELECT id FROM products");
    expect(await read()).toEqual([{ id: "lamp" }]);
    await expect
      .poll(() => read().then(() => "accepted", stateOf), { timeout: 10_000, interval: 200 })
      .toBe(INSUFFICIENT_PRIVILEGE);
  });

  test("after its key is retired, and the change to a new key refuses no call", async () => {
    const [old] = contextKeys;
    const fresh = keyOf("k-next", "the next secret");
    const ids = (key: typeof old) => shard.db(acme, { keys: [key] }).query("SELECT id FROM products");
    const accept = (...keys: [typeof old, ...(typeof old)[]]) =>
      prepareSharedShard({ ownerUrl: shard.ownerUrl, logins: [], contextKeys: keys });
    await expect(ids(fresh)).rejects.toMatchObject({ sqlState: INSUFFICIENT_PRIVILEGE });
    await accept(fresh, old);
    expect(await Promise.all([ids(fresh), ids(old)])).toEqual([[{ id: "lamp" }], [{ id: "lamp" }]]);
    await accept(fresh);
    expect(await ids(fresh)).toEqual([{ id: "lamp" }]);
    await expect(ids(old)).rejects.toMatchObject({ sqlState: INSUFFICIENT_PRIVILEGE });
    await expect(accept({ ...fresh, secret: "another secret under the same id" })).rejects.toThrow(/k-next/);
    await accept(old);
  });
});

test("the owner of the tables sees no row without a context", async () => {
  const read = () => shard.plainly(shard.ownerUrl, undefined, "SELECT id FROM products");
  expect(await read()).toEqual([]);
  await withoutWall(shard, "row security forced on the owner", async () => {
    expect((await read()).length).toBeGreaterThan(0);
  });
});
