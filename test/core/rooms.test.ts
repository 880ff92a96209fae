// The linter refuses upward imports between the rooms of src, and no room has more files than a reader can survey.
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { expect, test } from "vitest";
import * as z from "zod";

const repository = join(import.meta.dirname, "../..");

/** More files than this have no common noun any more. */
const MAX_FILES = 12;
/** Rooms that may have more files, each with the reason. */
const largerRooms: Readonly<Record<string, { files: number; reason: string }>> = {
  control: {
    files: 14,
    reason: "each control table that several rooms share has a store of its own, and one file has the retention of all",
  },
  reports: { files: 13, reason: "reports, late usage, periods and the daily comparison each have a store and rules" },
  operations: {
    files: 14,
    reason: "accounts, their configuration and their secrets are apart from the state of the deployment",
  },
  metering: {
    files: 14,
    reason: "alerts about usage have rules and a store of their own beside the way to the ledger",
  },
  "tenant-db": { files: 14, reason: "the rules of isolation, sessions, slots and placement are pure and tested apart" },
  backups: {
    files: 13,
    reason:
      "four jobs (export, import, restore, prune) share staged rows and a bucket; documents have routes of their own",
  },
  lifecycle: { files: 13, reason: "provisioning, removal and the usage archive each have rules, a store and a runner" },
  identity: { files: 13, reason: "each subject has a folder of its own, and guards and rates are for all of them" },
};

/** Runs the pinned oxlint in `directory` and returns what it prints. A lint error is an exit status of 1, not a failure. */
function oxlint(directory: string, ...args: string[]): Promise<string> {
  const program = join(repository, "node_modules/oxlint/bin/oxlint");
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [program, ...args], { cwd: directory }, (error, stdout) =>
      error === null || error.code === 1 ? resolve(stdout) : reject(error),
    );
  });
}

/** The option of `rooms/order` as the linter reads it. */
async function roomsOption(): Promise<{ order: string[]; exceptions: string[] }> {
  const Config = z.object({ overrides: z.array(z.object({ rules: z.record(z.string(), z.unknown()) })) });
  const Option = z.object({ order: z.array(z.string()), exceptions: z.array(z.string()).default([]) });
  const Rule = z.tuple([z.literal("deny"), z.tuple([Option])]);
  const { overrides } = Config.parse(JSON.parse(await oxlint(repository, "--print-config")));
  return Rule.parse(overrides.map(({ rules }) => rules["rooms/order"]).find((rule) => rule !== undefined))[1][0];
}

/** Lints a source tree of these files with the repository's rules. Returns the refusals of `rooms/order` by file. */
async function refusalsIn(files: Readonly<Record<string, string>>): Promise<Map<string, string>> {
  const directory = await mkdtemp(join(tmpdir(), "tollgate-rooms-"));
  try {
    for (const copied of [".oxlintrc.json", "dev/lint/rooms.js", "package.json"]) {
      await cp(join(repository, copied), join(directory, copied));
    }
    for (const [path, text] of Object.entries(files)) {
      await mkdir(dirname(join(directory, path)), { recursive: true });
      await writeFile(join(directory, path), text);
    }
    const Report = z.object({
      diagnostics: z.array(z.object({ code: z.string().optional(), message: z.string(), filename: z.string() })),
    });
    const { diagnostics } = Report.parse(JSON.parse(await oxlint(directory, "--format", "json", "src")));
    const refusals = diagnostics.filter(({ code }) => code === "rooms(order)");
    return new Map(refusals.map(({ filename, message }) => [filename, message]));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** The path of a file of an entry: the entry itself when it is a file. */
function fileOf(entry: string, name: string): string {
  return entry.endsWith(".ts") ? entry : `${entry}/${name}.ts`;
}

test("the linter refuses an import from the room below, for every pair of neighbours", async () => {
  const { order } = await roomsOption();
  const files: Record<string, string> = {};
  const upward: string[] = [];
  for (const [index, entry] of order.entries()) {
    const below = order[index + 1];
    const path = `src/${fileOf(entry, "upward")}`;
    const from = entry.endsWith(".ts") ? "./" : "../";
    files[path] = below === undefined ? "" : `import type { Thing } from "${from}${fileOf(below, "upward")}";\n`;
    if (below !== undefined) upward.push(path);
  }
  const refusals = await refusalsIn(files);
  expect([...refusals.keys()].toSorted()).toEqual(upward.toSorted());
});

test("the linter refuses every form of an upward import and accepts a downward one", async () => {
  const refusals = await refusalsIn({
    "src/core/static.ts": `import { a } from "../worker.ts";`,
    "src/control/type.ts": `import type { A } from "../operations/health.ts";`,
    "src/calls/dynamic.ts": `export const later = () => import("../reports/report.ts");`,
    "src/moves/re-export.ts": `export { a } from "../fleet/fleet.ts";`,
    "src/adapters/all.ts": `export * from "../control/ledger-store.ts";`,
    "src/operations/down.ts": `import { a } from "../core/plans/plans.ts"; import { b } from "./health.ts"; import * as z from "zod";`,
    "src/utils/new-room.ts": `export const a = 1;`,
    "test/core/outside.ts": `import { a } from "../../src/worker.ts";`,
  });
  expect([...refusals.keys()].toSorted()).toEqual([
    "src/adapters/all.ts",
    "src/calls/dynamic.ts",
    "src/control/type.ts",
    "src/core/static.ts",
    "src/moves/re-export.ts",
    "src/utils/new-room.ts",
  ]);
  expect(refusals.get("src/core/static.ts")).toContain("core imports upward from worker.ts");
});

test("every room of src has its place in the order, and each of its folders few enough files", async () => {
  const { order } = await roomsOption();
  const entries = await readdir(join(repository, "src"), { withFileTypes: true });
  for (const room of entries.filter((entry) => entry.isDirectory())) {
    expect(order).toContain(room.name);
    const inside = await readdir(join(repository, "src", room.name), { recursive: true, withFileTypes: true });
    const counts = Map.groupBy(inside, ({ parentPath }) => relative(join(repository, "src"), parentPath));
    for (const [folder, { length }] of counts)
      expect(length, folder).toBeLessThanOrEqual(largerRooms[folder]?.files ?? MAX_FILES);
  }
});
