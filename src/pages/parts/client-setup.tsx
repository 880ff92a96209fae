// How a client reaches the tools: ready to paste, with an API key, or with a sign-in in the browser.
import type { FC } from "hono/jsx";
import { config } from "../../core/app-config.ts";
import { Copyable } from "./code.tsx";

/** The name under which clients list the server: letters, digits and dashes, which each of them takes. */
const serverName =
  config.product.name
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^-|-$/g, "") || "tools";

interface Client {
  name: string;
  /** What to do with the text. */
  how: string;
  text: string;
}

/** JSON as people write it. */
const json = (value: unknown): string => JSON.stringify(value, null, 2);

/** Clients that send a key. */
function clientsWithKey(url: string, apiKey: string): Client[] {
  const headers = { Authorization: `Bearer ${apiKey}` };
  const header = `Authorization: Bearer ${apiKey}`;
  return [
    {
      name: "Claude Code",
      how: "Run this in a terminal.",
      text: `claude mcp add --transport http ${serverName} ${url} \\\n  --header "${header}"`,
    },
    {
      name: "Cursor",
      how: "Put this into ~/.cursor/mcp.json.",
      text: json({ mcpServers: { [serverName]: { url, headers } } }),
    },
    {
      name: "VS Code",
      how: "Put this into .vscode/mcp.json of a workspace, or run “MCP: Open User Configuration”.",
      text: json({ servers: { [serverName]: { type: "http", url, headers } } }),
    },
    {
      name: "Claude Desktop",
      how: "Put this into claude_desktop_config.json, then start Claude again. It needs Node.js.",
      text: json({
        mcpServers: {
          [serverName]: {
            command: "npx",
            args: ["-y", "mcp-remote", url, "--header", `Authorization:\${TOKEN}`],
            env: { TOKEN: `Bearer ${apiKey}` },
          },
        },
      }),
    },
    {
      name: "TypeScript",
      how: "With the package @modelcontextprotocol/client.",
      text: [
        'import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";',
        "",
        `const transport = new StreamableHTTPClientTransport(new URL("${url}"), {`,
        `  requestInit: { headers: { Authorization: "Bearer ${apiKey}" } },`,
        "});",
        'const client = new Client({ name: "my-agent", version: "1.0.0" });',
        "await client.connect(transport);",
        "console.log(await client.listTools());",
      ].join("\n"),
    },
    {
      name: "Python",
      how: "With the package mcp.",
      text: [
        "import asyncio",
        "from mcp import ClientSession",
        "from mcp.client.streamable_http import streamablehttp_client",
        "",
        `HEADERS = {"Authorization": "Bearer ${apiKey}"}`,
        "",
        "async def main():",
        `    async with streamablehttp_client("${url}", headers=HEADERS) as (read, write, _):`,
        "        async with ClientSession(read, write) as session:",
        "            await session.initialize()",
        "            print(await session.list_tools())",
        "",
        "asyncio.run(main())",
      ].join("\n"),
    },
    {
      name: "curl",
      how: "Lists the tools, without any client.",
      text: [
        `curl ${url} \\`,
        `  -H "${header}" \\`,
        '  -H "Content-Type: application/json" -H "Accept: application/json, text/event-stream" \\',
        `  -d '${JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list" })}'`,
      ].join("\n"),
    },
  ];
}

/** Clients in which a person signs in. They find everything at the URL. */
function clientsWithSignIn(url: string): Client[] {
  return [
    {
      name: "Claude (web, desktop, phone)",
      how: "Settings, Connectors, “Add custom connector”. Paste the URL and sign in.",
      text: url,
    },
    {
      name: "ChatGPT",
      how: "Settings, Apps & Connectors, Advanced settings: turn on developer mode. Then “Create”, paste the URL, authentication OAuth.",
      text: url,
    },
    {
      name: "Claude Code",
      how: "Run this, then /mcp inside Claude Code to sign in.",
      text: `claude mcp add --transport http ${serverName} ${url}`,
    },
    {
      name: "Cursor",
      how: "Put this into ~/.cursor/mcp.json, then choose “Needs login”.",
      text: json({ mcpServers: { [serverName]: { url } } }),
    },
    {
      name: "VS Code",
      how: "Put this into .vscode/mcp.json, then choose “Start”.",
      text: json({ servers: { [serverName]: { type: "http", url } } }),
    },
  ];
}

/** The ways of clients with a key, or with a sign-in when there is no key. */
export const ClientSetup: FC<{ mcpUrl: string; apiKey?: string | undefined }> = ({ mcpUrl, apiKey }) => (
  <div class="ways">
    {(apiKey === undefined ? clientsWithSignIn(mcpUrl) : clientsWithKey(mcpUrl, apiKey)).map(
      ({ name, how, text }, index) => (
        <details open={index === 0}>
          <summary>{name}</summary>
          <p class="muted">{how}</p>
          <Copyable text={text} />
        </details>
      ),
    )}
  </div>
);
