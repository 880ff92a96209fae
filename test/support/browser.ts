// A real Chromium for the tests of a file, from npm or from this machine. It starts with the first page that a test opens, and ends
// with the file.
//
// Invariants: it reaches this machine's loopback addresses alone. Each page has cookies of its own. A test fails when one of its
// pages has reported an error: a script that failed, or anything that the content policy has refused.
import { access, chmod, constants, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { inflate } from "@sparticuz/chromium";
import { type Browser, type BrowserContext, type BrowserContextOptions, type Page, chromium } from "playwright-core";
import { afterAll, expect, onTestFinished } from "vitest";
import { childEnvironment } from "../../dev/child-environment.ts";
import { serveOnLoopback } from "../../dev/loopback.ts";
import { system } from "./flow.ts";

const modules = resolve(import.meta.dirname, "../../node_modules");

/** Chromium starts no service of its own, and finds no host but this machine. */
const ARGUMENTS = [
  ...["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
  ...["--disable-gpu", "--font-render-hinting=none"],
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
];

interface Program {
  /** A path, or an installation that Playwright finds. */
  launch: { executablePath: string } | { channel: string };
  env: Record<string, string>;
}

/** CHROMIUM_PATH, or the Chromium of the npm package, which is for Linux on x64. Elsewhere Chrome must be installed. */
async function programOf(): Promise<Program> {
  const path = process.env["CHROMIUM_PATH"];
  if (path !== undefined) return { launch: { executablePath: path }, env: {} };
  if (process.platform === "linux" && process.arch === "x64") return unpacked();
  return { launch: { channel: "chrome" }, env: {} };
}

/**
 * Unpacks the package once, with the libraries and the font that a bare machine lacks. The folder appears complete or not at all,
 * because several test files start at once.
 */
async function unpacked(): Promise<Program> {
  const home = join(modules, "@sparticuz/chromium");
  const { version } = JSON.parse(await readFile(join(home, "package.json"), "utf8")) as { version: string };
  const folder = join(modules, ".cache", `chromium-${version}`);
  const program = join(folder, "chromium");
  const env = { LD_LIBRARY_PATH: join(folder, "al2023/lib"), FONTCONFIG_FILE: join(folder, "fonts.conf") };
  if (await isThere(program)) return { launch: { executablePath: program }, env };
  const making = `${folder}-${process.pid}`;
  await mkdir(making, { recursive: true });
  await Promise.all(
    ["chromium.br", "al2023.tar.br", "fonts.tar.br"].map((name) => unpackInto(making, join(home, "bin", name))),
  );
  await chmod(join(making, "chromium"), 0o755); // another user may run the tests, too
  const fonts = `<fontconfig><dir>${folder}/fonts</dir><cachedir>${folder}/font-cache</cachedir></fontconfig>`;
  await writeFile(join(making, "fonts.conf"), `<?xml version="1.0"?>${fonts}`);
  await rename(making, folder).catch(async (error: unknown) => {
    await rm(making, { recursive: true, force: true });
    if (!(await isThere(program))) throw error;
  });
  return { launch: { executablePath: program }, env };
}

/** The package always unpacks into the folder for temporary files. It reads the folder's name before it starts. */
function unpackInto(folder: string, file: string): Promise<string> {
  const before = process.env["TMPDIR"];
  process.env["TMPDIR"] = folder;
  const done = inflate(file);
  if (before === undefined) delete process.env["TMPDIR"];
  else process.env["TMPDIR"] = before;
  return done;
}

async function isThere(program: string): Promise<boolean> {
  return access(program, constants.X_OK).then(
    () => true,
    () => false,
  );
}

let started: Promise<Browser> | undefined;
let homeFolder: string | undefined;

async function start(): Promise<Browser> {
  const { launch, env } = await programOf();
  homeFolder = await mkdtemp(join(tmpdir(), "tollgate-chromium-"));
  return chromium.launch({
    ...launch,
    args: ARGUMENTS,
    env: childEnvironment({ HOME: homeFolder, ...env }),
    // Vitest stops its workers itself. If a worker dies, Chromium ends with it: it reads its orders from the worker.
    ...{ handleSIGINT: false, handleSIGTERM: false, handleSIGHUP: false },
  });
}

afterAll(async () => {
  await (await started)?.close();
  if (homeFolder !== undefined) await rm(homeFolder, { recursive: true, force: true });
});

/** A page of a new window, with no cookies. The window closes with the test. */
export async function newPage(options: BrowserContextOptions = {}): Promise<Page> {
  started ??= start();
  const context = await (await started).newContext(options);
  const complaints = complaintsOf(context);
  onTestFinished(async () => {
    await context.close();
    expect(complaints()).toEqual([]);
  });
  return context.newPage();
}

/** Pages that ask whether the person is sure, and get a yes. */
const confirming = new WeakSet<Page>();

/** Presses the button, and confirms what the page asks before it sends the form. */
export async function confirmed(page: Page, press: () => Promise<void>): Promise<void> {
  confirming.add(page);
  await press();
  expect(confirming.delete(page), "the page asked nothing").toBe(false);
}

/** What the pages of a window have reported, without the note that Chromium makes of a page whose status is 400 or more. */
function complaintsOf(context: BrowserContext): () => string[] {
  const reported: { text: string; url: string }[] = [];
  const errorPages = new Set<string>();
  context.on("console", (message) => {
    if (message.type() !== "log") reported.push({ text: message.text(), url: message.location().url });
  });
  context.on("weberror", (error) => void reported.push({ text: String(error.error()), url: "" }));
  context.on("dialog", (dialog) => {
    const page = dialog.page();
    const isWanted = dialog.type() === "confirm" && page !== null && confirming.delete(page);
    if (!isWanted) reported.push({ text: `a dialog: ${dialog.message()}`, url: "" });
    void (isWanted ? dialog.accept() : dialog.dismiss());
  });
  context.on("response", (response) => {
    if (response.request().isNavigationRequest() && response.status() >= 400) errorPages.add(response.url());
  });
  const isNote = ({ text, url }: (typeof reported)[number]): boolean =>
    errorPages.has(url) && text.startsWith("Failed to load resource: the server responded with a status of");
  return () => reported.filter((each) => !isNote(each)).map(({ text, url }) => `${url} ${text}`);
}

/** A client that waits for its code at a loopback port of its own, as programs on a person's machine do. */
export async function aWaitingClient(): Promise<{ redirectUri: string; cameBack: Promise<URL> }> {
  const { promise: cameBack, resolve: come } = Promise.withResolvers<URL>();
  const listening = await serveOnLoopback(({ url }) => {
    if (new URL(url).pathname === "/callback") come(new URL(url));
    const page = `<!doctype html><html lang="en"><title>Client</title><h1>You can close this window</h1></html>`;
    return new Response(page, { headers: { "content-type": "text/html" } });
  }, 0);
  onTestFinished(() => listening.close());
  return { redirectUri: `${listening.url}/callback`, cameBack };
}

/** Waits until the window shows the page with this heading. */
export async function shows(page: Page, heading: string): Promise<void> {
  await page.getByRole("heading", { level: 1, name: heading, exact: true }).waitFor();
}

/** Chooses a person on the sign-in page of the local provider, for one of the person's organisations. Ends back at Tollgate. */
export async function choosePerson(page: Page, choice: { sub: string; organisation?: string }): Promise<void> {
  const fields = Object.entries(choice).map(([name, value]) => `:has(input[name="${name}"][value="${value}"])`);
  await page.locator(`form${fields.join("")} button`).click();
  await page.waitForURL((url) => url.origin === system.publicUrl);
}
