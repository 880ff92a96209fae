// Rules of every page, over the table of routes, so that a new page is covered at once: no text of a stranger is markup, no cache
// keeps a page, no other site sends a form, no parameter leads to another site, and no person sees a button that would be refused.
import { beforeAll, expect, test, vi } from "vitest";
import { type TenantRole, permissionsOfRole, tenantRoles } from "../../src/core/actor.ts";
import type { Route } from "../../src/http.ts";
import { aTenant, operator, system } from "../support/flow.ts";
import { mailedToken } from "../support/people.ts";
import { formsOf } from "../support/plain-browser.ts";
import { Browser, aPerson, signedInClient } from "../support/sign-in.ts";
import { ask, emailOf } from "../support/signed-in.ts";

// Classes of the platform, which exist only in workerd.
vi.mock("cloudflare:workers", () => ({ DurableObject: Object, WorkflowEntrypoint: Object, RpcTarget: Object }));
vi.mock("cloudflare:workflows", () => ({ NonRetryableError: Error }));

const EVIL = "https://evil.example";
/** A name that would be markup, if a page did not write it as text. */
const HOSTILE = `<img src=x onerror=alert(1)>"'&amp;`;
/** Parameters by which pages of many products choose where a person goes. */
const LEADING = ["return", "returnUrl", "return_to", "next", "url", "redirect", "redirect_uri", "continue"];

/** Queries that pages need, beside their path. */
const queries: Readonly<Record<string, string>> = {
  "/app/:tenantId/plan/change": "plan=starter",
  "/app/:tenantId/plan/buy": "plan=starter",
};

let pages: readonly Route[];
/** What the parameters of paths stand for. Another parameter names nothing that exists. */
const values = new Map<string, string>();
const browsers = new Map<TenantRole, Browser>();
const browserOf = (role: TenantRole): Browser => browsers.get(role) ?? new Browser();

/** Signs a person in by the invitation that was mailed. */
async function join(sub: string): Promise<Browser> {
  const browser = new Browser();
  const invitation = await browser.page(`${system.publicUrl}/invitation?token=${await mailedToken(emailOf(sub))}`);
  const href = /<a class="button" href="(?<href>\/sign-in[^"]*)"/.exec(invitation.html)?.groups?.["href"] ?? "";
  await browser.signIn(new URL(href.replaceAll("&amp;", "&"), system.publicUrl).href, { sub });
  return browser;
}

beforeAll(async () => {
  const { routes } = await import("../../src/routes.ts");
  pages = routes.filter(({ isPage, isDownload }) => isPage === true && isDownload !== true);
  const { id } = await aTenant({ name: HOSTILE, plan: "pro" });
  const people = new Map<TenantRole, string>();
  for (const role of tenantRoles) people.set(role, await aPerson([], { name: HOSTILE }));
  const owner = people.get("owner") ?? "";
  await operator("POST", `/tenants/${id}/members`, { email: emailOf(owner) });
  browsers.set("owner", await join(owner));
  const api = `/api/tenants/${id}`;
  for (const [role, sub] of [...people].filter(([each]) => each !== "owner")) {
    await ask(browserOf("owner"), "POST", `${api}/invitations`, { email: emailOf(sub), role });
    browsers.set(role, await join(sub));
  }
  const open = await ask(browserOf("owner"), "POST", `${api}/invitations`, { email: `o'hara@${id}.example` });
  const made = await ask(browserOf("owner"), "POST", `${api}/keys`, { name: HOSTILE });
  const { client } = await signedInClient({ sub: owner }, id, browserOf("owner"));
  await client.close();
  const members = (await (await ask(browserOf("owner"), "GET", `${api}/members`)).json()) as {
    members: { id: string }[];
  };
  values.set("tenantId", id);
  values.set("keyId", ((await made.json()) as { id: string }).id);
  values.set("invitationId", ((await open.json()) as { id: string }).id);
  values.set("memberId", members.members.at(-1)?.id ?? "");
});

const filled = (path: string): string => path.replaceAll(/:(\w+)/g, (_, name: string) => values.get(name) ?? "unknown");
const pathOf = ({ path }: Pick<Route, "path">, query = queries[path]): string =>
  query === undefined ? filled(path) : `${filled(path)}?${query}`;
const nameOf = ({ method, path }: Pick<Route, "method" | "path">): string => `${method} ${path}`;
const visits = (): Route[] => pages.filter(({ method }) => method === "GET");
/** Whether the page names a thing that this test has not made. */
const isUnknown = ({ path }: Route): boolean => filled(path).includes("/unknown");

/** Opens a page as a member, or with the operator's token where the page is the operator's. */
function visit(route: Route, role: TenantRole = "owner", query?: string): Promise<Response> {
  const cookie = [...browserOf(role).cookies(system.publicUrl)].map((pair) => pair.join("=")).join("; ");
  const isOperators = route.access === "operator";
  const headers = {
    accept: "text/html",
    ...(isOperators ? { authorization: `Bearer ${system.operatorToken}` } : { cookie }),
  };
  return fetch(`${system.publicUrl}${pathOf(route, query)}`, { headers, redirect: "manual" });
}

const tagsOf = (html: string): string[] => [...html.matchAll(/<[a-z][^>]*>/gi)].map(([tag]) => tag);

test("every page writes names full of markup as text, and has no script or style of its own", async () => {
  let shown = 0;
  for (const route of visits()) {
    const answer = await visit(route);
    const html = await answer.text();
    const name = nameOf(route);
    // The page of an order is for who holds its token.
    expect(answer.status, name).toBeLessThan(isUnknown(route) || route.access === "status" ? 500 : 404);
    if (html === "") continue;
    if (html.includes("&lt;img src=x onerror=alert(1)&gt;")) shown += 1;
    expect(html, name).not.toContain("<img src=x");
    expect(
      tagsOf(html).filter((tag) => /\s(?:style|on\w+)\s*=/i.test(tag.replaceAll(/"[^"]*"/g, '""'))),
      name,
    ).toEqual([]);
    expect(
      tagsOf(html).filter((tag) => /^<(?:script(?![^>]*\ssrc=)|style\b)/i.test(tag)),
      name,
    ).toEqual([]);
    const policy = answer.headers.get("content-security-policy") ?? "";
    expect(policy, name).not.toMatch(/unsafe|https?:|\*/);
    for (const part of ["default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"])
      expect(policy, name).toContain(part);
  }
  // The name of the organisation is on each of its pages.
  expect(shown).toBeGreaterThan(10);
});

test("no cache keeps a page of a person, nor the way to the sign-in", async () => {
  for (const route of visits().filter(({ access }) => access !== "public")) {
    expect((await visit(route)).headers.get("cache-control"), nameOf(route)).toMatch(/\bno-store\b/);
    const stranger = await fetch(`${system.publicUrl}${pathOf(route)}`, { redirect: "manual" });
    expect(stranger.headers.get("cache-control"), nameOf(route)).toMatch(/\bno-store\b/);
  }
});

test.each([
  ["names another origin", { origin: EVIL }],
  ["names no origin", {}],
  ["says that it is from another site", { "sec-fetch-site": "cross-site" }],
])("a form that %s changes nothing in a person's name", async (_, headers: Record<string, string>) => {
  const cookie = [...browserOf("owner").cookies(system.publicUrl)].map((pair) => pair.join("=")).join("; ");
  for (const route of pages.filter(({ method }) => method === "POST")) {
    const answer = await fetch(`${system.publicUrl}${pathOf(route)}`, {
      method: "POST",
      headers: { ...headers, cookie, "content-type": "application/x-www-form-urlencoded" },
      body: "name=x&form=x",
      redirect: "manual",
    });
    // Without the operator's or the buyer's own credential there is none that the form could use.
    const refused = ["operator", "buyer", "status"].includes(route.access) ? [401, 403, 404] : [403];
    expect(refused, nameOf(route)).toContain(answer.status);
  }
  expect((await visit({ method: "GET", path: "/app/:tenantId" } as Route)).status).toBe(200);
});

test("no parameter of a page leads to another site", async () => {
  for (const route of visits())
    for (const url of [EVIL, "//evil.example", "/\\evil.example"]) {
      const query = new URLSearchParams(LEADING.map((name) => [name, url]));
      for (const asked of [query, ...LEADING.map((name) => new URLSearchParams({ [name]: url }))]) {
        const answer = await visit(route, "owner", asked.toString());
        const location = answer.headers.get("location") ?? "/";
        expect(new URL(location, system.publicUrl).host, nameOf(route)).not.toBe("evil.example");
        const leads = tagsOf(await answer.text()).filter((tag) =>
          /\s(?:href|action|src|content)="(?:0;url=)?(?:https:)?[/\\]{2}evil/i.test(tag.replaceAll("&#x2F;", "/")),
        );
        expect(leads, nameOf(route)).toEqual([]);
        if (route.access !== "public") break; // one request with all of them shows it where no parameter is taken
      }
    }
});

/** The route that a link or form of a page leads to. */
function routeTo(method: string, url: string): Route | undefined {
  const { pathname } = new URL(url, system.publicUrl);
  return pages.find(
    (route) => route.method === method && new RegExp(`^${route.path.replaceAll(/:\w+/g, "[^/]+")}$`).test(pathname),
  );
}

test.each(tenantRoles)(
  "%s opens the pages of the role's permissions, and sees no link or button that is refused",
  async (role) => {
    const own = permissionsOfRole[role];
    const isOwn = ({ permission }: Pick<Route, "permission">): boolean =>
      permission === undefined || own.includes(permission);
    for (const route of visits().filter(({ access }) => access === "tenant_admin")) {
      const answer = await visit(route, role);
      const name = nameOf(route);
      if (!isOwn(route)) {
        expect(answer.status, name).toBe(403);
        continue;
      }
      expect([200, 303, ...(isUnknown(route) ? [404] : [])], name).toContain(answer.status);
      const html = await answer.text();
      const links = tagsOf(html).flatMap(
        (tag) => /^<a\s[^>]*href="(?<href>\/[^"]*)"/.exec(tag)?.groups?.["href"] ?? [],
      );
      const forms = formsOf(html).map(({ action, method }) => routeTo(method.toUpperCase(), action));
      const refused = [...links.map((href) => routeTo("GET", href)), ...forms].filter(
        (to) => to !== undefined && !isOwn(to),
      );
      expect(
        refused.map((to) => to && nameOf(to)),
        name,
      ).toEqual([]);
    }
  },
);
