// The OAuth server's entries over a real SQLite: they behave as a map whose entries expire.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { MAX_VALUE_CHARS, OauthEntries } from "../../src/identity/oauth/entries.ts";
import { sqlitePort } from "../support/sqlite-port.ts";

interface Model {
  value: string;
  metadata: string | undefined;
  expiresAtMs: number | undefined;
}

const keys = ["grant:a:1", "grant:a:2", "grant:ab:1", "grant:a", "token:a:1:x", "token:a:1:y", "client:!", "client:~"];
const prefixes = ["", "grant:", "grant:a", "grant:a:", "token:a:1:", "client:", "none:"];

const command = fc.oneof(
  fc.record({
    does: fc.constant("put" as const),
    key: fc.constantFrom(...keys),
    value: fc.string(),
    metadata: fc.option(fc.string({ maxLength: 20 }), { nil: undefined }),
    lifeMs: fc.option(fc.integer({ min: 0, max: 50 }), { nil: undefined }),
  }),
  fc.record({ does: fc.constant("delete" as const), key: fc.constantFrom(...keys) }),
  fc.record({ does: fc.constant("deleteAll" as const), prefix: fc.constantFrom("grant:a:", "token:a:1:") }),
  fc.record({ does: fc.constant("get" as const), key: fc.constantFrom(...keys) }),
  fc.record({
    does: fc.constant("list" as const),
    prefix: fc.constantFrom(...prefixes),
    limit: fc.integer({ min: 1, max: 4 }),
  }),
  fc.record({ does: fc.constant("wait" as const), ms: fc.integer({ min: 1, max: 40 }) }),
);

test("entries behave as a map with expiry, for any sequence of operations", () => {
  fc.assert(
    fc.property(fc.array(command, { maxLength: 60 }), (commands) => {
      let nowMs = 1_000;
      const entries = new OauthEntries(sqlitePort(), () => nowMs);
      const model = new Map<string, Model>();
      const alive = (key: string): Model | undefined => {
        const entry = model.get(key);
        return entry === undefined || (entry.expiresAtMs ?? Infinity) <= nowMs ? undefined : entry;
      };
      for (const each of commands) {
        if (each.does === "wait") nowMs += each.ms;
        else if (each.does === "put") {
          const expiresAtMs = each.lifeMs === undefined ? undefined : nowMs + each.lifeMs;
          entries.put(each.key, { value: each.value, metadata: each.metadata, expiresAtMs });
          model.set(each.key, { value: each.value, metadata: each.metadata, expiresAtMs });
        } else if (each.does === "delete") {
          entries.delete(each.key);
          model.delete(each.key);
        } else if (each.does === "deleteAll") {
          entries.deleteAll(each.prefix);
          for (const key of keys) if (key.startsWith(each.prefix)) model.delete(key);
        } else if (each.does === "get") {
          expect(entries.get(each.key)).toBe(alive(each.key)?.value ?? null);
        } else {
          const listed: { name: string; metadata?: string }[] = [];
          let cursor: string | undefined;
          do {
            const page = entries.list(each.prefix, { limit: each.limit, cursor });
            expect(page.keys.length).toBeLessThanOrEqual(each.limit);
            listed.push(...page.keys);
            ({ cursor } = page);
          } while (cursor !== undefined);
          const expected = keys
            .filter((key) => key.startsWith(each.prefix) && alive(key) !== undefined)
            .toSorted()
            .map((name) => {
              const metadata = alive(name)?.metadata;
              return metadata === undefined ? { name } : { name, metadata };
            });
          expect(listed).toEqual(expected);
        }
      }
    }),
    { numRuns: 300 },
  );
});

test("an object that was only asked has stored nothing", () => {
  const sql = sqlitePort();
  const entries = new OauthEntries(sql, () => 0);
  entries.get("client:a");
  entries.delete("client:a");
  entries.deleteAll("grant:a:");
  entries.list("grant:a:", { limit: 10 });
  entries.prune(10);
  expect(entries.count()).toBe(0);
  expect(sql.exec(`SELECT name FROM sqlite_master`).toArray()).toEqual([]);
});

test("a write deletes a bounded number of expired entries, and more than it adds", () => {
  let nowMs = 0;
  const entries = new OauthEntries(sqlitePort(), () => nowMs);
  for (let number = 0; number < 100; number += 1) entries.put(`transaction:${number}`, { value: "v", expiresAtMs: 10 });
  nowMs = 10;
  entries.put("client:a", { value: "v" });
  expect(entries.count()).toBe(81);
  for (let number = 0; number < 4; number += 1) entries.put("client:a", { value: "v" });
  expect(entries.count()).toBe(1);
});

test("a value, metadata or key over its bound is refused", () => {
  const entries = new OauthEntries(sqlitePort(), () => 0);
  entries.put("client:a", { value: "v".repeat(MAX_VALUE_CHARS), metadata: "m".repeat(1_024) });
  expect(() => entries.put("client:a", { value: "v".repeat(MAX_VALUE_CHARS + 1) })).toThrow(RangeError);
  expect(() => entries.put("client:a", { value: "v", metadata: "m".repeat(1_025) })).toThrow(RangeError);
  expect(() => entries.put("client:ü", { value: "v" })).toThrow(RangeError);
  expect(() => entries.put("k".repeat(513), { value: "v" })).toThrow(RangeError);
});

test("an emptied object stores again", () => {
  const sql = sqlitePort();
  const entries = new OauthEntries(sql, () => 0);
  entries.put("client:a", { value: "1" });
  sql.exec(`DROP TABLE oauth_entries`);
  entries.forget();
  expect(entries.get("client:a")).toBeNull();
  entries.put("client:a", { value: "2" });
  expect(entries.get("client:a")).toBe("2");
});
