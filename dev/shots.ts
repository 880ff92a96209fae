// `npm run shots`: a screenshot of every page, as a visitor, a customer's owner, the owner of a suspended account and the operator see
// them: light and dark, on a phone and on a desk. It runs a system of its own and follows the links of each page. Files that begin
// with `state-` show the states of an account and of its forms (page-states.ts).
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { Browser, Page } from "playwright-core";
import { readFlags } from "../cli/flags.ts";
import { freePort } from "../cli/ports.ts";
import type { DemoTenant } from "../cli/settings.ts";
import { config } from "../src/core/app-config.ts";
import { bundle } from "./bundle.ts";
import { startChromium } from "./chromium.ts";
import { crawl, linksOf } from "./crawl.ts";
import { addMembers, callAFewTools, postJson, runDemonstration, signUp } from "./demo.ts";
import { type Person, demonstrationPeople } from "./issuer/people.ts";
import { visitStates } from "./page-states.ts";
import { removePostgresData } from "./postgres/postgres.ts";
import { type System, startSystem } from "./system.ts";

const { values: flags } = readFlags({
  command: "npm run shots",
  help: `
npm run shots [-- FLAGS]   a screenshot of every page: light and dark, phone and desktop

  --to FOLDER   where they go (.dev/shots)
  --only PART   pages or states (default: both)
  --help        this text`,
  flags: { to: { type: "string", default: ".dev/shots" }, only: { type: "string" } },
});

const SCREENS = { phone: { width: 390, height: 844 }, desktop: { width: 1_280, height: 900 } } as const;
const SCHEMES = ["light", "dark"] as const;
/** Of a longer page, such as the API reference, only the first screen is shown. */
const MAX_HEIGHT = 8_000;
/** Parts that renew themselves never end, so a page counts as shown once it has loaded. */
const LOADED = "load";

const to = resolve(flags.to);
const dir = mkdtempSync(join(tmpdir(), "tollgate-shots-"));
const ends: (() => Promise<unknown>)[] = [];
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => void end().then(() => process.exit(1)));

async function end(): Promise<void> {
  for (const stop of ends.splice(0).toReversed()) await stop();
  await removePostgresData(join(dir, "postgres"));
  rmSync(dir, { recursive: true, force: true });
}

let taken = 0;

/** Takes the four screenshots of the page that a window shows. */
async function shoot(page: Page, name: string): Promise<void> {
  for (const colorScheme of SCHEMES) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    for (const [screen, size] of Object.entries(SCREENS)) {
      await page.setViewportSize(size);
      const height = Number(await page.evaluate("document.documentElement.scrollHeight"));
      const path = join(to, `${name}-${screen}-${colorScheme}.png`);
      await page.screenshot({ path, fullPage: height <= MAX_HEIGHT });
      taken += 1;
    }
  }
}

/** A path as part of a file's name. */
const nameOf = (path: string): string => path.replaceAll(/[^a-zA-Z]+/g, "-").replaceAll(/^-|-$/g, "") || "first";

/** Opens and shoots the page at this path. Returns its links; undefined: it is a file. */
async function show(page: Page, path: string, name: string): Promise<string[] | undefined> {
  if (!(await isPage(page, path))) return undefined;
  await page.goto(path, { waitUntil: LOADED });
  await shoot(page, name);
  return linksOf(await page.content());
}

/** Shoots the page at `root` and those below it. */
async function walk(page: Page, reader: string, root: string): Promise<void> {
  const depth = root.split("/").length;
  const below = (kind: string): string => kind.split("/").slice(depth).join("/");
  await crawl({ paths: [root], root, open: (path, kind) => show(page, path, `${reader}-${nameOf(below(kind))}`) });
}

/** Whether the window would show the path. Some links are downloads. */
async function isPage(page: Page, path: string): Promise<boolean> {
  const answer = await page.request.head(path, { headers: { accept: "text/html" } });
  return answer.headers()["content-type"]?.startsWith("text/html") === true;
}

/** A window without a session. */
async function newWindow(browser: Browser, baseURL: string): Promise<Page> {
  return (await browser.newContext({ baseURL })).newPage();
}

/** The states of an account and of its forms. */
async function shootStates(system: System, browser: Browser): Promise<void> {
  const { publicUrl, issuer, stripe, databases, settings } = system;
  if (issuer === undefined || stripe === undefined || databases === undefined)
    throw new Error("A stand-in is missing: the states need the local provider, the Stripe simulator and the database");
  await visitStates({
    system: {
      ...{ publicUrl, issuerUrl: issuer.url, stripeUrl: stripe.url, proxyUrl: databases.proxy.url },
      operatorToken: settings.secrets.operatorToken,
    },
    newPage: () => newWindow(browser, publicUrl),
    see: (page, name) => shoot(page, `state-${name}`),
    call: (apiKey) => callAFewTools(publicUrl, apiKey),
  });
}

interface Demonstration {
  tenants: readonly DemoTenant[];
  people: readonly Person[];
}

/** Every page, each kind once. */
async function shootPages(system: System, browser: Browser, { tenants, people }: Demonstration): Promise<void> {
  const { publicUrl, settings } = system;
  const { operatorToken } = settings.secrets;
  const visitor = await newWindow(browser, publicUrl);
  const paths = [
    "/",
    "/sign-up",
    "/sign-up?plan=pro",
    "/docs",
    "/docs/billing",
    "/docs/api",
    "/docs/errors",
    "/status",
    "/sign-in",
    "/no-such-page",
  ];
  for (const path of paths) await show(visitor, path, `visitor-${nameOf(path)}`);
  const order = await signUp(publicUrl, { plan: "free", name: "Newcomers & Sons" });
  await visitor.goto(`/checkout/${order.tenantId}?token=${order.setupToken}`, { waitUntil: LOADED });
  await shoot(visitor, "visitor-checkout");

  const ownerOf = async (tenantId: string): Promise<Page> => {
    const person = people.find(({ roles, organisations }) => roles[0] === "owner" && organisations[0]?.id === tenantId);
    const page = await newWindow(browser, publicUrl);
    await page.goto("/sign-in?return=/app", { waitUntil: LOADED });
    await page.locator(`form:has(input[name="sub"][value="${person?.sub}"]) button`).first().click();
    await page.waitForURL("**/app/**");
    return page;
  };
  for (const { id, plan } of tenants) {
    if (plan === "starter") continue;
    const root = `/app/${id}`;
    if (plan === "free") await postJson(`${publicUrl}/admin/api/tenants/${id}/suspend`, {}, operatorToken);
    const owner = await ownerOf(id);
    if (plan === "pro") await walk(owner, plan, root);
    else await show(owner, root, `${plan === "free" ? "suspended" : plan}-${nameOf("")}`);
  }

  const operator = await newWindow(browser, publicUrl);
  await operator.goto("/admin/sign-in", { waitUntil: LOADED });
  await shoot(operator, "operator-sign-in");
  await operator.locator('details:has(input[name="token"]) summary').click();
  await operator.locator('input[name="token"]').fill(operatorToken);
  await operator.locator('form:has(input[name="token"]) button').click();
  await operator.waitForURL((url) => url.pathname.startsWith("/admin") && !url.pathname.endsWith("/sign-in"));
  await walk(operator, "operator", "/admin");
}

async function main(): Promise<void> {
  mkdirSync(to, { recursive: true });
  const script = await bundle({ outDir: join(dir, "bundle") });
  const system = await startSystem({ dir, port: await freePort(), bundle: script });
  ends.push(() => system.stop());
  const tenants = await runDemonstration(system, (_title, work) => work());
  const people = demonstrationPeople(tenants, Object.keys(config.scopes));
  system.issuer?.people.replace(people);
  await addMembers(system, people);
  const { browser, stop } = await startChromium();
  ends.push(stop);

  if (flags.only !== "states") await shootPages(system, browser, { tenants, people });
  // Last: a state moves Stripe's clock, which ends the period of every customer.
  if (flags.only !== "pages") await shootStates(system, browser);
  process.stdout.write(`${taken} screenshots are in ${flags.to}\n`);
}

try {
  await main();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  process.exitCode = 1;
} finally {
  await end();
}
