// Values that PostgreSQL would change silently are refused. What it writes itself is never refused.
import { expect, test } from "vitest";
import { howToWrite, inexactValue } from "../../src/backups/file/exact-value.ts";

test.each([
  ["real", "16777217"],
  ["real", "0.1234567891"],
  ["double precision", "9007199254740993"],
  ["double precision", "0.1000000000000000055511151231257827"],
  ["numeric(6,2)", "1.005"],
  ["numeric(6,2)", "1e-9"],
  ["numeric(4,0)", "1.5"],
  ["money", "1.005"],
  ["character varying(5)", "abcde   "],
  ["jsonb", '{"a":{"b":1,"b":2}}'],
  ["bytea", "3q2+7w=="],
  ["bytea", "deadbeef"],
  ["bytea", "[222,173]"],
  ["date", "now"],
  ["date", "02.01.2026"],
  ["date", "1/2/26"],
  ["date", "2026-01-02T10:00:00Z"],
  ["timestamp with time zone", "today"],
  ["timestamp with time zone", "02.01.2026 10:00"],
  ["timestamp with time zone", "2026-01-02 10:00:00.1234567+00"],
  ["timestamp(3) with time zone", "2026-01-02 10:00:00.1234+00"],
  ["timestamp without time zone", "2026-01-02T10:00:00+02:00"],
  ["timestamp without time zone", "2026-01-02T10:00:00 Europe/Berlin"],
  ["time without time zone", "10:00+02"],
  ["time without time zone", "10:00:00.1234567"],
  ["interval", "1.1234567 seconds"],
])("a column of the type %s does not take %s", (type, text) => {
  expect(inexactValue(text, type)).toMatch(/^[A-Z].*\.$/);
});

test.each([
  ["real", "0.1", "1.6777216e+07", "123456", "-0", "NaN", "Infinity", "3.4028235e+38", "0.123456789"],
  ["double precision", "0.30000000000000004", "9.007199254740992e+15", "9007199254740992", "100000000000000000000000"],
  ["double precision", "1e400", "-Infinity", "+5", " 5 ", "x", ""],
  ["numeric", "123456789012345678901234567890.123456789", "NaN"],
  ["numeric(6,2)", "1.10", "1.100", "1e2", "0.05", "9999.99", "5", "-0.000", "NaN", "x"],
  ["money", "$1,000.10"],
  ["character varying(5)", "\u{1F600}".repeat(5), "abcde", ""],
  ["character varying", "x".repeat(1_000)],
  ["character(5)", "ab   "],
  ["text", "now", "02.01.2026"],
  ["jsonb", '{"a":{"a":1}}', "1.10", "null"],
  ["json", '{"a":1,"a":2}'],
  ["bytea", String.raw`\xdeadbeef`, String.raw`\x`, ""],
  [
    "date",
    "2026-01-02",
    "0044-03-15 BC",
    "infinity",
    "-infinity",
    "12345-01-01",
    "2026-01-02T00:00:00.000Z",
    "20260102",
  ],
  [
    "timestamp with time zone",
    "2026-01-02 10:00:00.123456+00",
    "4714-11-24 00:00:00+00 BC",
    "2026-01-02T10:00:00+05:30",
  ],
  ["timestamp with time zone", "infinity", "2026-01-02T10:00:00.1230000Z", "2026-01-02 10:00 Europe/Berlin", "epoch"],
  ["timestamp without time zone", "2026-01-02 10:00:00", "2026-01-02T10:00:00Z", "2026-01-02T10:00:00+00:00"],
  ["timestamp without time zone", "0044-03-15 10:00:00 BC", "infinity", "2026-01-02 10:00 PM"],
  ["time without time zone", "24:00:00", "10:00:00.5"],
  ["time with time zone", "10:00:00+02"],
  ["interval", "1 mon 15 days", "-1 days +02:03:00", "P1DT2H", "00:00:00.123456"],
  ["integer", "5", "1e2"],
  ["integer[]", "{1,2}"],
  ["app.mood", "now"],
])("a column of the type %s takes what PostgreSQL itself writes", (type, ...texts) => {
  for (const text of texts) expect(inexactValue(text, type), text).toBeUndefined();
});

test("a value that PostgreSQL refuses comes with the way to write it", () => {
  expect(howToWrite("text[]")).toMatch(/\{1,2\}/);
  expect(howToWrite("bigint")).toMatch(/digits/);
  expect(howToWrite("text")).toBe("");
});
