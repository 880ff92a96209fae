// Every program that npm starts prints help, and refuses a flag that it does not know in one line.
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { childEnvironment } from "../../dev/child-environment.ts";

const root = resolve(import.meta.dirname, "../..");
const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { scripts: Record<string, string> };
const programs = Object.entries(scripts).flatMap(([name, line]) => {
  const [node, file, ...args] = line.split(" ");
  return node === "node" && file !== undefined ? [{ name, file, args }] : [];
});

function run(file: string, args: readonly string[]): Promise<{ code: unknown; stdout: string; stderr: string }> {
  return new Promise((done) => {
    const options = { cwd: root, env: childEnvironment() };
    execFile(process.execPath, [join(root, file), ...args], options, (error, stdout, stderr) =>
      done({ code: error === null ? 0 : error.code, stdout, stderr }),
    );
  });
}

test.each(programs)("npm run $name -- --help says how to use it", async ({ file, args }) => {
  const { code, stdout } = await run(file, [...args, "--help"]);
  expect(code).toBe(0);
  expect(stdout).toContain("npm ");
  expect(stdout).toContain("--");
});

test.each(programs)("npm run $name refuses a wrong flag in one line", async ({ file, args }) => {
  const { code, stdout, stderr } = await run(file, [...args, "--no-such-flag"]);
  expect(code).not.toBe(0);
  const lines = `${stdout}${stderr}`.trim().split("\n");
  expect(lines.length, lines.join("\n")).toBe(1);
  expect(lines[0]).toContain("--no-such-flag");
});
