// Attacks on `context.fetch`: addresses in every notation, redirects to each, names that change their address, and headers.
import { afterEach, expect, test, vi } from "vitest";
import { checkedUrl, hostProblem } from "../../src/tools/outbound.ts";
import type { ToolRequest } from "../../src/tools/tool.ts";
import { HOSTS, SECRET, ask, problemOf, world } from "../support/outside-world.ts";

afterEach(() => void vi.restoreAllMocks());

const redirectTo = (location: string, status = 302) => new Response(null, { status, headers: { location } });

// ---- URLs

test.each([
  ["https://api.example.com/a?b=c", "https://api.example.com/a?b=c"],
  ["https://API.Example.COM/", "https://api.example.com/"],
  ["https://api.example.com./a", "https://api.example.com/a"],
  ["https://api.example.com:443/", "https://api.example.com/"],
  ["https://odd.example.com:8443/", "https://odd.example.com:8443/"],
  ["https://a.cdn.example.com/", "https://a.cdn.example.com/"],
  ["https://a.b.cdn.example.com/", "https://a.b.cdn.example.com/"],
  ["https://ａｐｉ.example.com/", "https://api.example.com/"], // full-width letters are the same name by UTS 46
])("%s is allowed as %s", (url, asSent) => {
  expect(checkedUrl(url, HOSTS)).toMatchObject({ href: asSent });
});

/** URLs of private places, in notations that parsers read in different ways. */
const hostile = [
  ...["https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/"],
  ...["https://0x7f.1/", "https://127.0.0.1./", "https://169.254.169.254/latest/meta-data", "https://2852039166/"],
  ...["https://0/", "https://0.0.0.0/", "https://10.0.0.1/", "https://①②⑦.⓪.⓪.①/", "https://127。0。0。1/"],
  ...[
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[fe80::1]/",
  ],
  ...["https://[fc00::1]/", "https://[64:ff9b::7f00:1]/", "https://[fe80::1%25eth0]/", "https://[2606:4700::1111]/"],
  ...["https://8.8.8.8/", "https://localhost/", "https://api.localhost/", "https://printer.local/"],
  ...["https://metadata.google.internal/", "https://intranet/", "https://router.home.arpa/"],
  ...["https://user:pw@api.example.com/", "https://api.example.com@evil.example/", "https://@api.example.com/"],
  ...[
    "https://api.example.com:pw@evil.example/",
    "https://evil.example\\@api.example.com/",
    "https:\\\\api.example.com/",
  ],
  ...[
    "https://api.example.com\\.evil.example/",
    "https://evil.example#@api.example.com/",
    "https://evil.example/api.example.com",
  ],
  ...["https://api.example.com\t.evil.example/", "https://api.example.com/\r\nHost: evil", " https://api.example.com/"],
  ...[
    "https://аpi.example.com/",
    "https://api.exаmple.com/",
    "https://api.example.com.evil.example/",
    "https://xapi.example.com/",
  ],
  ...["https://cdn.example.com/", "https://evilcdn.example.com/", "https://a.cdn.example.com.evil.example/"],
  ...[
    "https://api.example.com:8443/",
    "https://odd.example.com/",
    "https://api.example.com:80/",
    "https://api.example.com../",
  ],
  ...[
    "http://api.example.com/",
    "ftp://api.example.com/",
    "file:///etc/passwd",
    "data:text/plain,x",
    "//api.example.com/",
  ],
  ...["javascript:alert(1)", "", "api.example.com", `https://api.example.com/${"a".repeat(8_200)}`],
];

test.each(hostile)("the URL %j is refused and nothing is sent", async (url) => {
  const { sent, lookedUp } = world();
  expect(await problemOf(ask(url))).toMatchObject({ code: "fetch_refused", kind: "permanent" });
  expect([sent, lookedUp]).toEqual([[], []]);
});

test.each(hostile.filter((url) => /^(?:https?|ftp|file|data|javascript):/.test(url) && !/[\r\n]/.test(url)))(
  "a redirect to %j is refused, and nothing follows",
  async (url) => {
    for (const status of [301, 302, 303, 307, 308]) {
      const { sent } = world({
        // A header has bytes: browsers and servers escape other characters.
        answer: () => redirectTo(url.replaceAll(/[^\p{ASCII}]/gu, encodeURIComponent), status),
      });
      const { code } = await problemOf(ask("https://api.example.com/"));
      expect([code, sent.length], String(status)).toEqual(["fetch_refused", 1]);
      vi.restoreAllMocks();
    }
  },
  20_000,
);

test("a refusal names the host and the rule, and no path and no query", async () => {
  world();
  const { message } = await problemOf(ask(`https://evil.example/path-1?key=${SECRET}`));
  expect(message).toBe("Request to evil.example: the tool does not list it in its hosts.");
  world({ answer: () => redirectTo(`https://evil.example/path-1?key=${SECRET}`) });
  const redirected = await problemOf(ask(`https://api.example.com/path-2?key=${SECRET}`));
  expect(redirected.message).toContain(
    "Request to api.example.com: a redirect leads on to where the tool does not list it",
  );
  expect(redirected.message).not.toMatch(new RegExp(`path-|${SECRET}`));
});

test.each([
  ["https://api.example.com", /is no name of a host/],
  ["API.example.com", /is no name of a host/],
  ["bücher.example.com", /is no name of a host/],
  ["api.example.com/path", /is no name of a host/],
  ["*", /is no name of a host/],
  ["a.*.example.com", /is no name of a host/],
  ["api.example.com:99999", /is no name of a host/],
  ["*.com", /is no name of a host|top-level domain/],
  ["localhost", /is no name of a host/],
  ["127.0.0.1", /is no name of a host/],
  ["printer.local", /is no host on the internet/],
  ["metadata.google.internal", /is no host on the internet/],
])("the entry %s of a tool's hosts is refused", (entry, problem) => {
  expect(hostProblem(entry)).toMatch(problem);
});

test.each(["api.example.com", "*.example.com", "api.example.com:8443", "xn--bcher-kva.example.com"])(
  "the entry %s of a tool's hosts is taken",
  (entry) => expect(hostProblem(entry)).toBeUndefined(),
);

// ---- the DNS

test.each([
  ...[["127.0.0.1"], ["169.254.169.254"], ["10.1.2.3"], ["::1"], ["fd00::1"], ["::ffff:10.0.0.1"], ["64:ff9b::a00:1"]],
  ...[["93.184.216.34", "10.0.0.1"], ["93.184.216.34", "fe80::1"], ["not-an-address"]],
])("a name with the addresses %s is refused before the request", async (...addresses) => {
  const { sent } = world({ addresses: { "api.example.com": [addresses] } });
  expect(await problemOf(ask("https://api.example.com/"))).toEqual({
    ...{ code: "fetch_refused", kind: "permanent" },
    message: "Request to api.example.com: its address is not public.",
  });
  expect(sent).toEqual([]);
});

test("a name without an address, and a resolver that fails, are failures that may pass", async () => {
  world({ addresses: { "api.example.com": [[]] } });
  expect(await problemOf(ask("https://api.example.com/"))).toMatchObject({ code: "fetch_failed", kind: "temporary" });
  vi.restoreAllMocks();
  vi.spyOn(globalThis, "fetch").mockRejectedValue(new TypeError("no route"));
  expect(await problemOf(ask("https://api.example.com/"))).toMatchObject({
    ...{ code: "fetch_failed", kind: "temporary" },
    message: "Request to api.example.com: its address cannot be looked up.",
  });
});

test("a name that turns private before a redirect meets the first wall: each hop is looked up", async () => {
  const rebinding = { "api.example.com": [["93.184.216.34"], ["127.0.0.1"]] };
  const { sent, lookedUp } = world({ addresses: rebinding, answer: () => redirectTo("/again") });
  expect(await problemOf(ask("https://api.example.com/"))).toMatchObject({
    ...{ code: "fetch_refused", message: "Request to api.example.com: its address is not public." },
  });
  expect([sent.length, lookedUp.length]).toEqual([1, 2]);
});

test("a name that turns private between look and use meets the second wall: the network has no route", async () => {
  // The network resolves the name itself, as Cloudflare's does, and gets the second answer.
  const resolver = [["93.184.216.34"], ["127.0.0.1"]];
  const network = (): Response => {
    const [address = ""] = resolver[1] ?? [];
    if (address.startsWith("127.")) throw new TypeError("Network connection lost.");
    return new Response("the private service");
  };
  const { sent } = world({ addresses: { "api.example.com": resolver }, answer: network });
  const { code, message } = await problemOf(ask("https://api.example.com/"));
  expect([sent.length, code, message]).toEqual([
    1,
    "fetch_failed",
    "Request to api.example.com: it cannot be reached.",
  ]);
});

// ---- redirects

test("up to five redirects are followed, and a loop ends", async () => {
  let left = 5;
  const { sent } = world({ answer: () => (left-- > 0 ? redirectTo(`/${left}`) : new Response("end")) });
  expect(await (await ask("https://api.example.com/")).text()).toBe("end");
  expect(sent).toHaveLength(6);
  vi.restoreAllMocks();
  const loop = world({ answer: () => redirectTo("https://api.example.com/") });
  expect(await problemOf(ask("https://api.example.com/"))).toMatchObject({ code: "fetch_refused" });
  expect(loop.sent).toHaveLength(6);
});

test("a redirect to another host loses credentials and every header with a secret, and one to the same host keeps them", async () => {
  const headers = { authorization: "Bearer x", cookie: "a=b", "x-api-key": SECRET, accept: "application/json" };
  const away = world({
    answer: ({ url }) => (url.includes("api.") ? redirectTo("https://a.cdn.example.com/file") : new Response("file")),
  });
  await ask("https://api.example.com/", { headers });
  expect([...(away.sent[1]?.headers ?? [])]).toEqual([["accept", "application/json"]]);
  vi.restoreAllMocks();
  const stays = world({ answer: ({ url }) => (url.endsWith("/b") ? new Response("ok") : redirectTo("/b")) });
  await ask("https://api.example.com/a", { headers });
  expect([...(stays.sent[1]?.headers ?? [])].map(([name]) => name)).toEqual([
    "accept",
    "authorization",
    "cookie",
    "x-api-key",
  ]);
});

test.each([
  [301, "POST", "GET", ""],
  [302, "POST", "GET", ""],
  [303, "POST", "GET", ""],
  [303, "PUT", "GET", ""],
  [301, "PUT", "PUT", "{}"],
  [307, "POST", "POST", "{}"],
  [308, "POST", "POST", "{}"],
])("after a %i a %s becomes a %s, by the Fetch standard", async (status, method, after, body) => {
  const { sent } = world({ answer: ({ url }) => (url.endsWith("/b") ? new Response("ok") : redirectTo("/b", status)) });
  await ask("https://api.example.com/a", { method, body: "{}", headers: { "content-type": "application/json" } });
  expect(sent[1]).toMatchObject({ method: after, body });
  expect(sent[1]?.headers.has("content-type")).toBe(body !== "");
});

test("a body with a secret is not sent on to another host", async () => {
  const { sent } = world({ answer: () => redirectTo("https://a.cdn.example.com/", 307) });
  const { code, message } = await problemOf(ask("https://api.example.com/", { method: "POST", body: `key=${SECRET}` }));
  expect([code, sent.length]).toEqual(["fetch_refused", 1]);
  expect(message).toContain("a body with a secret");
});

test("a tool can take a redirect as the answer", async () => {
  world({ answer: () => redirectTo("https://evil.example/") });
  const response = await ask("https://api.example.com/", { redirect: "manual" });
  expect([response.status, response.headers.get("location")]).toEqual([302, "https://evil.example/"]);
});

// ---- requests

test.each<[string, ToolRequest]>([
  ["a line break in a header", { headers: { "x-a": "b\r\nhost: evil.example" } }],
  ["a line break in a header's name", { headers: { "x-a\r\nhost": "b" } }],
  ["NUL in a header", { headers: { "x-a": "b\0" } }],
  ["a header beyond Latin 1", { headers: { "x-a": "日" } }],
  ...["host", "Host", "connection", "transfer-encoding", "content-length", "upgrade", "te", "expect", "via"].map(
    (name): [string, ToolRequest] => [`the header ${name}`, { headers: { [name]: "x" } }],
  ),
  ...["cf-connecting-ip", "CF-Worker", "x-forwarded-for", "x-forwarded-host", "forwarded", "proxy-authorization"].map(
    (name): [string, ToolRequest] => [`the header ${name}`, { headers: { [name]: "x" } }],
  ),
  ["a header twice", { headers: { "x-a": "1", "X-A": "2" } }],
  ["65 headers", { headers: Object.fromEntries(Array.from({ length: 65 }, (_, n) => [`x-${n}`, "1"])) }],
  ["17 KiB of headers", { headers: { "x-a": "a".repeat(17_408) } }],
  ["the method CONNECT", { method: "CONNECT" }],
  ["the method TRACE", { method: "TRACE" }],
  ["a method with a line break", { method: "GET / HTTP/1.1\r\nHost: evil" }],
  ["a body of a GET", { body: "x" }],
  ["a body over 1 MiB", { method: "POST", body: "a".repeat(1_048_577) }],
])("a request with %s is refused and not sent", async (_, request) => {
  const { sent } = world();
  expect(await problemOf(ask("https://api.example.com/", request))).toMatchObject({ code: "fetch_refused" });
  expect(sent).toEqual([]);
});

test("a body has its type, and a text of 1 MiB is sent", async () => {
  const { sent } = world();
  await ask("https://api.example.com/", { method: "post", body: "a".repeat(1_048_576) });
  await ask("https://api.example.com/", { method: "POST", body: new URLSearchParams({ a: "b" }) });
  await ask("https://api.example.com/", {
    method: "POST",
    body: "{}",
    headers: new Headers({ "Content-Type": "application/json" }),
  });
  expect(sent.map(({ method, headers }) => [method, headers.get("content-type")])).toEqual([
    ["POST", "text/plain;charset=UTF-8"],
    ["POST", "application/x-www-form-urlencoded;charset=UTF-8"],
    ["POST", "application/json"],
  ]);
});
