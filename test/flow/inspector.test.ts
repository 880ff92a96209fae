// MCP Inspector without any configuration: it gets the URL alone, sends the person to a real browser, and keeps the access for its
// next runs.
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { beforeEach, expect, onTestFinished, test } from "vitest";
import { freePort } from "../../cli/ports.ts";
import { childEnvironment } from "../../dev/child-environment.ts";
import { choosePerson, newPage } from "../support/browser.ts";
import { HOUR_MS } from "../../src/core/time.ts";
import { renewalsOf, setClock, system } from "../support/flow.ts";
import { anOwnedTenant, send } from "../support/people.ts";
import { aPerson, aPublishedClient } from "../support/sign-in.ts";

const PROGRAM = resolve(
  import.meta.dirname,
  "../../node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js",
);
/** The exit status of a run that needs a person. */
const SIGN_IN_NEEDED = 3;

interface Run {
  /** The address that the program asks the person to open. Rejects when the program ends first. */
  opened: Promise<string>;
  ended: Promise<{ status: number | null; output: string; errors: string }>;
}

/** Starts Inspector's command line. The folder holds all that it keeps between runs. */
function inspect(folder: string, ...flags: string[]): Run {
  const child = spawn(process.execPath, [PROGRAM, "--cli", `${system.publicUrl}/mcp`, "--format", "json", ...flags], {
    // Without programs on the path, no browser of this machine opens. The test reads the address that the program prints.
    env: childEnvironment({
      ...{ PATH: folder, HOME: folder, MCP_STORAGE_DIR: folder },
      ...{ MCP_INSPECTOR_SECRET_STORE: "file", MCP_AUTO_OPEN_ENABLED: "true" },
    }),
    stdio: ["ignore", "pipe", "pipe"],
  });
  onTestFinished(() => void child.kill());
  let [output, errors] = ["", ""];
  const { promise: opened, resolve: open, reject } = Promise.withResolvers<string>();
  opened.catch(() => undefined); // most runs open nothing
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => {
    errors += chunk.toString();
    const url = /Please navigate to: (?<url>\S+)\n/.exec(errors)?.groups?.["url"];
    if (url !== undefined) open(url);
  });
  const ended = new Promise<Awaited<Run["ended"]>>((done) => {
    child.once("close", (status) => {
      reject(new Error(`Inspector ended with ${status}: ${output} ${errors}`));
      done({ status, output, errors });
    });
  });
  return { opened, ended };
}

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "tollgate-inspector-"));
  return () => rm(folder, { recursive: true, force: true });
});

test.each(["that registers itself", "that publishes a document"])(
  "Inspector as a client %s signs in with Chromium, calls, renews its token by itself, and needs a person again once its access has ended",
  async (how) => {
    const account = await anOwnedTenant({ name: "Acme" });
    const sub = await aPerson([account.id]);
    const callback = `http://127.0.0.1:${await freePort()}/oauth/callback`;
    const identity =
      how === "that registers itself" ? [] : ["--client-metadata-url", await aPublishedClient(callback, "Inspector")];
    const first = inspect(folder, "--method", "tools/list", "--callback-url", callback, ...identity);

    const page = await newPage();
    await page.goto(await first.opened);
    await choosePerson(page, { sub });
    await page.getByRole("button", { name: "Allow" }).click();
    const listed = await first.ended;
    expect(listed, listed.errors).toMatchObject({ status: 0 });
    expect(listed.output).toContain("get_usage");

    const call = ["--method", "tools/call", "--tool-name", "get_usage", "--stored-auth-only", ...identity];
    const called = await inspect(folder, ...call).ended;
    expect(called, called.errors).toMatchObject({ status: 0 });

    await setClock(account.id, HOUR_MS + 1_000);
    const renewed = await inspect(folder, ...call).ended;
    expect(renewed, renewed.errors).toMatchObject({ status: 0 });
    expect(await renewalsOf(account.id)).toBe(1);

    const grants = await send("GET", `/api/tenants/${account.id}/grants`, account.ownerToken);
    const [grant] = ((await grants.json()) as { grants: { id: string }[] }).grants;
    const ended = await send("DELETE", `/api/tenants/${account.id}/grants/${grant?.id}`, account.ownerToken);
    expect(ended.status).toBe(200);
    expect(await inspect(folder, ...call).ended).toMatchObject({ status: SIGN_IN_NEEDED });
  },
);
