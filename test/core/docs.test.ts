// The documents name files that exist, and docs/storage.md names every table.
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { expect, test } from "vitest";

const root = resolve(import.meta.dirname, "../..");
const read = (path: string): string => readFileSync(join(root, path), "utf8");
const documents = [
  ...["README.md", "AGENTS.md", "SECURITY.md", "CHANGELOG.md"],
  ...readdirSync(join(root, "docs")).map((name) => `docs/${name}`),
];

test.each(documents)("%s links to files that exist", (path) => {
  const targets = [...read(path).matchAll(/\]\((?<target>[^)#\s]+)/g)].map(({ groups }) => groups?.["target"] ?? "");
  const local = targets.filter((target) => !/^[a-z]+:/.test(target));
  expect(local.filter((target) => !existsSync(resolve(root, dirname(path), target)))).toEqual([]);
});

test("docs/storage.md names files that exist", () => {
  const names = [...read("docs/storage.md").matchAll(/`(?<name>[a-z-]+\/[a-z/-]+\.ts)`/g)].map(
    ({ groups }) => groups?.["name"] ?? "",
  );
  expect(names.length).toBeGreaterThan(0);
  expect(names.filter((name) => !existsSync(join(root, "src", name)) && !existsSync(join(root, name)))).toEqual([]);
});

test("docs/storage.md names every table that a product migration makes", () => {
  const storage = read("docs/storage.md");
  const folders = readdirSync(join(root, "migrations"));
  const tables = folders.flatMap((folder) =>
    readdirSync(join(root, "migrations", folder)).flatMap((file) =>
      [...read(`migrations/${folder}/${file}`).matchAll(/^CREATE TABLE (?<table>[a-z_.]+)/gm)].map(
        ({ groups }) => groups?.["table"] ?? "",
      ),
    ),
  );
  const missing = tables.filter((table) => !storage.includes(`\`${table}\``));
  expect(missing).toEqual([]);
});

test("the glossary has at most forty terms, in order", () => {
  const terms = [...read("docs/glossary.md").matchAll(/^\| (?<term>[a-z][^|]*?) \|/gm)]
    .map(({ groups }) => groups?.["term"] ?? "")
    .slice(1);
  expect(terms.length).toBeLessThanOrEqual(40);
  expect(terms).toEqual(terms.toSorted());
});
