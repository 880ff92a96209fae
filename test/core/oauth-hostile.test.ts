// What strangers send to the OAuth server: no text makes it fail on our side, wakes a tenant's object, or sends a browser away.
import * as fc from "fast-check";
import { expect, onTestFinished, test, vi } from "vitest";
import { answerRegistration, answerTokenRequest } from "../../src/identity/oauth/server.ts";
import { PUBLIC_URL, REDIRECT_URI, oauthObjects, site } from "../support/oauth-objects.ts";

/** Names and values that the protocol has a meaning for, and any other text. */
const names = [
  ...["client_id", "redirect_uri", "response_type", "scope", "state", "code_challenge", "code_challenge_method"],
  ...["resource", "grant_type", "code", "code_verifier", "refresh_token", "token", "client_secret", "prompt"],
  ...["client_assertion", "client_assertion_type", "assertion", "subject_token", "request", "request_uri"],
];
const values = [
  ...[
    "code",
    "S256",
    "plain",
    REDIRECT_URI,
    "javascript:alert(1)",
    "cursor://x",
    `${PUBLIC_URL}/mcp`,
    "tools:read",
    "",
  ],
  ...["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:jwt-bearer", "constructor", "__proto__"],
  ...["urn:ietf:params:oauth:grant-type:token-exchange", "tgo_acme.m1.k.x:y:z", "https://agent.example/client.json"],
];
const field = fc.tuple(
  fc.oneof({ weight: 9, arbitrary: fc.constantFrom(...names) }, fc.string({ unit: "binary", maxLength: 20 })),
  fc.oneof({ weight: 3, arbitrary: fc.constantFrom(...values) }, fc.string({ unit: "binary", maxLength: 60 })),
);
const form = fc.array(field, { maxLength: 12 }).map((fields) => new URLSearchParams(fields).toString());

/** Silences the log. Returns the addresses that are asked for. */
function quietly(): string[] {
  const spies = (["info", "warn", "error"] as const).map((level) =>
    vi.spyOn(console, level).mockImplementation(() => {}),
  );
  // A metadata document is asked of the outside world, which is away.
  vi.stubGlobal("Cloudflare", { compatibilityFlags: { global_fetch_strictly_public: true } });
  const asked: string[] = [];
  const fetched = vi.spyOn(globalThis, "fetch").mockImplementation((input) => {
    asked.push(String(input instanceof Request ? input.url : input));
    return Promise.reject(new TypeError("no network"));
  });
  onTestFinished(() => {
    vi.unstubAllGlobals();
    for (const spy of [...spies, fetched]) spy.mockRestore();
  });
  return asked;
}

const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");

test.each([
  ["https://agent.example/client.json", true],
  ["https://127.0.0.1/client.json", false],
  ["https://127.1:8443/client.json", false],
  ["https://0x7f.0.0.1/client.json", false],
  ["https://2130706433/client.json", false],
  ["https://10.0.0.1/client.json", false],
  ["https://169.254.169.254/latest/meta-data", false],
  ["https://[::1]/client.json", false],
  ["https://[::ffff:169.254.169.254]/client.json", false],
  ["https://localhost/client.json", false],
  ["https://LOCALHOST./client.json", false],
  ["https://metadata.google.internal/client.json", false],
  ["https://printer.local/client.json", false],
  ["https://database/client.json", false],
  ["https://agent.example@10.0.0.1/client.json", false],
  ["https://user:pw@agent.example/client.json", false],
  ["http://agent.example/client.json", false],
  [" https://10.0.0.1/client.json", false],
])("of a client id at %s, wherever a request names it, the document is asked for: %j", async (clientId, isPublic) => {
  const asked = quietly();
  const objects = oauthObjects();
  await objects.ask({ response_type: "code", client_id: clientId, redirect_uri: REDIRECT_URI });
  const refresh = { grant_type: "refresh_token", refresh_token: "x:y:z" };
  const assertion = `${part({ alg: "RS256" })}.${part({ iss: clientId, sub: clientId })}.AAAA`;
  const type = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
  await objects.token({ ...refresh, client_id: clientId });
  await objects.token(refresh, `Basic ${btoa(`${encodeURIComponent(clientId)}:x`)}`);
  await objects.token({ ...refresh, client_assertion: assertion, client_assertion_type: type });
  expect(asked).toEqual(isPublic ? Array.from({ length: 4 }, () => clientId) : []);
});

test("an authorization request of any form is a page or an error for its proven client", async () => {
  quietly();
  const objects = oauthObjects();
  const clientId = await objects.register();
  await fc.assert(
    fc.asyncProperty(form, fc.boolean(), async (query, isKnown) => {
      const fields = Object.fromEntries(new URLSearchParams(query));
      const answer = await objects.ask({ ...fields, ...(isKnown && { client_id: clientId }) });
      if (answer.kind === "redirect") expect(answer.to.startsWith(`${REDIRECT_URI}?`)).toBe(true);
      if (answer.kind === "refused") expect(answer.detail).not.toContain("javascript:");
    }),
    { numRuns: 500 },
  );
  expect(objects.asked).toEqual([]);
});

test("a token request and a registration of any form are answered, and never as a fault of ours", async () => {
  quietly();
  const objects = oauthObjects();
  const types = [
    "application/x-www-form-urlencoded",
    "application/x-www-form-urlencoded; charset=utf-8",
    "text/plain",
    "",
  ];
  const headers = fc.option(fc.constantFrom("Basic", "Basic !", `Basic ${btoa("a:b")}`, "Bearer x"), { nil: null });
  await fc.assert(
    fc.asyncProperty(form, fc.constantFrom(...types), headers, async (body, contentType, authorization) => {
      const answer = await answerTokenRequest(site, { contentType, authorization, body }, objects.env());
      // The client's own document may be reachable later.
      const isAway = body.includes("client_id=https") && answer.status === 503;
      expect(isAway ? 400 : answer.status, `${answer.status} ${answer.body}`).toBeOneOf([200, 400, 401]);
    }),
    { numRuns: 500 },
  );
  const metadata = fc.dictionary(
    fc.constantFrom(
      "redirect_uris",
      "client_name",
      "grant_types",
      "jwks",
      "token_endpoint_auth_method",
      "logo_uri",
      "x",
    ),
    fc.oneof(
      fc.constantFrom<unknown>([REDIRECT_URI], "none", ["javascript:alert(1)"], null),
      fc.jsonValue({ maxDepth: 2 }),
    ),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(
        metadata.map((each) => JSON.stringify(each)),
        fc.string({ unit: "binary" }),
      ),
      async (body) => {
        const answer = await answerRegistration(site, body, objects.env());
        expect([201, 400], answer.body).toContain(answer.status);
      },
    ),
    { numRuns: 500 },
  );
  expect(objects.asked).toEqual([]);
});
