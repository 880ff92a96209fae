// The header `Idempotency-Key`: its forms, and the comparison of bodies.
import * as fc from "fast-check";
import { Hono } from "hono";
import { expect, test } from "vitest";
import * as z from "zod";
import { type Actor, anonymous } from "../../src/core/actor.ts";
import type { TenantId } from "../../src/core/tenant/tenant.ts";
import type { Context } from "../../src/control/context.ts";
import { AppError } from "../../src/core/errors.ts";
import { type HttpContext, type HttpEnv, isJson, readJson, route } from "../../src/http.ts";
import { canonicalJson, holderOf, idempotencyKeyOf, once } from "../../src/identity/idempotency.ts";

test.each([
  ['"8e03978e-40d5-43e8-bc93-6894a57f9324"', "8e03978e-40d5-43e8-bc93-6894a57f9324"],
  ["8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"],
  [' "a key of words" ', "a key of words"],
  ["k", "k"],
  ["", undefined],
  ['""', undefined],
  ["two words", undefined],
  ['"half', undefined],
  ["schlüssel", undefined],
  ["a".repeat(256), undefined],
])("the header %j has the key %j", (header, key) => {
  expect(idempotencyKeyOf(header, { isPublic: false })).toBe(key);
});

test("a public route takes no key that another buyer is likely to choose", () => {
  expect(idempotencyKeyOf("1234567", { isPublic: true })).toBeUndefined();
  expect(idempotencyKeyOf("12345678", { isPublic: true })).toBe("12345678");
});

test("bodies with other values differ, and the order of fields does not count", () => {
  const shuffled = (value: unknown): unknown =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.fromEntries(
          Object.entries(value)
            .toReversed()
            .map(([name, each]) => [name, shuffled(each)]),
        )
      : value;
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.jsonValue(), (body, other) => {
      expect(canonicalJson(shuffled(body))).toBe(canonicalJson(body));
      const isSame = JSON.stringify(body) === JSON.stringify(other);
      if (isSame) expect(canonicalJson(other)).toBe(canonicalJson(body));
      expect(canonicalJson({ ...body, name: "a" })).not.toBe(canonicalJson({ ...body, name: "b" }));
    }),
  );
});

/** Requests of a route with `once`, over a table of claims in memory. `runs` counts the handler's runs. */
function aRoute() {
  const claims = new Map<string, Record<string, unknown>>();
  const batch = async (statements: readonly { text: string; params?: readonly unknown[] }[]) =>
    statements.map(({ text, params: [scope, key, fingerprint, seed, token] = [] }) => {
      if (!text.includes("INSERT INTO idempotent_requests")) return [];
      const id = JSON.stringify([scope, key]);
      const kept = claims.get(id);
      const row = kept ?? { scope, key, fingerprint, seed, token, atMs: 0, answer: null, isRepeat: false };
      claims.set(id, row);
      return [{ ...row, isOurs: row["token"] === token }];
    });
  const query = async (text: string, [scope, key, , answer]: readonly unknown[]) => {
    const claim = claims.get(JSON.stringify([scope, key]));
    if (text.includes("SET answer") && claim !== undefined) claim["answer"] = answer;
    return [];
  };
  const env = {
    PUBLIC_URL: "http://127.0.0.1",
    ENCRYPTION_KEYS: JSON.stringify([{ id: "a", secret: "0".repeat(64) }]),
  };
  let runs = 0;
  const app = new Hono<HttpEnv>();
  const { run } = route(
    "POST /things",
    "operator",
    once(async (c: HttpContext, { query: asked }: { query: unknown }) => {
      runs += 1;
      return c.json({ run: runs, asked, body: isJson(c) ? await readJson(c, z.unknown()) : null }, 202);
    }),
    { role: "admin", query: z.object({ overwrite: z.string().optional() }), takesFile: true },
  );
  app.post("/things", (c) => {
    c.set("context", { env, control: { batch, query } } as unknown as Context);
    c.set("actor", senders[c.req.header("x-sender") ?? ""] ?? anonymous);
    return run(c);
  });
  app.onError((error) => new Response(error instanceof AppError ? error.code : String(error), { status: 400 }));
  return async (path: string, key: string, type: string, body: string, sender = ""): Promise<string> => {
    const sent = { "idempotency-key": key, "content-type": type, "content-length": String(body.length) };
    const headers = { ...sent, "x-sender": sender };
    return (await app.request(path, { method: "POST", headers, body }, env)).text();
  };
}

test("a request whose body its handler reads runs once for each key, and another input with the key is refused", async () => {
  const send = aRoute();
  const first = await send("/things", "one", "application/json", '{"from":"a"}');
  expect(JSON.parse(first)).toEqual({ run: 1, asked: {}, body: { from: "a" } });
  expect(await send("/things", "one", "application/json", '{"from":"a"}')).toBe(first);
  expect(await send("/things", "one", "application/json", '{"from":"b"}')).toBe("idempotency_key_mismatch");
  expect(await send("/things?overwrite=true", "one", "application/json", '{"from":"a"}')).toBe(
    "idempotency_key_mismatch",
  );
  expect(JSON.parse(await send("/things", "two", "application/json", '{"from":"a"}'))).toMatchObject({ run: 2 });

  const file = await send("/things", "three", "application/x-ndjson", "line");
  expect(JSON.parse(file)).toEqual({ run: 3, asked: {}, body: null });
  expect(await send("/things", "three", "application/x-ndjson", "line")).toBe(file);
  expect(await send("/things", "three", "application/x-ndjson", "longer line")).toBe("idempotency_key_mismatch");
});

const tenantId = "acme" as TenantId;
/** Each differs from the others by one thing. */
const senders: Readonly<Record<string, Actor>> = {
  key: { kind: "key", tenantId, id: "1" },
  "another key": { kind: "key", tenantId, id: "2" },
  member: { kind: "member", tenantId, id: "1", role: "owner", through: "issuer" },
  "another member": { kind: "member", tenantId, id: "2", role: "owner", through: "issuer" },
  buyer: { kind: "buyer", tenantId },
  operator: { kind: "operator", id: "1", name: "A", role: "admin", through: "oidc" },
  person: { kind: "person", issuer: "https://a.example", subject: "1" },
  "another person": { kind: "person", issuer: "https://a.example", subject: "2" },
  anonymous,
};

test("an answer is kept for its sender alone, whose session and token are one", async () => {
  const send = aRoute();
  const answers = new Set<string>();
  for (const sender of Object.keys(senders)) {
    const answer = await send("/things", "one", "application/json", "{}", sender);
    expect(await send("/things", "one", "application/json", "{}", sender), sender).toBe(answer);
    answers.add(answer);
  }
  expect(answers.size).toBe(Object.keys(senders).length);
  const member: Actor = { kind: "member", tenantId, id: "1", role: "owner", through: "session" };
  expect(holderOf(member)).toBe(holderOf(senders["member"] ?? anonymous));
});
