import { expect, test } from "vitest";
import { config } from "../../src/core/app-config.ts";
import {
  acceptedAlgorithms,
  clientSecret,
  issuerName,
  linkingIssuers,
  parseIssuers,
  signInIssuers,
} from "../../src/identity/tokens/issuers.ts";

function anIssuer(overrides: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return {
    issuer: "https://login.example.com",
    jwksUrl: "https://login.example.com/keys",
    tenantClaim: "org_id",
    ...overrides,
  };
}

test("an issuer's settings are read exactly, and nothing is granted by default", () => {
  // `iss` is compared character by character: a slash that is added or dropped would refuse every token.
  for (const issuer of ["https://login.example.com", "https://login.example.com/", "https://Login.example.com/t%2F1"]) {
    expect(parseIssuers(JSON.stringify([anIssuer({ issuer })]))).toEqual([
      {
        ...{ ...anIssuer({ issuer }), userClaim: "sub", clientIds: [], linkNewTenants: false },
        // A linked organisation's people get the least role; they call tools without it, too.
        ...{ linksMembers: true, verifiesEmails: false },
      },
    ]);
  }
  const full = anIssuer({
    userClaim: "uid",
    audience: "https://api.example.com",
    clientIds: ["c1"],
    linkNewTenants: true,
    linksMembers: false,
    verifiesEmails: true,
  });
  expect(parseIssuers(JSON.stringify([full]))).toEqual([full]);
  expect(parseIssuers("[]")).toEqual([]);
});

test("an issuer that names no claim gets the one of app/config.ts", () => {
  const [issuer] = parseIssuers(JSON.stringify([anIssuer({ tenantClaim: undefined })]));
  expect(issuer?.tenantClaim).toBe(config.issuers.tenantClaim);
});

test.each([
  ["nothing", ""],
  ["no JSON", "https://login.example.com"],
  ["no list", JSON.stringify(anIssuer())],
  ["null", "null"],
  ["an issuer that is no URL", JSON.stringify([anIssuer({ issuer: "login.example.com" })])],
  ["no issuer", JSON.stringify([anIssuer({ issuer: undefined })])],
  ["no address of keys", JSON.stringify([anIssuer({ jwksUrl: undefined })])],
  ["an address of keys that is no URL", JSON.stringify([anIssuer({ jwksUrl: "/keys" })])],
  ["an empty tenant claim", JSON.stringify([anIssuer({ tenantClaim: "" })])],
  ["an empty audience", JSON.stringify([anIssuer({ audience: "" })])],
  ["a list as audience", JSON.stringify([anIssuer({ audience: ["a"] })])],
  ["a text for yes", JSON.stringify([anIssuer({ linkNewTenants: "true" })])],
  ["an empty client", JSON.stringify([anIssuer({ clientId: "" })])],
  ["a secret where everyone reads it", JSON.stringify([anIssuer({ clientSecret: "s" })])],
  [
    "a parameter of Tollgate's own",
    JSON.stringify([anIssuer({ signInParameters: { redirect_uri: "https://x.example" } })]),
  ],
  ["all directories of Entra ID", JSON.stringify([anIssuer({ issuer: "https://login.example.com/common/v2.0" })])],
  ["one good issuer and one bad", JSON.stringify([anIssuer(), anIssuer({ tenantClaim: "" })])],
])("the whole list of issuers is refused, so that no deployment starts with a part of it: %s", (_, json) => {
  expect(() => parseIssuers(json)).toThrow();
  expect(() => linkingIssuers(json)).toThrow();
});

test("new tenants are linked only to the issuers that are configured for it", () => {
  const issuers = [
    anIssuer({ issuer: "https://one.example.com", linkNewTenants: true }),
    anIssuer({ issuer: "https://two.example.com", linkNewTenants: false }),
    anIssuer({ issuer: "https://three.example.com" }),
  ];
  expect(linkingIssuers(JSON.stringify(issuers))).toEqual(["https://one.example.com"]);
});

test("an algorithm whose verification key can also sign is refused", () => {
  expect(acceptedAlgorithms.filter((algorithm) => !/^(RS|PS|ES)\d+$|^EdDSA$|^Ed25519$/.test(algorithm))).toEqual([]);
});

test("people sign in through the issuers at which Tollgate has a client", () => {
  const json = JSON.stringify([
    anIssuer({ issuer: "https://one.example.com" }),
    anIssuer({ issuer: "https://two.example.com/x", clientId: "tollgate" }),
    anIssuer({ issuer: "https://three.example.com", clientId: "tollgate", name: "Three" }),
  ]);
  expect(signInIssuers(json).map(issuerName)).toEqual(["two.example.com", "Three"]);
});

test("a client's secret is looked up by the exact issuer, and an error quotes no secret", () => {
  const json = JSON.stringify({ "https://one.example.com": "s1" });
  expect(clientSecret(json, "https://one.example.com")).toBe("s1");
  for (const issuer of ["https://one.example.com/", "toString", "https://two.example.com"])
    expect(clientSecret(json, issuer)).toBeUndefined();
  for (const empty of [undefined, "", "{}"]) expect(clientSecret(empty, "https://one.example.com")).toBeUndefined();
  for (const broken of ["a-secret", '{"https://one.example.com": ["a-secret"]}', '["a-secret"]', '{"a-secret'])
    expect(() => clientSecret(broken, "https://one.example.com")).toThrow(/^OIDC_CLIENT_SECRETS is not (?!.*a-secret)/);
});
