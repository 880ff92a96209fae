// The example of docs/adding-a-tool.md works as it is printed: the linter accepts its table, and the tool does what the
// test on the page expects.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { lintMigration } from "../../cli/migrations/lint.ts";
import type { Tool } from "../../src/tools/tool.ts";
import { callTool, toolContext } from "../support/tool-context.ts";

const root = resolve(import.meta.dirname, "../..");
const page = readFileSync(join(root, "docs/adding-a-tool.md"), "utf8");

/** The files that the page prints: a heading names the file, and the first indented block below it is the content. */
const files = new Map(
  [...page.matchAll(/^## \d\. .*`app\/(?<path>[^`]+)`\n\n(?<block>(?: {4}.*\n|\n)+)/gm)].map(({ groups }) => [
    groups?.["path"] ?? "",
    (groups?.["block"] ?? "").replaceAll(/^ {4}/gm, ""),
  ]),
);
const app = join(root, ".generated/example-app");
beforeAll(() => {
  for (const [path, text] of files) {
    mkdirSync(dirname(join(app, path)), { recursive: true });
    writeFileSync(join(app, path), text);
  }
});
afterAll(() => rmSync(app, { recursive: true, force: true }));

test("the page prints a table, a tool and its test", () => {
  expect([...files.keys()]).toEqual([
    "migrations/0002_reminders.sql",
    "tools/add-reminder.ts",
    "test/add-reminder.test.ts",
  ]);
});

test("the linter accepts the table", async () => {
  const name = "0002_reminders.sql";
  const text = files.get(`migrations/${name}`) ?? "";
  for (const tables of ["shared", "tenant"] as const)
    expect(await lintMigration({ name, text, tables, isApp: true })).toEqual([]);
});

test("the tool is defined, and stores a reminder under the call's id", async () => {
  const module = (await import(/* @vite-ignore */ join(app, "tools/add-reminder.ts"))) as { addReminder: Tool };
  const { context, seen } = toolContext({ rows: [[], [{ reminders: 1 }]] });
  const { data } = await callTool(module.addReminder, { text: "Pay", dueOn: "2027-01-31" }, context);
  expect(data).toEqual({ reminders: 1 });
  expect(seen.queries[0]?.params).toEqual([context.callId, "Pay", "2027-01-31"]);
});
