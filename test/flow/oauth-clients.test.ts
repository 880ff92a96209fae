// A client program without any configuration: `mcp-remote` is started with the URL alone, as people configure it in desktop
// applications. It registers itself, opens a browser, and waits on a port of its own.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { expect, onTestFinished, test } from "vitest";
import { aTenant, operator, system } from "../support/flow.ts";
import { Browser, aPerson } from "../support/sign-in.ts";

const PROGRAM = resolve(import.meta.dirname, "../../node_modules/mcp-remote/dist/proxy.js");

test("mcp-remote needs the URL alone: it signs in through a browser, calls, and is refused after its revocation", async () => {
  const tenant = await aTenant();
  const sub = await aPerson([tenant.id]);
  const folder = await mkdtemp(join(tmpdir(), "tollgate-mcp-remote-"));
  const transport = new StdioClientTransport({
    command: process.execPath,
    args: [PROGRAM, `${system.publicUrl}/mcp`, "--transport", "http-only"],
    // No browser of this machine opens: the test reads the URL that the program prints.
    env: { PATH: process.env["PATH"] ?? "", HOME: folder, MCP_REMOTE_CONFIG_DIR: folder, BROWSER: "/bin/true" },
    stderr: "pipe",
  });
  const client = new Client({ name: "flow-test", version: "1" });
  onTestFinished(async () => {
    await client.close();
    await rm(folder, { recursive: true, force: true });
  });
  let printed = "";
  const { promise: asked, resolve: ask } = Promise.withResolvers<string>();
  transport.stderr?.on("data", (chunk: Buffer) => {
    printed += chunk.toString();
    const url = /(?<url>http:\/\/\S+\/oauth\/authorize\?\S+)/.exec(printed)?.groups?.["url"];
    // The program may print the address before it listens for the browser's return.
    const listens = printed.includes("OAuth callback server running");
    if (listens && url !== undefined && printed.indexOf(url) + url.length < printed.length) ask(url);
  });
  const connected = client.connect(transport);
  const url = await Promise.race([
    asked,
    connected.then(() => Promise.reject(new Error(`connected without a sign-in: ${printed}`))),
  ]);
  const back = await new Browser().letIn(url, { sub });
  expect(back.hostname).toMatch(/^(localhost|127\.0\.0\.1)$/);
  await (await fetch(back)).text();
  await connected;
  const answer = await client.callTool({ name: "get_usage", arguments: {} });
  expect(answer.isError, printed).toBeFalsy();

  const list = await operator("GET", `/tenants/${tenant.id}/grants`);
  const { grants } = (await list.json()) as { grants: { id: string; clientName: string }[] };
  expect(grants).toHaveLength(1);
  expect((await operator("DELETE", `/tenants/${tenant.id}/grants/${grants[0]?.id}`)).status).toBe(200);
  await expect(client.callTool({ name: "get_usage", arguments: {} }, undefined, { timeout: 5_000 })).rejects.toThrow();
});
