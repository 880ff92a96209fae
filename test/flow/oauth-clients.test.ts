// A client program without any configuration: `mcp-remote` is started with the URL alone, as people configure it in desktop
// applications. It registers itself or names its document, opens a browser, and waits on a port of its own.
import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { expect, onTestFinished, test } from "vitest";
import * as z from "zod";
import { freePort } from "../../cli/ports.ts";
import { HOUR_MS } from "../../src/core/time.ts";
import { aTenant, operator, renewalsOf, setClock, system } from "../support/flow.ts";
import { Browser, aPerson, aPublishedClient } from "../support/sign-in.ts";

const PROGRAM = resolve(import.meta.dirname, "../../node_modules/mcp-remote/dist/proxy.js");

interface Started {
  client: Client;
  connected: Promise<void>;
  /** The address that the program asks the person to open. */
  asked: Promise<string>;
  printed: () => string;
}

/** Starts the program. The folder holds all that it keeps between runs. */
function startProgram(folder: string, flags: readonly string[]): Started {
  const transport = new StdioClientTransport({
    command: process.execPath,
    args: [PROGRAM, `${system.publicUrl}/mcp`, ...flags, "--transport", "http-only"],
    // No browser of this machine opens: the test reads the URL that the program prints.
    env: { PATH: process.env["PATH"] ?? "", HOME: folder, MCP_REMOTE_CONFIG_DIR: folder, BROWSER: "/bin/true" },
    stderr: "pipe",
  });
  const client = new Client({ name: "flow-test", version: "1" });
  onTestFinished(() => client.close());
  let printed = "";
  const { promise: asked, resolve: ask } = Promise.withResolvers<string>();
  transport.stderr?.on("data", (chunk: Buffer) => {
    printed += chunk.toString();
    const url = /(?<url>http:\/\/\S+\/oauth\/authorize\?\S+)/.exec(printed)?.groups?.["url"];
    // The program may print the address before it listens for the browser's return.
    const listens = printed.includes("OAuth callback server running");
    if (listens && url !== undefined && printed.indexOf(url) + url.length < printed.length) ask(url);
  });
  return { client, connected: client.connect(transport), asked, printed: () => printed };
}

/** Makes the program believe that its token ends now, as its own clock says after an hour. */
async function endByOwnClock(folder: string): Promise<void> {
  const names = await readdir(folder, { recursive: true });
  const file = join(folder, names.find((name) => name.endsWith("_tokens.json")) ?? "no file of tokens");
  const tokens = z.looseObject({ expires_at: z.number() }).parse(JSON.parse(await readFile(file, "utf8")));
  await writeFile(file, JSON.stringify({ ...tokens, expires_at: Date.now() }));
}

test.each(["needs the URL alone", "names its document"])(
  "mcp-remote %s: it signs in through a browser, calls, renews its token by itself, and is refused after its revocation",
  async (how) => {
    const tenant = await aTenant();
    const sub = await aPerson([tenant.id]);
    const folder = await mkdtemp(join(tmpdir(), "tollgate-mcp-remote-"));
    onTestFinished(() => rm(folder, { recursive: true, force: true }));
    const flags: string[] = [];
    if (how === "names its document") {
      const port = await freePort();
      const document = await aPublishedClient(`http://localhost:${port}/oauth/callback`, "MCP CLI Proxy");
      flags.push(`${port}`, "--host", "localhost", "--client-metadata-url", document);
    }
    const { client, connected, asked, printed } = startProgram(folder, flags);
    const url = await Promise.race([
      asked,
      connected.then(() => Promise.reject(new Error(`connected without a sign-in: ${printed()}`))),
    ]);
    const named = new URL(url).searchParams.get("client_id") ?? "";
    expect(named.startsWith("https://agent.example/")).toBe(how === "names its document");
    const back = await new Browser().letIn(url, { sub });
    expect(back.hostname).toMatch(/^(localhost|127\.0\.0\.1)$/);
    await (await fetch(back)).text();
    await connected;
    const call = (timeout?: number) =>
      client.callTool({ name: "get_usage", arguments: {} }, undefined, timeout === undefined ? {} : { timeout });
    expect((await call()).isError, printed()).toBeFalsy();

    // The server says that the token has ended.
    await setClock(tenant.id, HOUR_MS + 1_000);
    expect((await call()).isError, printed()).toBeFalsy();
    expect(await renewalsOf(tenant.id)).toBe(1);
    // The client sees it by itself.
    await endByOwnClock(folder);
    expect((await call()).isError, printed()).toBeFalsy();
    expect(await renewalsOf(tenant.id)).toBe(2);

    const list = await operator("GET", `/tenants/${tenant.id}/grants`);
    const { grants } = (await list.json()) as { grants: { id: string; clientName: string }[] };
    expect(grants).toHaveLength(1);
    expect((await operator("DELETE", `/tenants/${tenant.id}/grants/${grants[0]?.id}`)).status).toBe(200);
    await expect(call(5_000)).rejects.toThrow();
  },
);
