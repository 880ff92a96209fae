// At start-up and in /health the program proves that its own login is kept within one tenant. Each protection that the proof
// checks is removed once, and the proof must name it.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { proveIsolation } from "../../src/tenant-db/isolation.ts";
import { contextKeys, type Shard, startShard } from "../support/shard.ts";
import { wallNames, withoutWall } from "../support/walls.ts";

let shard: Shard;
beforeAll(async () => void (shard = await startShard()), 30_000);
afterAll(async () => shard[Symbol.asyncDispose]());
beforeEach(async () => shard.seed());

describe("the program's proof of isolation", () => {
  const prove = (url = shard.appUrl) =>
    proveIsolation({ url, fetchEndpoint: shard.fetchEndpoint, contextKeys, now: Date.now });

  test("holds for both logins, in one round trip's time and at most six requests", async () => {
    shard.proxy.resetStats();
    expect(await prove()).toEqual({ proven: true, leftOpen: [] });
    expect(shard.proxy.stats().httpBatches).toBe(6);
    expect(await prove(shard.urlOf("tollgate_app_b"))).toEqual({ proven: true, leftOpen: [] });
  });

  test.each(wallNames)("fails and names the missing protection: %s", async (name) => {
    await withoutWall(shard, name, async (check) => {
      const proof = await prove();
      const failed = proof.proven ? [] : proof.failures.map((failure) => failure.check);
      if (check === undefined) expect(failed).toEqual([]);
      else expect(failed).toContain(check);
    });
    expect(await prove()).toMatchObject({ proven: true });
  });

  test("leaves nothing behind where creating was possible", async () => {
    const objects = () => shard.superuser("SELECT relname FROM pg_class WHERE relname = 'tollgate_proof'");
    await withoutWall(shard, "no durable objects", () => prove());
    expect(await objects()).toEqual([]);
  });

  test("fails for the owner's login, and for keys that the database does not know", async () => {
    expect(await prove(shard.ownerUrl)).toMatchObject({ proven: false });
    const unknown = [{ id: "unknown", secret: "a secret that was never installed" }] as const;
    expect(
      await proveIsolation({
        url: shard.appUrl,
        fetchEndpoint: shard.fetchEndpoint,
        contextKeys: unknown,
        now: Date.now,
      }),
    ).toEqual({ proven: false, failures: [{ check: "readable", detail: "ended with SQLSTATE 42501" }] });
  });

  test("is inconclusive while the database is away", async () => {
    await expect(prove(shard.appUrl.replace(":tollgate_app_a@", ":wrong@"))).rejects.toMatchObject({
      code: "database_unavailable",
    });
  });

  test("holds on a host that does not allow revoking functions, and lists the open ones", async () => {
    await shard.createDatabase("shard_hosted", false);
    const proof = await prove(shard.urlOf("tollgate_app_a", "shard_hosted"));
    expect(proof).toEqual({
      proven: true,
      leftOpen: expect.arrayContaining(["lo_create(oid)", "pg_sleep(double precision)"]),
    });
  });
});
