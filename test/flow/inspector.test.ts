// MCP Inspector's command line. Without any configuration it gets the URL alone, sends the person to a real browser, and keeps the
// access for its next runs. With an organisation's provider in its settings it gets access by the organisation's word (ID-JAG).
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { beforeEach, expect, onTestFinished, test } from "vitest";
import { freePort } from "../../cli/ports.ts";
import { childEnvironment } from "../../dev/child-environment.ts";
import { registerClient } from "../../dev/id-jag-agent.ts";
import { servedAt } from "../../dev/issuer/public-names.ts";
import { choosePerson, newPage } from "../support/browser.ts";
import { HOUR_MS } from "../../src/core/time.ts";
import { renewalsOf, setClock, system } from "../support/flow.ts";
import { aCompany, providerPath, signInAt } from "../support/own-providers.ts";
import { anOwnedTenant, send } from "../support/people.ts";
import { aPerson, aPublishedClient } from "../support/sign-in.ts";

const PROGRAM = resolve(
  import.meta.dirname,
  "../../node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js",
);
const PUBLIC_NAMES = pathToFileURL(resolve(import.meta.dirname, "../../dev/issuer/public-names.ts")).href;
/** The exit status of a run that needs a person. */
const SIGN_IN_NEEDED = 3;

interface Run {
  /** The address that the program asks the person to open. Rejects when the program ends first. */
  opened: Promise<string>;
  ended: Promise<{ status: number | null; output: string; errors: string }>;
}

/** Starts Inspector's command line with the URL alone. The folder holds all that it keeps between runs. */
function inspect(folder: string, ...flags: string[]): Run {
  return inspectWith(folder, {}, `${system.publicUrl}/mcp`, ...flags);
}

function inspectWith(folder: string, env: Record<string, string>, ...flags: string[]): Run {
  const child = spawn(process.execPath, [PROGRAM, "--cli", ...flags, "--format", "json"], {
    // Without programs on the path, no browser of this machine opens. The test reads the address that the program prints.
    env: childEnvironment({
      ...{ PATH: folder, HOME: folder, MCP_STORAGE_DIR: folder },
      ...{ MCP_INSPECTOR_SECRET_STORE: "file", MCP_AUTO_OPEN_ENABLED: "true", ...env },
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

test("Inspector lets its person in by the organisation's word, without a consent, and gets the next token by itself until the provider is removed", async () => {
  const { tenant, issuer, providerUrl, domain, slug } = await aCompany();
  const sub = await aPerson([], { email: `ada-${randomUUID()}@${domain}` });
  await signInAt(slug, sub);
  const callback = `http://127.0.0.1:${await freePort()}/oauth/callback`;
  const own = await registerClient(`${system.publicUrl}/oauth/register`, "Inspector", callback);
  const idp = await registerClient(`${providerUrl}/register`, "Inspector", callback, {
    audience_client_id: own.clientId,
  });
  const url = `${system.publicUrl}/mcp`;
  const files = {
    "servers.json": {
      mcpServers: { acme: { type: "streamable-http", url, oauth: { ...own, enterpriseManaged: true } } },
    },
    "client.json": { enterpriseManagedAuth: { enabled: true, idp: { issuer, ...idp } } },
  };
  for (const [name, content] of Object.entries(files)) await writeFile(join(folder, name), JSON.stringify(content));
  // The program, too, finds the provider's public name at the local issuer.
  const names = `const { servedAt } = await import(${JSON.stringify(PUBLIC_NAMES)});
    const outside = fetch;
    globalThis.fetch = (input, init) => outside(servedAt(String(input.url ?? input), "${system.issuerUrl}") ?? input, init);`;
  await writeFile(join(folder, "names.mjs"), names);
  const env = { NODE_OPTIONS: `--import ${join(folder, "names.mjs")}` };
  const at = [
    "--config",
    join(folder, "servers.json"),
    "--server",
    "acme",
    "--client-config",
    join(folder, "client.json"),
  ];
  const call = [...at, "--method", "tools/call", "--tool-name", "get_usage"];

  const first = inspectWith(folder, env, ...call, "--callback-url", callback);
  const page = await newPage();
  await page.goto(servedAt(await first.opened, system.issuerUrl) ?? "");
  await page.locator(`form:has(input[value="${sub}"]) button`).click();
  const called = await first.ended;
  expect(called, called.errors).toMatchObject({ status: 0 });

  // The organisation still vouches for the agent, so the end of its tokens is no end of its access.
  const grantsOf = async () => {
    const listed = await send("GET", `/api/tenants/${tenant.id}/grants`, tenant.ownerToken);
    return ((await listed.json()) as { grants: { id: string }[] }).grants.map(({ id }) => id);
  };
  const minted = await grantsOf(); // one run may ask for several
  expect(minted.length).toBeGreaterThan(0);
  for (const id of minted)
    expect((await send("DELETE", `/api/tenants/${tenant.id}/grants/${id}`, tenant.ownerToken)).status).toBe(200);
  const renewed = await inspectWith(folder, env, ...call, "--stored-auth-only").ended;
  expect(renewed, renewed.errors).toMatchObject({ status: 0 });
  const next = await grantsOf();
  expect(next.length).toBeGreaterThan(0);
  expect(next.filter((id) => minted.includes(id))).toEqual([]);

  expect((await send("DELETE", providerPath(tenant), tenant.ownerToken)).status).toBe(200);
  const refused = await inspectWith(folder, env, ...call, "--stored-auth-only").ended;
  expect(refused.status, refused.output).not.toBe(0);
});
