// The program starts only with a usable config; an error names the part and the remedy.
import { expect, test } from "vitest";
import { type AppConfig, checkedConfig, config } from "../../src/core/app-config.ts";

const withProduct = (product: Partial<AppConfig["product"]>): AppConfig => ({
  ...config,
  product: { ...config.product, ...product },
});

test("a complete config is returned unchanged", () => {
  expect(checkedConfig(config)).toBe(config);
});

test.each<[string, AppConfig, RegExp]>([
  ["without the scope tools:read", { ...config, scopes: { "notes:read": "Read" } }, /lacks tools:read.*Add it/],
  ["with a scope that has a space", { ...config, scopes: { ...config.scopes, "a b": "Both" } }, /without spaces/],
  ["without settings", { ...config, settings: {} }, /Add one setting/],
  ["without a name", withProduct({ name: " " }), /product\.name/],
  ["with terms that are no URL", withProduct({ termsUrl: "/terms" }), /https: URL[^]*product\.termsUrl/],
  ["with a privacy policy over http", withProduct({ privacyUrl: "http://x.example" }), /product\.privacyUrl/],
  ["with a telephone as support", withProduct({ supportUrl: "tel:123" }), /https: or mailto: URL/],
  ["with a colour by name", withProduct({ colour: "blue" }), /such as #1d4ed8/],
  [
    "with a secret of Tollgate's own",
    { ...config, secrets: { operator: { STRIPE_SECRET_KEY: "A key" } } },
    /lower-case/,
  ],
  ["with a secret without a meaning", { ...config, secrets: { tenant: { api_key: " " } } }, /secrets\.tenant\.api_key/],
  [
    "with one secret of two sides",
    { ...config, secrets: { operator: { api_key: "Ours" }, tenant: { api_key: "Theirs" } } },
    /one name for the operator and for tenants/,
  ],
  [
    "with 21 secrets for each tenant",
    { ...config, secrets: { tenant: Object.fromEntries(Array.from({ length: 21 }, (_, n) => [`key_${n}`, "A key"])) } },
    /more than 20 secrets/,
  ],
  ["without the issuers' claim", { ...config, issuers: { tenantClaim: "" } }, /issuers\.tenantClaim/],
])("a config %s is refused, and the error names the part and the remedy", (_, broken, message) => {
  expect(() => checkedConfig(broken)).toThrow(message);
});
