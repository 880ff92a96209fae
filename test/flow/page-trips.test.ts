// What a page may cost: three round trips to databases, whatever it shows. The table has every route that answers with a page.
import { beforeAll, expect, test, vi } from "vitest";
import { firstKey, signUp } from "../../dev/demo.ts";
import type { NeonProxyStats } from "../../dev/neon/proxy.ts";
import { OPERATOR_SCOPE } from "../../dev/issuer/people.ts";
import type { Route } from "../../src/http.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { HOUR_MS } from "../../src/core/time.ts";
import { billAt, used } from "../support/billing.ts";
import { aTenant, callTool, controlRows, operator, simulator, system } from "../support/flow.ts";
import { mailedToken } from "../support/people.ts";
import { textOf } from "../support/html.ts";
import { Browser, aPerson, anAuthorization } from "../support/sign-in.ts";
import { ask, emailOf } from "../support/signed-in.ts";
import { rowOf, stripeGet } from "../support/subscribers.ts";

// Classes of the platform, which exist only in workerd.
vi.mock("cloudflare:workers", () => ({ DurableObject: Object, WorkflowEntrypoint: Object, RpcTarget: Object }));
vi.mock("cloudflare:workflows", () => ({ NonRetryableError: Error }));

/** One batch is one round trip. */
const MOST_TRIPS = 3;
/** Other work, such as alarms, only adds round trips, so the fewest of some visits are the page's own. */
const MOST_VISITS = 10;

/** Queries that pages need, beside their path. */
const queries: Readonly<Record<string, string>> = {
  "/oauth/authorize": "AUTHORIZATION",
  "/invitation": "token=INVITATION",
  "/app/:tenantId/plan/change": "plan=starter",
  "/app/:tenantId/plan/buy": "plan=starter",
  "/admin/stripe-events/dismiss": "id=an-event",
  "/admin/dead-letters/dismiss": "id=a-letter",
};

/** Pages that no person reads: each only leads on, after work that tests of the sign-ins follow. */
const leadsOn = new Set(["/oauth/callback", "/admin/sign-in/callback", "/admin/sign-in/issuer"]);

let pages: readonly Route[];
/** What the parameters of paths and queries stand for. */
const values = new Map<string, string>([["page", "billing"]]);
let stranger: Browser;
let owner: Browser;
let staff: Browser;

/** A member of two organisations, who has a page to choose from. */
async function aMemberOfTwo(tenantIds: readonly string[]): Promise<Browser> {
  const sub = await aPerson([]);
  const browser = new Browser();
  for (const id of tenantIds) {
    await operator("POST", `/tenants/${id}/members`, { email: emailOf(sub), role: "owner" });
    const invitation = await browser.page(`${system.publicUrl}/invitation?token=${await mailedToken(emailOf(sub))}`);
    const href = /<a class="button" href="(?<href>\/sign-in[^"]*)"/.exec(invitation.html)?.groups?.["href"];
    if (href === undefined) await browser.submit(invitation, {});
    else await browser.signIn(new URL(href.replaceAll("&amp;", "&"), system.publicUrl).href, { sub });
  }
  return browser;
}

beforeAll(async () => {
  const { routes } = await import("../../src/routes.ts");
  pages = routes.filter(({ method, isPage, isDownload }) => method === "GET" && isPage === true && isDownload !== true);
  const order = await signUp(system.publicUrl, { plan: "pro", name: "Acme" });
  const id = order.tenantId;
  const apiKey = await firstKey(system.publicUrl, order);
  const { receipt } = await callTool(apiKey, "search_products", { query: "" });
  const { id: other } = await aTenant();
  stranger = new Browser();
  // The token moves into a cookie.
  await stranger.page(`${system.publicUrl}/checkout/${id}?token=${order.setupToken}`);
  owner = await aMemberOfTwo([id, other]);
  staff = new Browser();
  const sub = await aPerson([], { roles: ["admin"], permissions: [OPERATOR_SCOPE] });
  await staff.signIn(`${system.publicUrl}/admin/sign-in/issuer`, { sub });
  const guest = `guest@${id}.example`;
  await ask(owner, "POST", `/api/tenants/${id}/invitations`, { email: guest, role: "member" });
  const key = await ask(owner, "POST", `/api/tenants/${id}/keys`, { name: "one" });
  const { customer, periodEndMs } = await rowOf(id);
  await used({ id: TenantId.parse(id), customerId: customer }, [50_007], periodEndMs - 1);
  for (const hours of [0.1, 2]) await billAt(periodEndMs + hours * HOUR_MS);
  await simulator("/clock", { offsetMs: 0 });
  const [report] = await controlRows<{ id: string }>(`SELECT id FROM reports WHERE tenant_id = $1`, [id]);
  const { data: invoices } = await stripeGet<{ data: { id: string }[] }>(`/invoices?customer=${customer}`);
  for (const [name, value] of Object.entries({
    ...{ tenantId: id, keyId: ((await key.json()) as { id: string }).id, receipt: receipt?.id },
    ...{ reportId: report?.id, invoiceId: invoices[0]?.id },
    ...{ INVITATION: await mailedToken(guest), AUTHORIZATION: new URL((await anAuthorization()).url).search.slice(1) },
  }))
    values.set(name, value ?? "");
});

function urlOf({ path }: Route): string {
  const filled = path.replaceAll(/:(\w+)/g, (_, name: string) => values.get(name) ?? "unknown");
  const query = (queries[path] ?? "").replace(/[A-Z]{5,}/, (name) => values.get(name) ?? "");
  return `${system.publicUrl}${filled}${query === "" ? "" : `?${query}`}`;
}

function browserOf({ access, path }: Route): Browser {
  if (access === "operator") return staff;
  const isStrangers = access === "public" || access === "status";
  return isStrangers && !["/oauth/authorize", "/sign-in"].includes(path) ? stranger : owner;
}

/** Round trips so far, and sessions, which a page must not open. */
async function tripsSoFar(): Promise<number> {
  const stats = (await (await fetch(`${system.proxyUrl}/_proxy/stats`)).json()) as NeonProxyStats;
  return stats.httpBatches + stats.websocketConnections;
}

/** The fewest round trips of some visits, and the status of the last. */
async function costOf(browser: Browser, url: string): Promise<{ trips: number; status: number }> {
  const cookie = [...browser.cookies(system.publicUrl)].map((pair) => pair.join("=")).join("; ");
  const cost = { trips: Infinity, status: 0 };
  for (let visit = 0; visit < MOST_VISITS && (visit < 2 || cost.trips > MOST_TRIPS); visit += 1) {
    const before = await tripsSoFar();
    const answer = await fetch(url, { headers: { cookie, accept: "text/html" }, redirect: "manual" });
    await answer.arrayBuffer();
    cost.trips = Math.min(cost.trips, (await tripsSoFar()) - before);
    cost.status = answer.status;
  }
  return cost;
}

/** The pages that cost too much, and those that were refused, which would cost less than they do. */
async function faultsOf(read: readonly Route[], browser: (route: Route) => Browser): Promise<string[]> {
  const faults: string[] = [];
  for (const route of read) {
    const { trips, status } = await costOf(browser(route), urlOf(route));
    if (trips > MOST_TRIPS) faults.push(`${route.path} makes ${trips} round trips`);
    if (status !== 200) faults.push(`${route.path} answers ${status}`);
  }
  return faults;
}

test("every page is read with at most three round trips to databases", async () => {
  const read = pages.filter(({ path }) => !leadsOn.has(path));
  expect(read.length).toBeGreaterThan(60);
  expect(await faultsOf(read, browserOf)).toEqual([]);
}, 120_000);

test("an operator who acts for a customer reads each page of it with at most three round trips, too", async () => {
  const tenantUrl = `${system.publicUrl}/admin/tenants/${values.get("tenantId")}`;
  const overview = await staff.page(`${tenantUrl}/impersonate`, {
    method: "POST",
    headers: { origin: system.publicUrl },
    body: new URLSearchParams({ reason: "Ticket 4711" }),
  });
  expect(textOf(overview.html)).toContain("Reason: Ticket 4711");
  const read = pages.filter(({ path }) => path.startsWith("/app/:tenantId"));
  const faults = await faultsOf(read, () => staff);
  // What an impersonator must not do is refused.
  expect(faults.filter((fault) => !fault.endsWith("answers 403"))).toEqual([]);
  expect(faults.length).toBeLessThan(read.length / 2);
}, 120_000);
