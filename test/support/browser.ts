// A real Chromium for the tests of a file, from npm or from this machine. It starts with the first page that a test opens, and ends
// with the file.
//
// Invariants: it reaches this machine's loopback addresses alone. Each page has cookies of its own. A test fails when one of its
// pages has reported an error: a script that failed, or anything that the content policy has refused.
import type { BrowserContext, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, expect, onTestFinished } from "vitest";
import { startChromium } from "../../dev/chromium.ts";
import { serveOnLoopback } from "../../dev/loopback.ts";
import { system } from "./flow.ts";

let started: ReturnType<typeof startChromium> | undefined;

afterAll(async () => (await started)?.stop());

/** A page of a new window, with no cookies. The window closes with the test. `reports`: all that its pages must report, in order. */
export async function newPage(options: BrowserContextOptions = {}, reports: readonly unknown[] = []): Promise<Page> {
  started ??= startChromium();
  const { browser } = await started;
  const context = await browser.newContext(options);
  const complaints = complaintsOf(context);
  onTestFinished(async () => {
    await context.close();
    expect(complaints()).toEqual(reports);
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
