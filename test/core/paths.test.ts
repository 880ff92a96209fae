import * as fc from "fast-check";
import { expect, test } from "vitest";
import { MAX_PATH_BYTES, normalisePath, normalisePrefix, utf8Bytes } from "../../src/core/text/document-path.ts";

/** Texts that resemble paths: dots, slashes, percent signs, unusual spaces and any Unicode. */
const pathLike = fc
  .array(
    fc.oneof(
      fc.constantFrom("/", "..", ".", "\\", "%2e", "%2F", "%", " ", "\0", "\n", "\u2028", "é", "e\u0301", "a", "notes"),
      fc.string({ unit: "binary", maxLength: 3 }),
    ),
    { maxLength: 12 },
  )
  .map((parts) => parts.join(""));

test("an accepted path stays below its prefix, also for the URL parser", () => {
  fc.assert(
    fc.property(pathLike, (raw) => {
      const result = normalisePath(raw);
      if (!result.ok) return;
      const { path } = result;
      // The URL parser decodes, folds dots and converts backslashes: more than a list of cases could cover.
      const url = new URL(
        path.replaceAll("?", "_").replaceAll("#", "_").replaceAll(":", "_"),
        "file:///tenants/t/files/",
      );
      expect(url.pathname.startsWith("/tenants/t/files/")).toBe(true);
      expect(url.pathname.split("/")).toHaveLength(4 + path.split("/").length);
      expect(utf8Bytes(path)).toBeLessThanOrEqual(MAX_PATH_BYTES);
      expect(path.isWellFormed()).toBe(true);
    }),
    { numRuns: 5_000 },
  );
});

test("normalising is idempotent, and names that look alike become one", () => {
  fc.assert(
    fc.property(pathLike, (raw) => {
      const result = normalisePath(raw);
      if (result.ok) expect(normalisePath(result.path)).toEqual(result);
      expect(normalisePath(raw.normalize("NFD"))).toEqual(normalisePath(raw.normalize("NFC")));
    }),
    { numRuns: 2_000 },
  );
});

test("every folder of an accepted path is an accepted prefix", () => {
  fc.assert(
    fc.property(pathLike, (raw) => {
      const result = normalisePath(raw);
      if (!result.ok) return;
      const folder = result.path.slice(0, result.path.lastIndexOf("/") + 1);
      expect(normalisePrefix(folder)).toEqual({ ok: true, path: folder });
    }),
  );
});

test.each([
  "today.md",
  "notes/2026/today.md",
  "50% off.txt",
  "...",
  "a..b/.hidden",
  "日本語/メモ.txt",
  "a b.txt",
  "\u{1F468}\u200D\u{1F469}.txt",
])("%j is accepted as it is", (path) => {
  expect(normalisePath(path)).toEqual({ ok: true, path });
});

test.each([
  "",
  "/etc/passwd",
  "../other/files/a",
  "notes/../../other",
  "notes/./a",
  "notes//a",
  "notes/",
  "..",
  ".",
  "a\\b",
  "..\\b",
  "%2e%2e/a",
  "a%2Fb",
  "a%00",
  "a\0b",
  "a\nb",
  "a\u007fb",
  "a\u0085b",
  "a\u2028b",
  "\u202Ea",
  "a\u200B",
  "a\uFEFFb",
  "\ud800",
  " a",
  "a /b",
  ".. /b",
  "a".repeat(MAX_PATH_BYTES + 1),
  "é".repeat(MAX_PATH_BYTES / 2 + 1),
])("%j is refused with a reason", (path) => {
  expect(normalisePath(path)).toEqual({ ok: false, reason: expect.stringMatching(/^The path|^A part of the path/) });
});

test.each(["", "notes/", "notes/2026-", "n"])("%j is a prefix", (prefix) => {
  expect(normalisePrefix(prefix)).toEqual({ ok: true, path: prefix });
});

test("a prefix that is one slash is refused as that", () => {
  expect(normalisePrefix("/")).toMatchObject({ reason: expect.stringContaining("starts with `/`") });
});

test.each(["/", "../", "notes//", "notes/..", "notes/../"])("%j is not a prefix", (prefix) => {
  expect(normalisePrefix(prefix).ok).toBe(false);
});
