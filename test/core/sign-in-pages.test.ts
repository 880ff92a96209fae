// The OAuth server and the pages of the sign-in, as far as no database is asked: browser clients, refusals are pages, and a deployment in direct mode has no OAuth server.
import { beforeAll, expect, test, vi } from "vitest";
import type { Route } from "../../src/http.ts";
import type { app as App } from "../../src/routes.ts";
import { appFetch } from "../support/app-requests.ts";

// Classes of the platform, which exist only in workerd.
vi.mock("cloudflare:workers", () => ({ DurableObject: Object, WorkflowEntrypoint: Object, RpcTarget: Object }));
vi.mock("cloudflare:workflows", () => ({ NonRetryableError: Error }));

const PUBLIC_URL = "https://tollgate.example";
const issuers = [
  { issuer: "https://login.example.com", jwksUrl: "https://login.example.com/keys" },
  { issuer: "https://other.example.com", jwksUrl: "https://other.example.com/keys" },
];
let app: typeof App;
let routes: readonly Route[];
beforeAll(async () => {
  ({ app, routes } = await import("../../src/routes.ts"));
});

async function send(path: string, init: RequestInit = {}, vars: Record<string, string> = {}): Promise<Response> {
  const env = { PUBLIC_URL, OIDC_ISSUERS: "[]", CREDENTIAL_KEY: "k", ...vars };
  return appFetch(app, new Request(`${PUBLIC_URL}${path}`, init), env);
}

test.each([
  ["/oauth/authorize", 400],
  ["/oauth/authorize?client_id=a&client_id=b", 400],
  ["/oauth/authorize?redirect_uri=https://evil.example/&client_id=%00", 400],
  ["/oauth/callback", 400],
  ["/oauth/callback?state=made-up&code=c", 400],
])("GET %s is refused with a page that sends the browser nowhere", async (path, status) => {
  const answer = await send(path);
  expect(answer.status).toBe(status);
  expect(answer.headers.get("location")).toBeNull();
  expect(answer.headers.get("content-type")).toContain("text/html");
  const html = await answer.text();
  expect(html).toContain(answer.headers.get("x-request-id") ?? "no id");
  expect(html).not.toMatch(/evil\.example|http-equiv="refresh"|<form/);
});

test("a form of another site changes nothing, and asks no database", async () => {
  for (const path of ["/oauth/consent", "/sign-out"]) {
    for (const headers of [{}, { origin: "https://evil.example" }, { origin: "null" }] as Record<string, string>[]) {
      const answer = await send(path, { method: "POST", headers, body: "decision=allow" });
      expect(answer.status, path).toBe(403);
      expect(answer.headers.getSetCookie()).toEqual([]);
    }
  }
});

test("without a provider a page says so, and names no provider that has no client", async () => {
  const answer = await send("/sign-in", {}, { OIDC_ISSUERS: JSON.stringify(issuers) });
  expect(answer.status).toBe(503);
  expect(answer.headers.get("retry-after")).toMatch(/^\d+$/);
  expect(await answer.text()).not.toContain("login.example.com");
});

test("with several providers a page has one link for each, which keeps the rest of the request", async () => {
  const given = issuers.map((issuer, index) => ({
    ...issuer,
    clientId: "tollgate",
    ...(index === 0 && { name: "First <1>" }),
  }));
  const answer = await send("/sign-in?return=/app%3Ftab%3Dkeys", {}, { OIDC_ISSUERS: JSON.stringify(given) });
  expect(answer.status).toBe(200);
  const html = await answer.text();
  const links = [...html.matchAll(/<a class="button" href="(?<href>[^"]*)">(?<name>[^<]*)<\/a>/g)].map(({ groups }) => [
    Object.fromEntries(new URL((groups?.["href"] ?? "").replaceAll("&amp;", "&"), PUBLIC_URL).searchParams),
    groups?.["name"],
  ]);
  expect(links).toEqual([
    [{ return: "/app?tab=keys", provider: "https://login.example.com" }, "First &lt;1&gt;"],
    [{ return: "/app?tab=keys", provider: "https://other.example.com" }, "other.example.com"],
  ]);
});

test("in direct mode the metadata names the one issuer, and there is no OAuth server", async () => {
  const direct = { OAUTH_MODE: "direct", OIDC_ISSUERS: JSON.stringify(issuers) };
  const servers = async (vars: Record<string, string>): Promise<unknown> => {
    const answer = await send("/.well-known/oauth-protected-resource/mcp", {}, vars);
    return ((await answer.json()) as { authorization_servers: string[] }).authorization_servers;
  };
  expect(await servers(direct)).toEqual(["https://login.example.com"]);
  for (const mode of ["server", ""]) expect(await servers({ ...direct, OAUTH_MODE: mode })).toEqual([PUBLIC_URL]);
  for (const path of [
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration/mcp",
    "/oauth/authorize",
  ])
    expect((await send(path, {}, direct)).status, path).toBe(404);
  for (const path of ["/oauth/register", "/oauth/token", "/oauth/revoke", "/oauth/consent"])
    expect((await send(path, { method: "POST", body: "" }, direct)).status, path).toBe(404);
});

test("a browser client of any origin registers and exchanges codes, and reads no page", async () => {
  const preflight = await send("/oauth/token", { method: "OPTIONS" });
  expect(preflight.status).toBe(204);
  expect(preflight.headers.get("access-control-allow-methods")).toContain("POST");
  for (const path of ["/oauth/register", "/oauth/token", "/oauth/revoke"]) {
    const answer = await send(path, { method: "POST", headers: { "content-type": "application/json" }, body: "{}" });
    expect(answer.status, path).toBe(400);
    expect(await answer.json(), path).toMatchObject({ error: expect.stringMatching(/^invalid_/) });
    expect(answer.headers.get("access-control-allow-origin"), path).toBe("*");
  }
  for (const path of ["/oauth/authorize", "/oauth/callback", "/sign-in"])
    expect((await send(path)).headers.get("access-control-allow-origin"), path).toBeNull();
});

test("the metadata in each form names paths that exist", async () => {
  for (const path of ["/.well-known/oauth-authorization-server/mcp", "/.well-known/openid-configuration"]) {
    const document = (await (await send(path)).json()) as Record<string, string>;
    expect(document["issuer"]).toBe(PUBLIC_URL);
    const methods = ["authorization", "token", "registration", "revocation"].map(
      (name) => routes.find((route) => PUBLIC_URL + route.path === document[`${name}_endpoint`])?.method,
    );
    expect(methods, path).toEqual(["GET", "POST", "POST", "POST"]);
  }
});
