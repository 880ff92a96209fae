// What strangers can leave behind in the OAuth server's registry: a bounded number of registrations, which end by themselves.
import { expect, test } from "vitest";
import { DAY_MS } from "../../src/core/time.ts";
import { RegistryEntries } from "../../src/identity/oauth/entries.ts";
import { sqlitePort } from "../support/sqlite-port.ts";

const QUARTER_MS = 90 * DAY_MS;

function registry() {
  const clock = { nowMs: Date.UTC(2026, 10, 28) };
  const sql = sqlitePort();
  return { clock, sql, entries: new RegistryEntries(sql, () => clock.nowMs) };
}

test("a registration that no user has consented to ends after a day", () => {
  const { clock, entries } = registry();
  entries.put("client:a", { value: "a", expiresAtMs: clock.nowMs + QUARTER_MS });
  clock.nowMs += DAY_MS - 1;
  expect(entries.get("client:a")).toBe("a");
  clock.nowMs += 1;
  expect(entries.get("client:a")).toBeNull();
});

test("a registration that a user has consented to lives as long as the server says, and is renewed", () => {
  const { clock, entries } = registry();
  entries.put("client:a", { value: "a", expiresAtMs: clock.nowMs + QUARTER_MS });
  entries.extend("client:a", clock.nowMs + QUARTER_MS);
  clock.nowMs += QUARTER_MS - 1;
  entries.put("client:a", { value: "renewed", expiresAtMs: clock.nowMs + QUARTER_MS });
  clock.nowMs += QUARTER_MS - 1;
  expect(entries.get("client:a")).toBe("renewed");
  clock.nowMs += 1;
  expect(entries.get("client:a")).toBeNull();
  entries.extend("client:a", clock.nowMs + QUARTER_MS);
  expect(entries.get("client:a")).toBeNull();
});

test("a registration without an expiry stays, and handles keep theirs", () => {
  const { clock, entries } = registry();
  entries.put("client:operator", { value: "stays" });
  entries.put("transaction:a", { value: "a", expiresAtMs: clock.nowMs + 600_000 });
  entries.extend("client:operator", clock.nowMs + 1);
  entries.extend("transaction:a", clock.nowMs + 1);
  clock.nowMs += 599_999;
  expect(entries.get("transaction:a")).toBe("a");
  clock.nowMs += QUARTER_MS;
  expect(entries.get("transaction:a")).toBeNull();
  expect(entries.get("client:operator")).toBe("stays");
});

test("a full registry refuses new registrations, and still takes handles and renewals", () => {
  const { clock, sql, entries } = registry();
  entries.put("client:a", { value: "a", expiresAtMs: clock.nowMs + DAY_MS });
  sql.exec(
    `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)
     INSERT INTO oauth_entries (key, value, expires_at_ms) SELECT 'client:n' || i, 'v', ? FROM n`,
    clock.nowMs + DAY_MS,
  );
  expect(() => entries.put("client:b", { value: "b", expiresAtMs: clock.nowMs + DAY_MS })).toThrow("full");
  entries.put("client:a", { value: "renewed", expiresAtMs: clock.nowMs + DAY_MS });
  entries.put("transaction:a", { value: "a", expiresAtMs: clock.nowMs + 600_000 });
  expect(entries.get("client:a")).toBe("renewed");
  clock.nowMs += DAY_MS;
  let rounds = 1;
  while (entries.prune()) rounds += 1;
  expect(rounds).toBeGreaterThan(50);
  entries.put("client:b", { value: "b", expiresAtMs: clock.nowMs + DAY_MS });
});
