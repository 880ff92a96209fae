// Every page of the product, as people see it with a real browser: it fits a phone, says its language and title, and people who
// use a screen reader or need contrast can work with it, in light and in dark.
import type { Page } from "playwright-core";
import { beforeAll, expect, onTestFinished, test } from "vitest";
import { billAt, used } from "../support/billing.ts";
import { aWaitingClient, choosePerson, newPage, shows } from "../support/browser.ts";
import { aTenant, callTool, simulator, system } from "../support/flow.ts";
import { signInOperator } from "../support/operators.ts";
import { faultsOf } from "../support/page-faults.ts";
import { anOwnedTenant, mailedToken, send } from "../support/people.ts";
import { signInAsOwner } from "../support/owners.ts";
import { aPerson, anAuthorization } from "../support/sign-in.ts";
import { aSubscriber, rowOf } from "../support/subscribers.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { PAGE, endpoints } from "../../src/pages/endpoints.ts";

/** A narrow phone, in CSS pixels. */
const PHONE = { width: 360, height: 780 };
const DESKTOP = { width: 1_280, height: 900 };
const HOUR_MS = 3_600_000;

let account: { id: string; ownerToken: string };
beforeAll(async () => {
  account = await anOwnedTenant({ name: "Acme" });
});

async function signIn(page: Page, organisations: readonly string[] = [account.id]): Promise<void> {
  const sub = await aPerson(organisations);
  await page.goto(`${system.publicUrl}/sign-in?prompt=select_account`);
  await choosePerson(page, { sub });
}

async function anInvitation(): Promise<string> {
  const email = `guest-${crypto.randomUUID()}@example.com`;
  await send("POST", `/api/tenants/${account.id}/invitations`, account.ownerToken, { email, role: "developer" });
  return `/invitation?token=${await mailedToken(email)}`;
}

const open = (page: Page, path: string): Promise<unknown> => page.goto(`${system.publicUrl}${path}`);

async function openConsent(page: Page, redirectUri?: string): Promise<void> {
  await signIn(page);
  await page.goto((await anAuthorization(redirectUri)).url);
}

/** An account with calls, a report of them, and an invoice with usage. Each page of it is opened by the same owner. */
const anAccountWithUsage = lazily(async () => {
  const { id, apiKey } = await aSubscriber({ plan: "pro" });
  const owner = await newPage();
  await signInAsOwner(owner, id);
  const call = (name: string, args = {}): Promise<unknown> => callTool(apiKey, name, args);
  await Promise.all([call("search_products", { query: "" }), call("read_document", { path: "none.txt" })]);
  const { customer, periodEndMs } = await rowOf(id);
  await used({ id: TenantId.parse(id), customerId: customer }, [50_000, 7_005], periodEndMs - 1);
  for (const hours of [0.1, 2]) await billAt(periodEndMs + hours * HOUR_MS);
  await simulator("/clock", { offsetMs: 0 });
  return { id, periodEndMs, cookies: await owner.context().cookies() };
});

/** Opens a page of that account, and from there the pages behind the links that fit. */
async function openAccount(page: Page, path: string, ...links: string[]): Promise<void> {
  const { id, cookies } = await anAccountWithUsage();
  await page.context().addCookies(cookies);
  await open(page, `/app/${id}${path}`);
  for (const link of links) await page.locator(link).first().click();
}

function lazily<Made>(make: () => Promise<Made>): () => Promise<Made> {
  let made: Promise<Made> | undefined;
  return () => (made ??= make());
}

interface Shown {
  /** The route that answers with the page. */
  route: string;
  page: string;
  heading: string;
  /** Leads a new window to the page. */
  reach: (page: Page) => Promise<unknown>;
}

const shown: Shown[] = [
  {
    ...{ route: "GET /docs/api", page: "the API reference", heading: "API reference" },
    reach: (page) => open(page, "/docs/api"),
  },
  {
    ...{ route: "GET /docs/errors", page: "the error codes", heading: "Error codes" },
    reach: (page) => open(page, "/docs/errors"),
  },
  {
    ...{ route: "GET /sign-in", page: "the account that is signed in", heading: "Signed in" },
    reach: (page) => signIn(page),
  },
  {
    ...{ route: "GET /sign-in", page: "the choice of a provider", heading: "Sign in" },
    reach: async (page) => {
      const settings = JSON.stringify(
        ["Auth0", "A provider with a long name that says much about itself"].map((name, index) => ({
          ...{ issuer: `https://issuer-${index}.example`, jwksUrl: `https://issuer-${index}.example/keys` },
          ...{ tenantClaim: "org_id", name, clientId: "tollgate" },
        })),
      );
      await fetch(`${system.publicUrl}/test/trust?settings=${encodeURIComponent(settings)}`);
      onTestFinished(async () => void (await fetch(`${system.publicUrl}/test/trust`)));
      await open(page, "/sign-in");
    },
  },
  {
    ...{ route: "POST /sign-out", page: "the end of a session", heading: "Signed out" },
    reach: async (page) => {
      await signIn(page);
      await page.getByRole("button", { name: "Sign out" }).click();
    },
  },
  {
    ...{ route: "GET /oauth/authorize", page: "the consent for a program of this machine", heading: "Let a client in" },
    reach: (page) => openConsent(page),
  },
  {
    ...{ route: "GET /oauth/authorize", page: "the consent with a choice", heading: "Let a client in" },
    reach: async (page) => {
      const other = await aTenant({
        name: "Gesellschaft für Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbau",
      });
      const sub = await aPerson([account.id, other.id]);
      for (const organisation of [account.id, other.id]) {
        await open(page, "/sign-in?prompt=select_account");
        await choosePerson(page, { sub, organisation });
      }
      await page.goto((await anAuthorization(`https://${"a-long-name-of-a-client.".repeat(3)}example/callback`)).url);
    },
  },
  {
    ...{
      route: "GET /oauth/authorize",
      page: "the error of an unknown client",
      heading: "This client cannot be let in",
    },
    reach: (page) => open(page, "/oauth/authorize?client_id=unknown"),
  },
  {
    ...{
      route: "GET /oauth/authorize",
      page: "a person of no organisation",
      heading: "No organisation for this account",
    },
    reach: async (page) => {
      await signIn(page, []);
      await page.goto((await anAuthorization()).url);
    },
  },
  {
    ...{ route: "POST /oauth/consent", page: "the way back to the client", heading: "Access granted" },
    reach: async (page) => {
      const { redirectUri } = await aWaitingClient();
      // The client answers without a page, so the browser stays.
      await page.route(`${redirectUri}*`, (route) => route.fulfill({ status: 204 }));
      await openConsent(page, redirectUri);
      await page.getByRole("button", { name: "Allow" }).click();
      await page.getByRole("link", { name: "Continue" }).waitFor();
    },
  },
  {
    ...{ route: "GET /invitation", page: "an invitation for a stranger", heading: "Invitation" },
    reach: async (page) => open(page, await anInvitation()),
  },
  {
    ...{ route: "GET /invitation", page: "an invitation for the person who is signed in", heading: "Invitation" },
    reach: async (page) => {
      await signIn(page, []);
      await open(page, await anInvitation());
    },
  },
  {
    ...{
      route: "GET /invitation",
      page: "the error of an unknown invitation",
      heading: "Page not found",
    },
    reach: (page) => open(page, "/invitation?token=unknown"),
  },
  {
    ...{ route: "POST /invitation", page: "a new member", heading: "You are a member" },
    reach: async (page) => {
      await signIn(page, []);
      await open(page, await anInvitation());
      await page.getByRole("button", { name: "Accept" }).click();
    },
  },
  {
    ...{ route: "GET /app/:tenantId", page: "the overview of an account without calls", heading: "Overview" },
    reach: async (page) => {
      const { id } = await aTenant();
      await signInAsOwner(page, id);
      await open(page, `/app/${id}`);
    },
  },
  {
    ...{ route: "GET /app/:tenantId", page: "the overview of an account with calls", heading: "Overview" },
    reach: (page) => openAccount(page, ""),
  },
  {
    ...{ route: "GET /app/:tenantId/usage", page: "usage with charts", heading: "Usage" },
    reach: async (page) => {
      await openAccount(page, "/usage?by=caller");
      for (const each of await page.locator("details > summary", { hasText: "Show the numbers" }).all())
        await each.click();
    },
  },
  {
    ...{ route: "GET /app/:tenantId/calls", page: "the last calls", heading: "Calls" },
    reach: (page) => openAccount(page, "/calls"),
  },
  {
    ...{ route: "GET /app/:tenantId/calls/:receipt", page: "one call", heading: "Call" },
    reach: (page) => openAccount(page, "/calls", "td a.code"),
  },
  {
    ...{ route: "GET /app/:tenantId/invoices", page: "the invoices", heading: "Invoices" },
    reach: (page) => openAccount(page, "/invoices"),
  },
];

test("each route that answers with a page has a page in this test", () => {
  const routes = Object.entries(endpoints)
    .filter(([, { answers }]) => Object.values(answers).includes(PAGE))
    .map(([route]) => route);
  expect(routes.filter((route) => shown.every((each) => each.route !== route))).toEqual([]);
});

test.each(shown)("$page fits a phone, and can be read and used by everyone", async ({ heading, reach }) => {
  const page = await newPage({ viewport: PHONE });
  await reach(page);
  await shows(page, heading);
  expect(await faultsOf(page)).toEqual([]);
  await page.setViewportSize(DESKTOP);
  expect(await page.evaluate("document.documentElement.scrollWidth - innerWidth")).toBe(0);
});

test("an invoice leads down to its calls, and each page on the way fits a phone and can be used by everyone", async () => {
  const page = await newPage({ viewport: PHONE });
  await openAccount(page, "/invoices");
  const links = ["tbody th a", "section tbody th a", "tbody th a", "tbody th a"];
  const seen: string[] = [];
  for (const link of links) {
    await page.locator(link).first().click();
    await page.waitForLoadState();
    seen.push(new URL(page.url()).pathname.split("/")[3] ?? "");
    expect(await faultsOf(page), page.url()).toEqual([]);
  }
  expect(seen).toEqual(["invoices", "reports", "reports", "calls"]);
});

test("every page of the operator's fits a phone, and can be read and used by everyone", async () => {
  const page = await newPage({ viewport: PHONE });
  await signInOperator(page, "admin");
  const tenant = `/admin/tenants/${account.id}`;
  for (const [path, heading] of [
    ["/admin", "Overview"],
    ["/admin/tenants?q=Acme", "Tenants"],
    [tenant, "Acme"],
    [`${tenant}/data`, "Acme"],
    [`${tenant}/people`, "Acme"],
    [`${tenant}/suspend`, "Suspend"],
    [`${tenant}/restore-into`, "Restore elsewhere"],
    [`${tenant}/import/upload`, "Upload an import"],
    [`${tenant}/configuration`, "Acme"],
    [`${tenant}/usage`, "Acme"],
    [`${tenant}/calls`, "Acme"],
    ["/admin/provisioning?all=true", "Provisioning"],
    ["/admin/billing", "Billing pipeline"],
    ["/admin/stripe-events", "Stripe events"],
    ["/admin/dead-letters", "Dead letters"],
    ["/admin/dead-letters/dismiss?id=a-letter", "Dismiss"],
    ["/admin/conflicts", "Usage conflicts"],
    ["/admin/reconciliation", "Reconciliation"],
    ["/admin/failures", "Alarms and failures"],
    ["/admin/work", "Moves and jobs"],
    ["/admin/migrations", "Migrations"],
    [`/admin/audit?tenant=${account.id}`, "Audit log"],
    ["/admin/access", "Operators"],
  ] as const) {
    await open(page, path);
    await shows(page, heading);
    expect(await faultsOf(page), path).toEqual([]);
    await page.emulateMedia({ colorScheme: "light" });
  }
  const stranger = await newPage({ viewport: PHONE });
  await open(stranger, "/admin");
  await shows(stranger, "Operator sign-in");
  expect(await faultsOf(stranger)).toEqual([]);
}, 180_000);

test.each([
  ["the provider's page to sign in", () => `${system.publicUrl}/sign-in`],
  ["the mailbox", () => system.mailboxUrl],
])("%s of the local system can be read and used by everyone, too", async (_, url) => {
  await anInvitation();
  const page = await newPage({ viewport: PHONE });
  await page.goto(url());
  expect(await faultsOf(page)).toEqual([]);
});
