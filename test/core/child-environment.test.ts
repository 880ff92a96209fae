// Tests and the programs that they start ignore the shell's environment.
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { childEnvironment, ignoreShell } from "../../dev/child-environment.ts";

const root = resolve(import.meta.dirname, "../..");
const configuring = {
  TOLLGATE_DIR: "/a/running/system",
  PORT: "8787",
  CONTROL_DATABASE_URL: "postgresql://a-real-database",
  DATABASE_URL: "postgresql://a-real-database",
  STRIPE_SECRET_KEY: "sk_live_1",
  PGPASSWORD: "secret",
  NODE_OPTIONS: "--no-warnings",
};

/** Sets the variables, and restores the environment after the test. */
function inShell(variables: Readonly<Record<string, string>>): void {
  const before = { ...process.env };
  Object.assign(process.env, variables);
  onTestFinished(() => {
    process.env = before;
  });
}

test("a child process gets nothing that configures Tollgate, PostgreSQL, Stripe or Node", () => {
  inShell(configuring);
  const environment = childEnvironment({ PORT: "9000" });
  expect(Object.keys(environment).filter((name) => name in configuring)).toEqual(["PORT"]);
  expect(environment["PORT"]).toBe("9000");
  expect(environment["PATH"]).toBe(process.env["PATH"]);
});

test("a test run removes the shell's variables before vitest starts its workers", () => {
  inShell(configuring);
  ignoreShell();
  expect(Object.keys(process.env).filter((name) => name in configuring)).toEqual(["NODE_OPTIONS"]);
});

test("vitest starts with a clean environment for any variables of the shell", async () => {
  const dir = await mkdtemp(join(tmpdir(), "tollgate-environment-"));
  onTestFinished(() => rm(dir, { recursive: true }));
  const env = { ...process.env, ...configuring, TOLLGATE_APP: "another/app" };
  const program = `await import(${JSON.stringify(join(root, "vitest.config.ts"))}); console.log(JSON.stringify(process.env))`;
  await writeFile(join(dir, "program.mjs"), program);
  const seen = await new Promise<string>((done, fail) => {
    execFile(process.execPath, [join(dir, "program.mjs")], { env }, (error, stdout) => {
      if (error) fail(error);
      else done(stdout);
    });
  });
  const environment = JSON.parse(seen) as Record<string, string>;
  expect(Object.keys(environment).filter((name) => name in configuring)).toEqual(["NODE_OPTIONS"]);
  expect(environment["TOLLGATE_APP"]).toBe("test/support/fixture-app");
});
