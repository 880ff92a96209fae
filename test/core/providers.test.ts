// Tenants' own providers: which ones are accepted, whom they speak for, what a person may type to find one, and what comes back from
// the outside world.
import { afterEach, expect, test, vi } from "vitest";
import { txtRecords } from "../../src/adapters/dns.ts";
import { fetchFromProvider } from "../../src/adapters/provider-http.ts";
import { type TenantRole, permissionsOfAdminKey, permissionsOfImpersonator, rolesWith } from "../../src/core/actor.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { signInActions } from "../../src/identity/members/members.ts";
import { personOfOwn } from "../../src/identity/oauth/upstream.ts";
import { checkProvider, documentUrl } from "../../src/identity/providers/discovery.ts";
import {
  type Discovered,
  ProviderRequest,
  documentProblem,
  hasSamePeople,
  homeRealmOf,
  identityIssuer,
  keySetProblem,
  ownProviderOf,
  proofRecord,
  requestProblem,
  speaksFor,
} from "../../src/identity/providers/providers.ts";
import type { StoredProvider } from "../../src/identity/providers/providers-store.ts";
import { issuerOf, rulesOf } from "../../src/identity/providers/sign-in-providers.ts";

afterEach(() => void vi.restoreAllMocks());

const PUBLIC_URL = "https://tollgate.example";
const LOCAL_URL = "http://127.0.0.1:8787";
const ISSUER = "https://login.acme.example";
const DIRECTORY = "8b0f4f6e-27a9-4c8e-9a4f-0d6c5a3b2e10";
const acme = TenantId.parse("acme");

function aRequest(overrides: Record<string, unknown> = {}): ProviderRequest {
  return ProviderRequest.parse({ kind: "oidc", issuer: ISSUER, clientId: "c1", clientSecret: "s1", ...overrides });
}

function aDocument(overrides: Record<string, unknown> = {}): Discovered {
  return {
    issuer: ISSUER,
    authorization_endpoint: `${ISSUER}/authorize`,
    token_endpoint: "https://token.acme.example/token",
    jwks_uri: `${ISSUER}/keys`,
    response_types_supported: ["code"],
    code_challenge_methods_supported: ["S256"],
    id_token_signing_alg_values_supported: ["RS256"],
    ...overrides,
  };
}

test.each([
  ["an https issuer", {}, undefined],
  ["Auth0", { kind: "auth0", issuer: "https://acme.eu.auth0.com/" }, undefined],
  ["Auth0 without its slash", { kind: "auth0", issuer: "https://acme.eu.auth0.com" }, "slash"],
  ["Cognito", { kind: "cognito", issuer: "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_abc" }, undefined],
  [
    "one directory of Entra",
    { kind: "entra", issuer: `https://login.microsoftonline.com/${DIRECTORY}/v2.0` },
    undefined,
  ],
  ["all directories", { kind: "entra", issuer: "https://login.microsoftonline.com/common/v2.0" }, "many directories"],
  [
    "all organisations",
    { kind: "entra", issuer: "https://login.microsoftonline.com/organizations/v2.0" },
    "many directories",
  ],
  [
    "all directories under another kind",
    { issuer: "https://login.microsoftonline.com/common/v2.0" },
    "many directories",
  ],
  [
    "the template of Entra",
    { kind: "entra", issuer: "https://login.microsoftonline.com/{tenantid}/v2.0" },
    "many directories",
  ],
  ["Entra's first version", { kind: "entra", issuer: `https://sts.windows.net/${DIRECTORY}/` }, "v2.0"],
  ["no TLS", { issuer: "http://login.acme.example" }, "https"],
  ["this machine", { issuer: "http://127.0.0.1:9000" }, "https"],
  ["this machine with TLS", { issuer: "https://localhost:9000" }, "internet"],
  ["a private address", { issuer: "https://10.0.0.1" }, "internet"],
  ["the address of cloud metadata", { issuer: "https://169.254.169.254" }, "internet"],
  ["the same as one number", { issuer: "https://2852039166/" }, "internet"],
  ["an IPv6 address", { issuer: "https://[fd00::1]" }, "internet"],
  ["a name of a local network", { issuer: "https://idp.internal" }, "internet"],
  ["a name without a dot", { issuer: "https://intranet" }, "internet"],
  ["a user in the URL", { issuer: "https://user:pass@login.acme.example" }, "user"],
  ["a query", { issuer: `${ISSUER}/?x=1` }, "query"],
  ["a fragment", { issuer: `${ISSUER}/#x` }, "fragment"],
  ["another protocol", { issuer: "file:///etc/passwd" }, "https"],
  ["no URL", { issuer: "login.acme.example" }, "not a URL"],
  ["this server", { issuer: `${PUBLIC_URL}/x` }, "this server"],
  ["a subject claim of one's own", { subjectClaim: "uid" }, undefined],
  [
    "a subject claim of one's own at Entra",
    { kind: "entra", issuer: `https://e.example/${DIRECTORY}/v2.0`, subjectClaim: "email" },
    "oidc alone",
  ],
])("as an issuer, %s is accepted or refused with the reason", (_name, overrides, problem) => {
  const found = requestProblem(aRequest(overrides), PUBLIC_URL);
  if (problem === undefined) expect(found).toBeUndefined();
  else expect(found).toContain(problem);
});

test("on a developer's machine a provider may be on the same machine, and nowhere else without TLS", () => {
  for (const issuer of ["http://127.0.0.1:9000", "http://localhost:9000/auth", "http://[::1]:9000", ISSUER])
    expect(requestProblem(aRequest({ issuer }), LOCAL_URL), issuer).toBeUndefined();
  for (const issuer of ["http://10.0.0.1", "http://login.acme.example", "http://127.0.0.1.evil.example", LOCAL_URL])
    expect(requestProblem(aRequest({ issuer }), LOCAL_URL), issuer).toBeDefined();
  expect(requestProblem(aRequest({ issuer: "http://127.0.0.1:9000", idJag: true }), LOCAL_URL)).toContain("https");
});

test.each([
  ["a whole document", {}, undefined],
  ["another issuer", { issuer: "https://evil.example" }, "another issuer"],
  ["the issuer with a slash", { issuer: `${ISSUER}/` }, "another issuer"],
  ["no issuer", { issuer: undefined }, "another issuer"],
  ["no authorization endpoint", { authorization_endpoint: undefined }, "authorization_endpoint"],
  ["an endpoint without TLS", { token_endpoint: "http://login.acme.example/token" }, "token_endpoint"],
  ["an endpoint on a private address", { token_endpoint: "https://192.168.1.1/token" }, "token_endpoint"],
  ["keys on this machine", { jwks_uri: "http://127.0.0.1/keys" }, "jwks_uri"],
  ["an endpoint that runs code", { authorization_endpoint: "javascript:alert(1)" }, "authorization_endpoint"],
  ["no code flow", { response_types_supported: ["id_token"] }, "code flow"],
  ["plain PKCE", { code_challenge_methods_supported: ["plain"] }, "PKCE"],
  ["no word on PKCE", { code_challenge_methods_supported: undefined }, "PKCE"],
  ["symmetric signatures", { id_token_signing_alg_values_supported: ["HS256", "none"] }, "signs with none"],
  ["no word on signatures", { id_token_signing_alg_values_supported: undefined }, undefined],
])("a discovery document with %s is accepted or refused with the reason", (_name, overrides, problem) => {
  const found = documentProblem(aDocument(overrides), aRequest(), PUBLIC_URL);
  if (problem === undefined) expect(found).toBeUndefined();
  else expect(found).toContain(problem);
});

test("a provider with TLS has no endpoint without, also on a developer's machine", () => {
  const document = aDocument({ token_endpoint: "http://127.0.0.1/token" });
  expect(documentProblem(document, aRequest(), LOCAL_URL)).toContain("token_endpoint");
});

test("only Cognito and Entra may be silent about PKCE, and none may refuse it", () => {
  const silent = aDocument({ code_challenge_methods_supported: undefined });
  const refusing = aDocument({ code_challenge_methods_supported: [] });
  const accepted = (["oidc", "auth0", "cognito", "entra"] as const).filter(
    (kind) => documentProblem(silent, { kind, issuer: ISSUER }, PUBLIC_URL) === undefined,
  );
  expect(accepted).toEqual(["cognito", "entra"]);
  for (const kind of accepted)
    expect(documentProblem(refusing, { kind, issuer: ISSUER }, PUBLIC_URL)).toContain("PKCE");
});

test.each([[{}], [{ keys: [] }], [{ keys: [{ kty: "oct", k: "AA" }] }], [null], ["keys"]])(
  "%j is no key set",
  (keySet) => expect(keySetProblem(keySet)).toBeDefined(),
);

test("an issuer of one tenant's provider never speaks for another tenant, however their ids are alike", () => {
  const ids = ["a", "a-b", "a-b-c", "ab", "a_b", "provider", "b"].map((id) => TenantId.parse(id));
  for (const own of ids)
    for (const provider of ["p1", "b", "a"]) {
      const name = identityIssuer(own, provider);
      expect(ownProviderOf(name)).toEqual({ tenantId: own, providerId: provider });
      for (const other of ids) expect(speaksFor(name, other), `${name} for ${other}`).toBe(own === other);
    }
  // An issuer that the operator has configured is not named so, and its links and members decide.
  for (const issuer of [ISSUER, "https://provider:a@x.example", "http://127.0.0.1:1"]) {
    expect(ownProviderOf(issuer)).toBeUndefined();
    expect(speaksFor(issuer, acme)).toBe(true);
  }
});

test.each([
  ["the same settings", {}, true],
  ["another issuer", { issuer: "https://other.example" }, false],
  ["another client", { clientId: "c2" }, false],
  ["another subject claim", { subjectClaim: "uid" }, false],
])("with %s the people of a provider are the same: or not", (_name, overrides, same) => {
  const before = { issuer: ISSUER, clientId: "c1", subjectClaim: "sub" };
  expect(hasSamePeople(before, { ...before, ...overrides })).toBe(same);
});

test.each([
  ["Ada@Acme.example", { domain: "acme.example" }],
  [" ada@acme.example ", { domain: "acme.example" }],
  ["a@b@acme.example", { domain: "acme.example" }],
  ["acme", { slug: "acme" }],
  ["ACME", { slug: "acme" }],
  ["t0123456789", { slug: "t0123456789" }],
  ["a@localhost", undefined],
  ["a@", undefined],
  ["", undefined],
  ["acme corp", undefined],
  ["https://acme.example", undefined],
  ["' OR 1=1", undefined],
])("%j is read as the domain of an address, as a name, or as neither", (typed, found) => {
  expect(homeRealmOf(typed)).toEqual(found);
});

test.each(["acme.example", "Mail.ACME.example.", "xn--bcher-kva.example", "a.co"])("%s is a domain", (domain) => {
  expect(aRequest({ domains: [domain] }).domains).toEqual([domain.toLowerCase().replace(/\.$/, "")]);
});
test.each([
  "example",
  "",
  "a b.example",
  "-a.example",
  "1.2.3.4",
  "*.example.com",
  "a..example",
  `${"a".repeat(64)}.example`,
])("%j is no domain", (domain) => expect(() => aRequest({ domains: [domain] })).toThrow("domain"));

test("only owners set the provider, because it can name an owner; no key and no impersonator does", () => {
  expect(rolesWith("provider:manage")).toEqual(["owner"] satisfies TenantRole[]);
  for (const permissions of [permissionsOfAdminKey, permissionsOfImpersonator])
    expect(permissions).not.toContain("provider:manage");
});

const stored: StoredProvider = {
  ...{ id: "p1", tenantId: acme, kind: "entra", issuer: ISSUER, jwksUrl: `${ISSUER}/keys`, clientId: "c1" },
  ...{ clientSecret: null, subjectClaim: "oid", idJag: false, slug: "acme", createdAt: "", updatedAt: "" },
  domains: [
    { domain: "acme.example", challenge: "x", isVerified: true },
    { domain: "claimed.example", challenge: "y", isVerified: false },
  ],
};
const own = { kind: "entra" as const, identityIssuer: identityIssuer(acme, "p1"), domains: ["acme.example"] };

test.each([
  ["an address that the provider has verified", { email: "a@else.example", email_verified: true }, true, false],
  ["a verified address in a proved domain", { email: "A@Acme.example", email_verified: true }, true, true],
  ["an address in a proved domain, without a word on it", { email: "a@acme.example" }, true, true],
  [
    "an address in a proved domain that is not verified",
    { email: "a@acme.example", email_verified: false },
    false,
    false,
  ],
  ["an address elsewhere, without a word on it", { email: "a@else.example" }, false, false],
  ["an address in a domain that is not proved", { email: "a@claimed.example" }, false, false],
  ["an address in a part of a proved domain", { email: "a@sub.acme.example" }, false, false],
  ["no address", {}, false, false],
])("%s counts or does not, and makes a member without an invitation or does not", (_name, claims, counts, joins) => {
  const person = personOfOwn({ oid: "o1", sub: "s1", tid: "other", org_id: "other", ...claims }, issuerOf(stored), own);
  expect(person).toMatchObject({
    issuer: "provider:acme:p1",
    subject: "o1",
    organisation: null,
    emailVerified: counts,
  });
  const upstream = { issuer: issuerOf(stored), secret: undefined, publicUrl: PUBLIC_URL, own };
  expect(rulesOf(upstream, person ?? { email: null, emailVerified: false })).toEqual({
    ...{ rules: { linksMembers: joins, verifiesEmails: false }, speaksFor: acme },
  });
});

test("a sign-in at a tenant's provider changes that tenant only, also if the address is invited elsewhere", () => {
  const other = TenantId.parse("other");
  for (const emailVerified of [true, false])
    for (const linksMembers of [true, false]) {
      const facts = {
        ...{ linked: acme, own: [], removed: [] },
        unbound: [
          { tenantId: other, memberId: "m1" },
          { tenantId: acme, memberId: "m2" },
        ],
        invitations: [{ tenantId: other, id: "i1" }],
      };
      const actions = signInActions(facts, { emailVerified, linksMembers, verifiesEmails: false });
      expect(actions.filter(({ tenantId }) => tenantId !== acme)).toEqual([]);
    }
});

// ---- the outside world

/** Answers requests by URL. */
function outside(answers: Record<string, () => Response>): string[] {
  const asked: string[] = [];
  vi.spyOn(globalThis, "fetch").mockImplementation((input, init) => {
    const url = String(input instanceof Request ? input.url : input);
    asked.push(url);
    expect(init?.redirect).toBe("manual");
    return Promise.resolve(answers[url]?.() ?? new Response("", { status: 404 }));
  });
  return asked;
}

const keys = { keys: [{ kty: "RSA", n: "AA", e: "AQAB" }] };

test("a provider is saved with the keys that its document names", async () => {
  outside({
    [documentUrl(ISSUER)]: () => Response.json(aDocument()),
    [`${ISSUER}/keys`]: () => Response.json(keys),
  });
  expect(await checkProvider(aRequest(), PUBLIC_URL)).toEqual({ jwksUrl: `${ISSUER}/keys` });
});

test.each([
  ["a document that is not there", {}, "answers 404"],
  [
    "a redirect to another host",
    { [documentUrl(ISSUER)]: () => new Response(null, { status: 302, headers: { location: "https://evil.example" } }) },
    "redirect",
  ],
  ["a page", { [documentUrl(ISSUER)]: () => new Response("<html>") }, "not JSON"],
  ["a list", { [documentUrl(ISSUER)]: () => Response.json([]) }, "not a discovery document"],
  ["too much", { [documentUrl(ISSUER)]: () => new Response("x".repeat(300_000)) }, "too much"],
  ["keys that are not there", { [documentUrl(ISSUER)]: () => Response.json(aDocument()) }, "key set"],
  [
    "secret keys",
    {
      [documentUrl(ISSUER)]: () => Response.json(aDocument()),
      [`${ISSUER}/keys`]: () => Response.json({ keys: [{ kty: "oct", k: "AA" }] }),
    },
    "no public keys",
  ],
])("a provider with %s is refused, and the refusal says so", async (_name, answers, problem) => {
  outside(answers);
  expect(await checkProvider(aRequest(), PUBLIC_URL)).toEqual({ problem: expect.stringContaining(problem) });
});

test("a provider that is refused by its issuer is asked nothing", async () => {
  const asked = outside({});
  await checkProvider(aRequest({ issuer: "https://169.254.169.254" }), PUBLIC_URL);
  expect(asked).toEqual([]);
});

test("a document that leads to a private address is refused before it is followed", async () => {
  const asked = outside({
    [documentUrl(ISSUER)]: () => Response.json(aDocument({ jwks_uri: "https://169.254.169.254/keys" })),
  });
  expect(await checkProvider(aRequest(), PUBLIC_URL)).toEqual({ problem: expect.stringContaining("jwks_uri") });
  expect(asked).toEqual([documentUrl(ISSUER)]);
});

test("an answer of a provider without an end is cut off", async () => {
  let sent = 0;
  const endless = new ReadableStream<Uint8Array>({
    pull(controller) {
      sent += 1;
      controller.enqueue(new Uint8Array(65_536));
    },
  });
  outside({ [ISSUER]: () => new Response(endless) });
  await expect(fetchFromProvider(ISSUER)).rejects.toThrow("too large");
  expect(sent).toBeLessThan(20);
});

const dns = { DNS_URL: "https://dns.example/query" };
test.each([
  ["one text", { Status: 0, Answer: [{ type: 16, data: '"tollgate-domain=x"' }] }, ["tollgate-domain=x"]],
  ["a text in two parts", { Status: 0, Answer: [{ type: 16, data: '"tollgate-" "domain=x"' }] }, ["tollgate-domain=x"]],
  ["a text without quotes", { Status: 0, Answer: [{ type: 16, data: "plain" }] }, ["plain"]],
  ["another type", { Status: 0, Answer: [{ type: 5, data: "tollgate-domain=x" }] }, []],
  ["no record", { Status: 0 }, []],
  ["no such name", { Status: 3 }, []],
])("the TXT records of a name with %s are read", async (_name, answer, texts) => {
  const { name } = proofRecord("acme.example", "x");
  const asked = outside({ [`https://dns.example/query?name=${name}&type=TXT`]: () => Response.json(answer) });
  expect(await txtRecords(dns, name)).toEqual(texts);
  expect(asked).toHaveLength(1);
});

test("a resolver that fails proves and refutes nothing", async () => {
  for (const answer of [() => Response.json({ Status: 2 }), () => new Response("<html>"), () => Response.json([])]) {
    outside({ "https://dns.example/query?name=a.example&type=TXT": answer });
    await expect(txtRecords(dns, "a.example")).rejects.toThrow("resolver");
    vi.restoreAllMocks();
  }
});
