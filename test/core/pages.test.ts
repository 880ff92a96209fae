// What every page has in common: it loads only files of Tollgate's own, has no inline style and no inline script, shows markup in
// texts as text, and no cache keeps a page for one person. No system runs.
import { docs } from "#docs";
import { Hono } from "hono";
import { type Child, type FC, jsx } from "hono/jsx";
import { beforeAll, expect, test, vi } from "vitest";
import { plans } from "../../src/core/plans/plans.ts";
import type { HttpEnv, Route } from "../../src/http.ts";
import { isOrderToken, orderCookie, orderTokensOf } from "../../src/identity/keys/order-cookie.ts";
import { accountStyle } from "../../src/pages/assets/assets.ts";
import { type PageOptions, personalPage } from "../../src/pages/layout/layout.tsx";
import { Badge } from "../../src/pages/parts/notice.tsx";
import { Copyable } from "../../src/pages/parts/code.tsx";
import { Figure, Instant, dollars, units } from "../../src/pages/parts/figures.tsx";
import { flashCookie, flashOf } from "../../src/pages/layout/flash.ts";
import { Action, Field, Select } from "../../src/pages/parts/form.tsx";
import type { SidedFrame } from "../../src/pages/layout/frame.tsx";
import { Meter } from "../../src/pages/parts/figures.tsx";
import { Empty, Notice } from "../../src/pages/parts/notice.tsx";
import { Steps } from "../../src/pages/parts/steps.tsx";
import { type Column, Table } from "../../src/pages/parts/table.tsx";
import { catalogue } from "../../src/tools/catalogue.ts";
import { mostUnits, priceInWords } from "../../src/tools/tool.ts";
import type { app as App } from "../../src/routes.ts";
import { appFetch } from "../support/app-requests.ts";

// Classes of the platform, which exist only in workerd.
vi.mock("cloudflare:workers", () => ({ DurableObject: Object, WorkflowEntrypoint: Object, RpcTarget: Object }));
vi.mock("cloudflare:workflows", () => ({ NonRetryableError: Error }));

const PUBLIC_URL = "https://tollgate.example";
const issuers = ["https://one.example", "https://two.example"].map((issuer) => ({
  ...{ issuer, jwksUrl: `${issuer}/keys`, clientId: "tollgate" },
}));
const env = {
  ...{ PUBLIC_URL, OIDC_ISSUERS: JSON.stringify(issuers), ALLOWED_ORIGINS: "", CREDENTIAL_KEY: "k" },
  CONTROL_DATABASE_URL: "postgres://service:secret@127.0.0.1:1/control",
  NEON_FETCH_ENDPOINT: "http://127.0.0.1:1/sql",
};

let app: typeof App;
let routes: readonly Route[];
beforeAll(async () => {
  ({ app, routes } = await import("../../src/routes.ts"));
});

const get = async (path: string, headers: Record<string, string> = {}): Promise<Response> =>
  appFetch(app, new Request(`${PUBLIC_URL}${path}`, { headers }), env);

/** Every page that a stranger can open, and the refusals of the others. */
async function pages(): Promise<{ path: string; answer: Response; html: string }[]> {
  const found = [];
  const rows = routes.filter((route) => route.method === "GET" && route.access !== "operator");
  const more = docs.map(({ slug }) => ({ method: "GET", path: `/docs/${slug}` }));
  for (const { method, path } of [...rows, ...more]) {
    const filled = path.replaceAll(/:\w+/g, "one");
    const answer = await get(filled);
    if (answer.headers.get("content-type")?.startsWith("text/html") !== true) continue;
    found.push({ path: `${method} ${filled}`, answer, html: await answer.text() });
  }
  return found;
}

const directives = (answer: Response): Map<string, string> =>
  new Map(
    (answer.headers.get("content-security-policy") ?? "")
      .split("; ")
      .map((part) => [part.split(" ")[0] ?? "", part.split(" ").slice(1).join(" ")]),
  );

/** What a content policy without `unsafe-inline` would refuse, and what a page must not do in any case. */
const refused =
  /<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc="\/assets\/)|<script[^>]*>[^<]|javascript:|<base|<iframe|<object|\shx-on|\sjs:/i;

function checkPage({ path, answer, html }: { path: string; answer: Response; html: string }): void {
  const policy = directives(answer);
  expect(policy.get("default-src"), path).toBe("'none'");
  expect(policy.get("style-src"), path).toBe("'self'");
  expect(policy.get("frame-ancestors"), path).toBe("'none'");
  expect(policy.get("base-uri"), path).toBe("'none'");
  expect(policy.get("script-src"), path).toBe(/<script/.test(html) ? "'self'" : undefined);
  expect(policy.get("connect-src"), path).toBe(html.includes("/assets/htmx-") ? "'self'" : undefined);
  expect([...policy.values()].join(" "), path).not.toMatch(/unsafe|\*|https?:/);
  expect(html, path).not.toMatch(refused);
  const formAction = policy.get("form-action");
  expect(formAction, path).toMatch(html.includes("<form") ? /^'self'$/ : /^'(none|self)'$/);
  for (const [, action] of html.matchAll(/<form[^>]*action="([^"]*)"/g)) expect(action, path).toMatch(/^\/(?!\/)/);
  // A person needs to know where they are, with a screen reader, too.
  expect(html, path).toMatch(/^<!doctype html><html lang="en">/);
  expect(html.match(/<h1[ >]/g), path).toHaveLength(1);
  expect(html.match(/<main id="content">/g), path).toHaveLength(1);
  expect(html, path).toContain('href="#content"');
}

test("every page and every refusal as a page loads only our own files, and its policy allows nothing inline", async () => {
  const all = await pages();
  expect(all.length).toBeGreaterThan(4);
  for (const page of all) checkPage(page);
});

test("each file that a page loads has the hash of its content in its name, and a browser keeps it for a year", async () => {
  const paths = new Set((await pages()).flatMap(({ html }) => html.match(/\/assets\/[\w.-]+/g) ?? []));
  expect(paths.size).toBeGreaterThan(0);
  for (const path of paths) {
    const answer = await get(path);
    expect(answer.status, path).toBe(200);
    expect(answer.headers.get("cache-control"), path).toBe("public, max-age=31536000, immutable");
    expect(answer.headers.get("content-type"), path).toMatch(/^text\/(css|javascript); charset=utf-8$/);
    const digest = await crypto.subtle.digest("SHA-256", await answer.arrayBuffer());
    expect(path).toContain(Buffer.from(digest).toString("hex").slice(0, 16));
  }
  expect((await get("/assets/style-0000000000000000.css")).status).toBe(404);
});

test("a page that is not the same for everyone is never cached", async () => {
  const paths = [
    ...routes.filter(({ isPage }) => isPage !== true),
    ...docs.map(({ slug }) => ({ path: `/docs/${slug}` })),
  ];
  const forEveryone = new Set(paths.map(({ path }) => `GET ${path}`));
  for (const { path, answer } of await pages())
    expect(answer.headers.get("cache-control"), path).toBe(
      forEveryone.has(path) && answer.status === 200 ? "public, max-age=300" : "no-store",
    );
});

test("no two pages that are the same for everyone have one title, by which they are kept", async () => {
  const shown = (await pages()).filter(
    ({ answer }) => answer.headers.get("cache-control")?.startsWith("public") === true,
  );
  const titles = shown.map(({ html }) => /<title>(?<title>[^<]*)</.exec(html)?.groups?.["title"]);
  expect(titles.length).toBeGreaterThan(15);
  expect(titles).toEqual([...new Set(titles)]);
});

test("a stylesheet loads nothing, and each file is smaller than its share of the first page", async () => {
  const { html } = (await pages()).find(({ path }) => path === "GET /docs/errors") ?? { html: "" };
  const path = /\/assets\/style-[\w.-]+/.exec(html)?.[0] ?? "";
  expect(html).not.toContain(accountStyle.path);
  for (const sheet of [path, accountStyle.path]) {
    const css = await (await get(sheet)).text();
    expect(css).not.toMatch(/url\(|@import/);
    expect(css.length).toBeLessThan(20_000);
  }
});

test("the first page of a visitor has less than 50,000 bytes with all files that it loads, before compression", async () => {
  const answer = await get("/");
  const html = await answer.text();
  const files = [...html.matchAll(/<(?:link rel="stylesheet" href|script src)="(?<path>[^"]+)"/g)];
  expect(files.length).toBeGreaterThan(0);
  let bytes = Buffer.byteLength(html);
  for (const { groups } of files) bytes += (await (await get(groups?.["path"] ?? "")).arrayBuffer()).byteLength;
  // Images are left out, and the page has none.
  expect(html).not.toContain("<img");
  expect(bytes).toBeGreaterThan(15_000);
  expect(bytes).toBeLessThan(50_000);
});

const hostile = `"><script>alert(1)</script><img src=x onerror=alert(1)>' onclick='alert(2)`;

/** Renders a page with this content, as a request for it would. */
async function render(content: Child, options: Partial<PageOptions> = {}, cookie = ""): Promise<Response> {
  const one = new Hono<HttpEnv>().get("/", (c) => personalPage(c, { title: "A page", ...options }, content));
  return appFetch(one, new Request(`${PUBLIC_URL}/`, { headers: { cookie } }), env);
}

/** An element with its properties, whichever they are. */
const element = <Props>(part: FC<Props> | ((props: Props) => unknown), props: Props, ...children: Child[]): Child =>
  jsx(part as unknown as FC, props as Record<string, unknown>, ...(children as string[]));

const columns: Column<string>[] = [
  { head: hostile, isHead: true, cell: (text) => text },
  { head: "Units", isNumber: true, cell: (text) => text },
];
const sided: SidedFrame = {
  ...{ kind: "sided", label: hostile, person: hostile, current: hostile, banner: hostile },
  where: { text: hostile, href: "/app" },
  groups: [{ heading: hostile, sections: [{ href: hostile, text: hostile }] }],
  menu: [{ href: "/app", text: hostile }],
};

test.each<[string, Child, Partial<PageOptions>?]>([
  ["a title and a lead", hostile, { title: hostile, lead: hostile, actions: hostile }],
  ["the frame of an account", hostile, { frame: sided, scripts: "live" }],
  ["a table", element(Table<string>, { caption: hostile, columns, rows: [hostile], idOf: (row: string) => row })],
  ["an empty list", element(Empty, { title: hostile }, hostile)],
  ["a notice", element(Notice, { tone: "bad" as const }, hostile)],
  ["a badge", element(Badge, { tone: "good" as const }, hostile)],
  ["a figure", element(Figure, { name: hostile, value: hostile, note: hostile })],
  ["a meter", element(Meter, { label: hostile, used: 1, limit: 2 })],
  ["steps", element(Steps, { steps: [{ title: hostile, status: "retrying" as const, note: hostile }] })],
  ["a text to copy", element(Copyable, { text: hostile, caption: hostile })],
  ["a field", element(Field, { label: hostile, name: hostile, value: hostile, hint: hostile, error: hostile })],
  ["a choice", element(Select, { label: hostile, name: hostile, options: [{ value: hostile, text: hostile }] })],
  [
    "an action",
    element(Action, { action: "/app", label: hostile, confirm: hostile, fields: { [hostile]: hostile } }),
    { hasForm: true },
  ],
])("markup in %s is shown as text", async (_what, content, options = {}) => {
  const answer = await render(content, options);
  const html = await answer.text();
  expect(html).toContain("&lt;script&gt;alert(1)&lt;/script&gt;");
  expect(html).not.toMatch(/<script>|<img|\sonclick='/);
  // Quotes in an attribute would end it.
  const tags = html.match(/<[a-z][^>]*>/g) ?? [];
  for (const tag of tags) expect(tag.replaceAll(/"[^"]*"/g, ""), tag).not.toMatch(/\son[a-z]+=/i);
  expect(answer.headers.get("cache-control")).toBe("no-store");
  expect(directives(answer).get("form-action")).toBe(html.includes("<form") ? "'self'" : "'none'");
});

test("a message of a form is shown once on the next page, as text, and a made-up cookie shows nothing", async () => {
  const cookie = flashCookie({ tone: "good", text: hostile });
  expect(cookie).toMatch(/^__Host-.*; Path=\/; Secure; HttpOnly; SameSite=Lax; Max-Age=60$/);
  const answer = await render("content", {}, cookie.split(";")[0]);
  expect(await answer.text()).toContain("&lt;script&gt;");
  expect(answer.headers.getSetCookie()).toEqual([expect.stringMatching(/^__Host-tollgate-message=;.*Max-Age=0$/)]);
  for (const value of ["", "x", "bm90IGpzb24", Buffer.from('{"tone":"other","text":1}').toString("base64url")])
    expect(flashOf(`a=b; __Host-tollgate-message=${value}`), value).toBeUndefined();
  expect((await render("content")).headers.getSetCookie()).toEqual([]);
});

test("figures have separators, their unit, and every cent", async () => {
  expect([units(1), units(0), units(1_234_567)]).toEqual(["1 unit", "0 units", "1,234,567 units"]);
  expect([dollars(0), dollars(1_900), dollars(123_456_789), dollars({ digits: -125n, scale: 1 })]).toEqual([
    ...["$0.00", "$19.00", "$1,234,567.89", "-$0.125"],
  ]);
  const time = await (await render(element(Instant, { at: Date.UTC(2026, 10, 28, 21, 4, 5) }))).text();
  expect(time).toContain('title="2026-11-28 21:04:05 UTC"');
  expect(time).toContain(">2026-11-28 21:04<");
});

test("the cookie of orders keeps the newest tokens of either kind, those of the set-up first, and nothing made up", () => {
  const valueOf = (cookie: string): string => cookie.split(";")[0] ?? "";
  const given = ["tgs_one.1.k.mac", "tgp_one.1.k.mac", "tgs_two.1.k.mac", "tgs_two.1.k.mac"];
  const last = given.reduce((cookies, token) => valueOf(orderCookie(cookies, token)), "a=b");
  expect(orderTokensOf(`x=y; ${last}`)).toEqual(["tgs_two.1.k.mac", "tgs_one.1.k.mac", "tgp_one.1.k.mac"]);
  const many = Array.from({ length: 20 }, (_, index) => `tgs_t${index}.${"1".repeat(120)}`);
  const full = many.reduce((cookies, token) => valueOf(orderCookie(cookies, token)), "");
  expect(full.length).toBeLessThan(4_000);
  expect(orderTokensOf(full)[0]).toBe(many.at(-1));
  expect(orderCookie("", "tgs_a.b")).toMatch(/; Path=\/; Secure; HttpOnly; SameSite=Lax; Max-Age=\d+$/);
  for (const token of ["", "tgk_key.1", "tgs_a;b", "tgs_a~b", "tgs_<script>", `tgs_${"a".repeat(700)}`])
    expect(isOrderToken(token), token).toBe(false);
});

test("each link of a document's page leads to a page and an anchor that exist, and each part has an anchor", async () => {
  const known = new Map((await pages()).map(({ path, html }) => [path.replace("GET ", ""), html]));
  let links = 0;
  for (const { slug, html } of docs) {
    for (const [, href = ""] of html.matchAll(/<a href="([^"]*)"/g)) {
      if (href.startsWith("https:")) continue;
      const [path, anchor] = href.startsWith("#") ? [`/docs/${slug}`, href.slice(1)] : href.split("#");
      expect(known.has(path ?? ""), `${slug}: ${href}`).toBe(true);
      if (anchor !== undefined) expect(known.get(path ?? ""), `${slug}: ${href}`).toContain(`id="${anchor}"`);
      links += 1;
    }
    expect(html, slug).not.toMatch(/<h[1-6]>|\.md[)"#]/);
  }
  expect(links).toBeGreaterThan(10);
});

test("agents find the endpoint, each tool with its price and each document in /llms.txt", async () => {
  const answer = await get("/llms.txt");
  expect(answer.headers.get("content-type")).toMatch(/^text\/plain/);
  const text = await answer.text();
  expect(text).toContain(`${PUBLIC_URL}/mcp`);
  for (const { name } of catalogue.values()) expect(text).toContain(`- \`${name}\` (`);
  for (const { slug, title } of docs) expect(text).toContain(`[${title}](${PUBLIC_URL}/docs/${slug})`);
});

test("the public status names the checks that fail, and no reason of theirs", async () => {
  const html = await (await get("/status")).text();
  expect(html).toContain("<li>Control database</li>");
  const { checks } = (await (await get("/health")).json()) as { checks: Record<string, { reason?: string }> };
  for (const { reason } of Object.values(checks)) if (reason !== undefined) expect(html).not.toContain(reason);
});

test("a browser that opens the address of the plans gets the page, and a program the list", async () => {
  const browser = await get("/plans", { accept: "text/html,application/xhtml+xml,*/*;q=0.8" });
  expect([browser.status, browser.headers.get("location")]).toEqual([302, "/#plans"]);
  for (const accept of ["*/*", "application/json"]) {
    const answer = await get("/plans", { accept });
    expect([answer.status, answer.headers.get("vary")]).toEqual([200, "accept"]);
  }
});

test("the first page has every tool with its price and every plan, and is under 50 kB with all that it loads", async () => {
  const html = await (await get("/")).text();
  for (const tool of catalogue.values()) {
    expect(html).toContain(`<code>${tool.name}</code>`);
    if (mostUnits(tool) > 0) expect(html).toContain(`${priceInWords(tool)} a call`);
  }
  for (const { name, amountCents } of plans.values())
    expect(html.includes(`/sign-up?plan=${name}"`), name).toBe(amountCents !== null);
  const loaded = await Promise.all(
    [...new Set(html.match(/\/assets\/[\w.-]+/g) ?? [])].map(async (path) => (await get(path)).text()),
  );
  expect(html.length + loaded.join("").length).toBeLessThan(50_000);
});
