// Every program that npm starts prints help, and refuses a flag that it does not know in one line.
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { childEnvironment } from "../../dev/child-environment.ts";

const root = resolve(import.meta.dirname, "../..");
const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { scripts: Record<string, string> };
// Each line is `node`, its own flags and the program; a variable may stand before it.
const programs = Object.entries(scripts).flatMap(([name, line]) => {
  const words = line.split(" ").filter((word) => !word.startsWith("TOLLGATE_APP="));
  return words[0] === "node" && name !== "prepare" && !line.includes("&&") ? [{ name, args: words.slice(1) }] : [];
});

function run(args: readonly string[]): Promise<{ code: unknown; stdout: string; stderr: string }> {
  return new Promise((done) => {
    execFile(process.execPath, [...args], { cwd: root, env: childEnvironment() }, (error, stdout, stderr) =>
      done({ code: error === null ? 0 : error.code, stdout, stderr }),
    );
  });
}

test.each(programs)("npm run $name -- --help says how to use it", async ({ args }) => {
  const { code, stdout } = await run([...args, "--help"]);
  expect(code).toBe(0);
  expect(stdout).toContain("npm ");
  expect(stdout).toContain("--");
});

test.each(programs)("npm run $name refuses a wrong flag in one line", async ({ args }) => {
  const { code, stdout, stderr } = await run([...args, "--no-such-flag"]);
  expect(code).not.toBe(0);
  const lines = `${stdout}${stderr}`.trim().split("\n");
  expect(lines.length, lines.join("\n")).toBe(1);
  expect(lines[0]).toContain("--no-such-flag");
});
