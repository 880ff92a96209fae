// Values for fuzzed requests: near-valid ones that follow a JSON Schema, and hostile ones that break parsers, databases and
// pages. Every choice comes from the given random numbers, so that a seed repeats a run.
import type { Random } from "./cases.ts";

interface Schema {
  type?: string | string[];
  enum?: unknown[];
  const?: unknown;
  format?: string;
  items?: Schema;
  properties?: Record<string, Schema>;
  additionalProperties?: Schema | boolean;
  required?: string[];
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
  minimum?: number;
  maximum?: number;
  $ref?: string;
}

const deep = (levels: number): unknown => {
  let value: unknown = 1;
  for (let level = 0; level < levels; level += 1) value = [value];
  return value;
};

/** Values that no schema of a product expects. */
const hostile: readonly unknown[] = [
  ...[null, "", " ", "\u0000", "a\u0000b", "\ud83d", "\udc00x", "\u202etxt", "\ufeff", "a\r\nX-Injected: 1"],
  ...["'; DROP TABLE tenants; --", "' OR 1=1 --", "${7*7}", "{{7*7}}", "<script>alert(1)</script>", "../../etc/passwd"],
  ...[
    "javascript:alert(1)",
    "data:text/html,x",
    "http://169.254.169.254/",
    "//evil.example",
    "https://user:pw@evil.example/",
  ],
  ...["__proto__", "constructor", "toString", "hasOwnProperty", "null", "undefined", "NaN", "true", "[object Object]"],
  ...[0, -0, -1, 1.5, 1e308, -1e308, 2 ** 53, 2 ** 53 + 2, 2 ** 31, -(2 ** 63), Number.MIN_VALUE],
  ...[true, false, [], {}, [null], [[]], { a: { b: {} } }, { toJSON: 1 }, { length: -1 }, { prototype: 1 }],
  ...["0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-02-30T00:00:00Z", "infinity", "-infinity", "2026-13-01"],
  ...[
    "x".repeat(10_000),
    "\u00e9".repeat(300),
    "\u{1f600}".repeat(100),
    deep(500),
    Array.from({ length: 1_000 }, () => 1),
  ],
  ...["canary-a", "canary-b", "~fallback", "%00", "%2e%2e", ".", "..", "a/b", "A", "-", "_", "a".repeat(41)],
];

const texts = [
  "a",
  "Name",
  "free",
  "pro",
  "tools:read",
  "tenant:admin",
  "2027-01-01T00:00:00Z",
  "a@example.com",
  "x-1",
];

/** One of the hostile values. */
export function hostileValue(random: Random): unknown {
  return pick(random, hostile);
}

export function pick<Item>(random: Random, from: readonly Item[]): Item {
  return from[Math.floor(random() * from.length)] as Item;
}

/** A value that follows the schema, or nearly. `ids`: texts that name real things. */
export function valueOf(schema: Schema | undefined, random: Random, ids: readonly string[], depth = 0): unknown {
  if (random() < 0.12 || depth > 6) return hostileValue(random);
  if (schema === undefined || schema.$ref !== undefined) return pick<unknown>(random, [...texts, ...ids]);
  if (schema.const !== undefined) return schema.const;
  if (schema.enum !== undefined) return pick(random, schema.enum);
  const options = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (options !== undefined) return valueOf(pick(random, options), random, ids, depth + 1);
  const type = Array.isArray(schema.type) ? pick(random, schema.type) : schema.type;
  switch (type ?? "string") {
    case "object":
      return objectOf(schema, random, ids, depth);
    case "array":
      return Array.from({ length: Math.floor(random() * 4) }, () => valueOf(schema.items, random, ids, depth + 1));
    case "integer":
    case "number":
      return pick(random, [schema.minimum ?? 0, schema.maximum ?? 1_000, 1, 7, 100]);
    case "boolean":
      return random() < 0.5;
    case "null":
      return null;
    default:
      return schema.format === "date-time" ? "2027-01-01T00:00:00Z" : pick(random, [...texts, ...ids]);
  }
}

function objectOf(schema: Schema, random: Random, ids: readonly string[], depth: number): Record<string, unknown> {
  const made: [string, unknown][] = [];
  for (const [name, inner] of Object.entries(schema.properties ?? {})) {
    const isRequired = schema.required?.includes(name) === true;
    if (random() < (isRequired ? 0.93 : 0.4)) made.push([name, valueOf(inner, random, ids, depth + 1)]);
  }
  if (typeof schema.additionalProperties === "object" && random() < 0.7)
    made.push([pick(random, [...texts, ...ids]), valueOf(schema.additionalProperties, random, ids, depth + 1)]);
  if (random() < 0.05) made.push([String(hostileValue(random)).slice(0, 50), hostileValue(random)]);
  // `fromEntries` defines `__proto__` as a property like any other.
  return Object.fromEntries(made);
}
