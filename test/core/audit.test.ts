// The rules of the audit log: what is recorded of whom, and that no change of a chain stays unseen.
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Actor } from "../../src/core/actor.ts";
import type { TenantId } from "../../src/core/tenant/tenant.ts";
import {
  type AuditRow,
  type Place,
  actorFields,
  asTenantSees,
  auditOutcomes,
  canonicalText,
  detailOfAnswer,
  hashOf,
  outcomeOf,
  recordingOf,
  targetOf,
  verifyRows,
} from "../../src/identity/audit/audit.ts";

const acme = "acme" as TenantId;
const start: Place = { position: 0, hash: "" };

const Text = fc.oneof(fc.constant(null), fc.string({ unit: "grapheme", maxLength: 20 }));
const anEvent = fc.record({
  tenantId: fc.constantFrom(null, "acme"),
  id: fc.uuid(),
  atMs: fc.integer({ min: 0, max: 4_000_000_000_000 }),
  recordedAtMs: fc.integer({ min: 0, max: 4_000_000_000_000 }),
  actorKind: fc.constantFrom("operator", "key", "member", "anonymous"),
  actorId: Text,
  actorName: Text,
  onBehalfOf: Text,
  action: fc.string({ minLength: 1, maxLength: 20 }),
  target: Text,
  outcome: fc.constantFrom(...auditOutcomes),
  status: fc.oneof(fc.constant(null), fc.integer({ min: 200, max: 599 })),
  code: Text,
  requestId: Text,
  address: Text,
  detail: fc.dictionary(fc.stringMatching(/^[a-z]{1,8}$/), fc.oneof(fc.string(), fc.integer(), fc.boolean()), {
    maxKeys: 4,
  }),
});

type Event = typeof anEvent extends fc.Arbitrary<infer Of> ? Of : never;

async function chainOf(events: readonly Event[]): Promise<AuditRow[]> {
  const rows: AuditRow[] = [];
  for (const [index, event] of events.entries()) {
    const row = { ...event, seq: index + 7, position: index + 1, previousHash: rows.at(-1)?.hash ?? "" };
    rows.push({ ...row, hash: await hashOf(row) });
  }
  return rows;
}

const aChain = fc.array(anEvent, { minLength: 3, maxLength: 8 });

test("a chain as it was written is right, from its start and from each place in it", async () => {
  await fc.assert(
    fc.asyncProperty(aChain, async (events) => {
      const rows = await chainOf(events);
      expect(await verifyRows(rows, start)).toEqual({ end: { position: rows.length, hash: rows.at(-1)?.hash } });
      for (const [index, { position, hash }] of rows.entries())
        expect(await verifyRows(rows.slice(index + 1), { position, hash })).not.toHaveProperty("broken");
    }),
    { numRuns: 50 },
  );
});

test("an edit of any field is found at its row, also when the row's own hash is computed anew", async () => {
  const fields = [
    "tenantId",
    "id",
    "atMs",
    "recordedAtMs",
    "actorKind",
    "actorId",
    "actorName",
    "onBehalfOf",
    "action",
  ] as const;
  const more = ["target", "outcome", "status", "code", "requestId", "address", "detail"] as const;
  const others: Readonly<Record<string, unknown>> = {
    atMs: 1.5,
    recordedAtMs: -1,
    status: 1,
    detail: { edited: true },
  };
  await fc.assert(
    fc.asyncProperty(
      aChain,
      fc.nat(),
      fc.constantFrom(...fields, ...more),
      fc.boolean(),
      async (events, at, name, rehash) => {
        const rows = await chainOf(events);
        const index = at % rows.length;
        const edited = {
          ...rows[index],
          [name]: others[name] ?? `${JSON.stringify(rows[index]?.[name])} edited`,
        } as AuditRow;
        const hash = rehash ? await hashOf(edited) : edited.hash;
        const isLast = index === rows.length - 1;
        const changed = rows.with(index, { ...edited, hash });
        const { broken, end } = await verifyRows(changed, start);
        if (!rehash) expect(broken).toEqual({ position: index + 1, by: "content" });
        else if (!isLast) expect(broken).toEqual({ position: index + 2, by: "link" });
        // The last row: the end of the chain is stored apart, and it differs.
        else expect(end.hash).not.toBe(rows.at(-1)?.hash);
      },
    ),
    { numRuns: 150 },
  );
});

test("a removed row, an inserted row and two rows that changed places are found at the first wrong position", async () => {
  await fc.assert(
    fc.asyncProperty(aChain, fc.nat(), fc.nat(), fc.boolean(), async (events, one, two, renumbers) => {
      const rows = await chainOf(events);
      const index = one % (rows.length - 1);
      const renumbered = (all: AuditRow[]): AuditRow[] =>
        renumbers ? all.map((row, place) => ({ ...row, position: place + 1 })) : all;
      const removed = renumbered(rows.toSpliced(index, 1));
      expect((await verifyRows(removed, start)).broken).toEqual({
        position: index + 1,
        by: renumbers ? "link" : "missing",
      });
      const again = rows[index];
      if (again === undefined) return;
      const inserted = renumbered(rows.toSpliced(index + 1, 0, again));
      expect((await verifyRows(inserted, start)).broken).toEqual({
        position: index + 2,
        by: renumbers ? "link" : "order",
      });
      const other = two % rows.length;
      const first = Math.min(index, other);
      const [a, b] = [rows[index], rows[other]];
      if (a === undefined || b === undefined || index === other) return;
      const swapped = renumbered(rows.with(index, b).with(other, a));
      expect((await verifyRows(swapped, start)).broken?.position).toBe(first + 1);
    }),
    { numRuns: 150 },
  );
});

test("a chain that was written anew from any row on is found by a place that was verified before", async () => {
  await fc.assert(
    fc.asyncProperty(aChain, fc.nat(), async (events, at) => {
      const rows = await chainOf(events);
      const index = at % rows.length;
      const known = rows.at(-1) as AuditRow;
      const forged = await chainOf(
        events.map((event, place) => (place === index ? { ...event, action: "other" } : event)),
      );
      if (forged.at(-1)?.hash === known.hash) return;
      expect((await verifyRows(forged, start, known)).broken).toEqual({ position: rows.length, by: "rewritten" });
    }),
    { numRuns: 50 },
  );
});

test("no two different rows have the same canonical text", async () => {
  const row = (await chainOf([fc.sample(anEvent, 1)[0] as Event]))[0] as AuditRow;
  const texts = new Set(
    [
      { actorId: "a", actorName: "b" },
      { actorId: "ab", actorName: "" },
      { actorId: "a,1:b", actorName: "" },
      { actorId: "ab", actorName: null },
      { actorId: "-", actorName: null },
      { actorId: null, actorName: "-" },
      { detail: { a: 1 } },
      { detail: { a: "1" } },
      { detail: { a: true } },
      { detail: { a: "true" } },
      { detail: {} },
      { detail: { a: "1", b: "2" } },
      { detail: { a: "1,1:b,6:string,1:2" } },
    ].map((fields) => canonicalText({ ...row, actorId: "x", actorName: "x", detail: { z: 1 }, ...fields })),
  );
  expect(texts.size).toBe(13);
  const order = canonicalText({ ...row, detail: { b: 1, a: 2 } });
  expect(canonicalText({ ...row, detail: { a: 2, b: 1 } })).toBe(order);
});

test("the hash of a row does not change from one version to the next", async () => {
  const row = {
    ...{ tenantId: "acme", position: 2, id: "r1", atMs: 1_795_000_000_000, recordedAtMs: 1_795_000_000_123 },
    ...{ actorKind: "operator", actorId: "o", actorName: "Ünï", onBehalfOf: null, action: "suspendTenant" },
    ...{
      target: "acme",
      outcome: "succeeded" as const,
      status: 200,
      code: null,
      requestId: "r1",
      address: "192.0.2.1",
    },
    ...{ detail: { role: "admin", n: 3, on: true }, previousHash: "00" },
  };
  expect(canonicalText(row)).toBe(
    "tollgate-audit-1,4:acme,1:2,2:r1,13:1795000000000,13:1795000000123,8:operator,1:o,5:Ünï,-,13:suspendTenant,4:acme," +
      "9:succeeded,3:200,-,2:r1,9:192.0.2.1,63:1:n,6:number,1:3,2:on,7:boolean,4:true,4:role,6:string,5:admin,,2:00,",
  );
});

test.each<[Actor, Record<string, unknown>]>([
  [
    { kind: "operator", id: "o1", name: "Ann", role: "support", through: "oidc" },
    { actorKind: "operator", actorId: "o1", actorName: "Ann", detail: { role: "support", through: "oidc" } },
  ],
  [
    { kind: "impersonator", tenantId: acme, id: "i1", operator: { id: "o1", name: "Ann" }, reason: "ticket 7" },
    {
      ...{ actorKind: "impersonator", actorId: "o1", actorName: "Ann", onBehalfOf: "acme" },
      detail: { impersonation: "i1", reason: "ticket 7" },
    },
  ],
  [
    { kind: "member", tenantId: acme, id: "m1", role: "admin", through: "session" },
    { actorKind: "member", actorId: "m1", actorName: null, detail: { role: "admin", through: "session" } },
  ],
  [
    { kind: "key", tenantId: acme, id: "k1" },
    { actorKind: "key", actorId: "k1", actorName: null, detail: {} },
  ],
  [
    { kind: "buyer", tenantId: acme },
    { actorKind: "buyer", actorId: null },
  ],
  // The subject may be a name or an address. 24 digits of a digest stand for it.
  [
    { kind: "person", issuer: "https://login.example", subject: "ada@acme.example" },
    {
      ...{ actorKind: "person", actorId: expect.stringMatching(/^p_[0-9a-f]{24}$/), actorName: null },
      detail: { issuer: "https://login.example" },
    },
  ],
  [{ kind: "stripe" }, { actorKind: "stripe", actorId: null }],
])("the fields of an actor: %o", (actor, fields) => {
  expect(actorFields(actor)).toMatchObject(fields);
});

test("reads are not recorded, unless a tenant's data leave; strangers are recorded for what they change", () => {
  const of = (method: "GET" | "POST", access: Parameters<typeof recordingOf>[0]["access"], isDownload?: boolean) =>
    recordingOf({ method, access, ...(isDownload !== undefined && { isDownload }) });
  expect([of("GET", "operator"), of("GET", "tenant_admin"), of("GET", "public")]).toEqual(["never", "never", "never"]);
  expect([of("GET", "operator", true), of("POST", "operator"), of("POST", "buyer")]).toEqual([
    "always",
    "always",
    "always",
  ]);
  expect([of("POST", "public"), of("POST", "stripe"), of("POST", "mcp")]).toEqual(["changes", "changes", "never"]);
});

test.each([
  [200, "succeeded"],
  [202, "succeeded"],
  [302, "succeeded"],
  [400, "refused"],
  [409, "refused"],
  [500, "failed"],
  [503, "failed"],
] as const)("a request that is answered with %i has %s", (status, outcome) => {
  expect(outcomeOf(status)).toBe(outcome);
});

test("a target is an id of the path or of the answer, and never a text that may be a secret", () => {
  const target = (params: Record<string, string>, succeeded: boolean, answer?: unknown, isOwnTenant = false) =>
    targetOf({ params, succeeded, answer, isOwnTenant });
  expect(target({ tenantId: "acme", keyId: "Ab12Cd34Ef56" }, true)).toBe("Ab12Cd34Ef56");
  expect(target({ tenantId: "acme", keyId: "Ab12Cd34Ef56" }, false)).toBe("Ab12Cd34Ef56");
  expect(target({ tenantId: "acme", name: "acme-2026-11-28T00-00-00Z-point.ndjson" }, true)).toContain("point.ndjson");
  expect(target({ tenantId: "acme" }, true, { id: "k1", apiKey: "tgk_acme.k1.c.s.mac" })).toBe("k1");
  expect(target({ tenantId: "acme" }, true, { id: 12 })).toBe("12");
  expect(target({ tenantId: "acme" }, true, { url: "https://pay.example/x?secret=1" })).toBe("acme");
  expect(target({}, true, { tenantId: "t1", setupToken: "tgs_t1.1.mac" })).toBe("t1");
  // The tenant may not exist, and the text may be anything.
  expect(target({ tenantId: "acme" }, false)).toBe(null);
  expect(target({ tenantId: "acme" }, false, undefined, true)).toBe("acme");
  const secrets = [
    ...["tgk_acme.k1.c.s.mac", "op_0123", "sk_live_abc", "whsec_x", "eyJhbGciOi", "0123456789abcdef0123456789abcdef"],
    ...["a b", "a/b", "ключ"],
  ];
  for (const secret of secrets) {
    expect(target({ tenantId: "acme", keyId: secret }, false), secret).toBe(null);
    expect(target({ tenantId: "acme" }, true, { id: secret }) === "acme" || secret.length === 32, secret).toBe(true);
  }
});

test("an answer tells words of a fixed list and numbers of things, and nothing else", () => {
  const answer = {
    ...{ plan: "pro", state: "active", phase: "closing", name: "Acme", email: "a@b.example", apiKey: "tgk_x" },
    ...{ dismissed: ["a", "b"], acknowledged: 3, tenantId: "other", limits: { units: 1 }, kind: "With Capitals" },
  };
  expect(detailOfAnswer(answer, "acme")).toEqual({
    ...{ plan: "pro", state: "active", phase: "closing", dismissed: 2, acknowledged: 3, tenant: "other" },
  });
  for (const nothing of [undefined, null, "text", 3, [], { tenantId: "acme" }])
    expect(detailOfAnswer(nothing, "acme")).toEqual({});
});

test("a tenant sees that the operator acted, not who from where, and its own people as they are", async () => {
  const [row] = await chainOf([fc.sample(anEvent, 1)[0] as Event]);
  if (row === undefined) throw new Error("no row");
  const who = { actorId: "o1", actorName: "Ann", address: "192.0.2.1" };
  for (const actorKind of ["operator", "impersonator"])
    expect(asTenantSees({ ...row, ...who, actorKind })).toEqual({
      ...{ ...row, actorKind, actorId: null, actorName: null, address: null },
    });
  expect(asTenantSees({ ...row, ...who, actorKind: "key" })).toEqual({ ...row, ...who, actorKind: "key" });
});
