// Before a tool of a tenant with its own schema reaches its rows, Tollgate proves that the login is confined to the schema.
// Each test takes down one wall that the proof checks; the proof must name it. The test for shared tables is
// ../flow/isolation-proof.test.ts.
import { afterAll, describe, expect, test } from "vitest";
import { proveOwnSchema } from "../../src/tenant-db/isolation.ts";
import { acme } from "../support/shard.ts";
import type { WallName } from "../support/walls.ts";
import { startTiers } from "./tiers.ts";

const { tiers, cluster, ...ground } = await startTiers();
afterAll(() => ground[Symbol.asyncDispose]());

describe.each(["schema", "database"] as const)("the isolation proof of a login in the %s tier", (name) => {
  const tier = tiers[name];
  const prove = () =>
    proveOwnSchema({
      url: tier.url(acme),
      fetchEndpoint: cluster.fetchEndpoint,
      schema: tier.target.schema,
      tenantId: acme,
    });

  test("succeeds while all walls are up", async () => {
    expect(await prove()).toEqual({ proven: true, leftOpen: [] });
  });

  test.each(Object.keys(tier.walls) as WallName[])("fails and names the missing wall: %s", async (wall) => {
    await tier.without([wall], async () => {
      const proof = await prove();
      const failed = proof.proven ? [] : proof.failures.map((failure) => failure.check);
      const check = tier.walls[wall]?.check;
      if (check === undefined) expect(failed).toEqual([]);
      else expect(failed).toContain(check);
    });
    expect(await prove()).toMatchObject({ proven: true });
  });
});
