// MCP Inspector as a page, as a developer uses it: it gets the URL alone, or its document's URL in its settings, and one window of
// Chromium walks from its list of servers over the sign-in and the consent back to its tools.
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { Page } from "playwright-core";
import { expect, onTestFinished, test } from "vitest";
import { freePort } from "../../cli/ports.ts";
import { childEnvironment } from "../../dev/child-environment.ts";
import { choosePerson, newPage, shows } from "../support/browser.ts";
import { HOUR_MS } from "../../src/core/time.ts";
import { renewalsOf, setClock, system } from "../support/flow.ts";
import { anOwnedTenant, send } from "../support/people.ts";
import { aPerson, aPublishedClient } from "../support/sign-in.ts";

const PROGRAM = resolve(
  import.meta.dirname,
  "../../node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js",
);

/** Starts Inspector's page for the system, without a header or a token. Returns its URL. It ends with the test. */
async function startInspector(era: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "tollgate-inspector-page-"));
  const [port, sandbox, apps] = [await freePort(), await freePort(), await freePort()];
  const flags = ["--web", "--transport", "http", "--server-url", `${system.publicUrl}/mcp`, "--protocol-era", era];
  const child = spawn(process.execPath, [PROGRAM, ...flags], {
    // The window of the test is the only browser.
    env: childEnvironment({
      ...{
        HOME: folder,
        MCP_STORAGE_DIR: folder,
        MCP_INSPECTOR_SECRET_STORE: "memory",
        MCP_AUTO_OPEN_ENABLED: "false",
      },
      ...{ CLIENT_PORT: `${port}`, MCP_SANDBOX_PORT: `${sandbox}`, MCP_APP_ORIGIN_PORT: `${apps}` },
    }),
    stdio: ["ignore", "pipe", "pipe"],
  });
  const ended = new Promise<void>((done) => child.once("close", () => done()));
  onTestFinished(async () => {
    child.kill("SIGKILL");
    await ended;
    await rm(folder, { recursive: true, force: true });
  });
  let printed = "";
  const { promise: ready, resolve: isReady } = Promise.withResolvers<void>();
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk: Buffer) => {
      printed += chunk.toString();
      if (printed.includes("up and running")) isReady();
    });
  await Promise.race([ready, ended.then(() => Promise.reject(new Error(`Inspector ended: ${printed}`)))]);
  return `http://127.0.0.1:${port}`;
}

/** Opens Inspector's page. Its font is on the network, which the browser does not reach. */
async function openInspector(page: Page, url: string): Promise<void> {
  await page.route("https://fonts.googleapis.com/**", (route) => route.fulfill({ contentType: "text/css", body: "" }));
  await page.goto(url);
}

/** Names the client's own document in the page's settings. */
async function setDocument(page: Page, url: string): Promise<void> {
  await page.getByRole("button", { name: "Client settings" }).click();
  await page.getByRole("button", { name: "OAuth Client ID Metadata Document" }).click();
  await page.getByText("Use Client ID Metadata Document").click();
  await page.getByLabel("Client ID metadata document URL").fill(url);
  const saved = page.waitForResponse((answer) => answer.request().postData()?.includes(url) === true);
  await page.getByRole("button", { name: "Close" }).click();
  expect((await saved).ok()).toBe(true);
  await page.getByRole("dialog").waitFor({ state: "hidden" });
}

/** Runs the tool that is shown. */
async function call(page: Page): Promise<void> {
  await page.getByRole("button", { name: "Execute Tool" }).click();
}

const ways = [
  { era: "legacy", how: "the URL alone", publisher: "unverified" },
  { era: "modern", how: "the URL alone", publisher: "unverified" },
  { era: "modern", how: "its document", publisher: "published by agent.example" },
];

test.each(ways)(
  "Inspector's page in the $era era needs $how: sign-in, consent, tools, a call, a renewed token, and a refusal once an admin ends the grant",
  async ({ era, how, publisher }) => {
    const account = await anOwnedTenant({ name: "Acme" });
    const sub = await aPerson([account.id]);
    const url = await startInspector(era);
    const page = await newPage({}, [expect.stringContaining('OAuth "invalid_grant"')]);
    await openInspector(page, url);
    if (how === "its document") await setDocument(page, await aPublishedClient(`${url}/oauth/callback`, "Inspector"));
    await page.getByRole("switch", { name: "Connect or disconnect" }).click({ force: true });

    // The page has found out where to sign in, has registered, and has left for the provider.
    await page.waitForURL((at) => at.origin === system.issuerUrl);
    await choosePerson(page, { sub });
    await shows(page, "Let a client in");
    expect(await page.locator("main").innerText()).toContain("wants to use the tools of Acme for you");
    expect(await page.locator("main").innerText()).toContain(publisher);
    await page.getByRole("button", { name: "Allow" }).click();

    await page.waitForURL((at) => at.origin === url && at.pathname === "/");
    await page.getByText("Tools", { exact: true }).click();
    await page.getByRole("button", { name: "get_usage" }).click();
    await call(page);
    await page.getByText(/^Plan \w+\./).waitFor();
    await page.getByRole("button", { name: "Close results" }).click();

    await setClock(account.id, HOUR_MS + 1_000);
    await call(page);
    await page.getByText(/^Plan \w+\./).waitFor();
    expect(await renewalsOf(account.id)).toBe(1);
    await page.getByRole("button", { name: "Close results" }).click();

    const listed = await send("GET", `/api/tenants/${account.id}/grants`, account.ownerToken);
    const { grants } = (await listed.json()) as { grants: { id: string; clientName: string }[] };
    expect(grants).toEqual([expect.objectContaining({ clientName: expect.stringContaining("Inspector") as string })]);
    const ended = await send("DELETE", `/api/tenants/${account.id}/grants/${grants[0]?.id}`, account.ownerToken);
    expect(ended.status).toBe(200);
    await call(page);
    // Neither the access nor the refresh token counts any more: the page has left to ask the person again.
    await page.waitForURL((at) => at.origin === system.publicUrl);
    await shows(page, "Let a client in");
    const after = await send("GET", `/api/tenants/${account.id}/grants`, account.ownerToken);
    expect(await after.json()).toMatchObject({ grants: [] });
  },
);
