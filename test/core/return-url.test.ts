// Where Stripe's pages send a browser: only to pages of this deployment.
import { expect, test } from "vitest";
import { ReturnUrl, trustedUrl } from "../../src/subscriptions/checkout.ts";

// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the part of the environment that the check reads
const env = {
  PUBLIC_URL: "https://mcp.example",
  ALLOWED_ORIGINS: "https://app.example, https://b.example:8443",
} as Env;

/** Whether a buyer may return to this URL. */
function isTaken(url: string): boolean {
  if (!ReturnUrl.safeParse(url).success) return false;
  try {
    return trustedUrl(env, "successUrl", url) === url;
  } catch {
    return false;
  }
}

test.each([
  "javascript:alert(1)",
  "data:text/html,x",
  "ftp://mcp.example/",
  "https://evil.example/",
  "https://mcp.example.evil.example/",
  "https://mcp.example:8443/",
  "http://mcp.example/",
  "https://user@mcp.example/",
  "https://user:secret@mcp.example/",
  "https://mcp.example@evil.example/",
  "//evil.example/",
  String.raw`https://mcp.example\@evil.example/`,
  String.raw`https://mcp.example/\evil.example`,
  "https:///mcp.example/x",
  "https:mcp.example/x",
  "https://mcp.example.",
  "https://mcp\u3002example/",
  "/paid",
  `https://mcp.example/${"x".repeat(2_000)}`,
])("a buyer never returns to %.60s", (url) => expect(isTaken(url)).toBe(false));

test.each([
  "https://mcp.example",
  "https://mcp.example/paid?session={CHECKOUT_SESSION_ID}",
  "https://app.example/done#top",
  "https://b.example:8443/",
  "HTTPS://MCP.example?paid",
])("a buyer may return to %s", (url) => expect(isTaken(url)).toBe(true));

test("the refusal of a URL says what is wrong with it", () => {
  const words = (url: unknown): string => ReturnUrl.safeParse(url).error?.issues[0]?.message ?? "";
  expect(words(`https://mcp.example/${"x".repeat(2_000)}`)).toContain("2000 characters");
  expect(words(String.raw`https://mcp.example\@evil.example/`)).toContain("backslash");
  expect(words("https://user@mcp.example/")).toContain("user");
});
