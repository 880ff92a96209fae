// Each provider that the local issuer imitates, with a real browser: the page that asks for the provider, the provider's own page with
// its quirks, the consent, and the first call with the token.
import type { Page } from "playwright-core";
import { beforeAll, expect, test } from "vitest";
import { aWaitingClient, choosePerson, newPage, shows } from "../support/browser.ts";
import { type TestTenant, aTenant, callTool, operator, system } from "../support/flow.ts";
import { aPerson, anAuthorization, redeem } from "../support/sign-in.ts";

const ELSEWHERE = "org-elsewhere";

let tenant: TestTenant;
/** The tenant's organisation at the imitations. The plain provider names the tenant itself. */
let organisation: string;
beforeAll(async () => {
  tenant = await aTenant({ name: "Acme" });
  organisation = `org-of-${tenant.id}`;
  const { issuerUrl } = system;
  const imitations = [
    {
      ...{ issuer: `${issuerUrl}/auth0/`, jwksUrl: `${issuerUrl}/auth0/.well-known/jwks.json`, name: "Auth0" },
      ...{ tenantClaim: "org_id", signInParameters: { organization: organisation } },
    },
    {
      ...{ issuer: `${issuerUrl}/cognito`, jwksUrl: `${issuerUrl}/cognito/.well-known/jwks.json`, name: "Cognito" },
      tenantClaim: "custom:tenant_id",
    },
    {
      ...{ issuer: `${issuerUrl}/entra/${organisation}/v2.0`, name: "Entra ID", tenantClaim: "tid" },
      jwksUrl: `${issuerUrl}/entra/${organisation}/discovery/v2.0/keys`,
    },
  ].map((each) => ({ ...each, clientId: "tollgate" }));
  await fetch(`${system.publicUrl}/test/trust?settings=${encodeURIComponent(JSON.stringify(imitations))}`);
  for (const { issuer } of imitations) {
    const linked = await operator("POST", `/tenants/${tenant.id}/links`, { issuer, organisation });
    expect(linked.status).toBe(201);
  }
  return async () => {
    await fetch(`${system.publicUrl}/test/trust`);
  };
});

/** Opens a URL that needs a sign-in, and chooses the provider on the page that asks for it. */
async function openAt(page: Page, url: string, provider: string): Promise<void> {
  await page.goto(url);
  await shows(page, "Sign in");
  expect(await page.locator("main").innerText()).toContain("Where does your organisation sign in?");
  await page.getByRole("link", { name: provider, exact: true }).click();
  await shows(page, "Choose a person");
}

const buttonsOf = (page: Page, sub: string): Promise<number> => page.locator(`input[value="${sub}"]`).count();

/** `buttons`: of a person with two organisations. `stranger`: what becomes of a person who has only another one. */
const providers = [
  { name: "Local sign-in", title: "Local sign-in", buttons: 2, stranger: "a member of nothing" },
  // Asked for one organisation, Auth0 looks after the sign-in whether the person belongs to it.
  { name: "Auth0", title: "Local sign-in, like Auth0", buttons: 1, stranger: "refused there" },
  // Cognito's attribute has one organisation: the person's first one.
  { name: "Cognito", title: "Local sign-in, like Cognito", buttons: 1, stranger: "a member of nothing" },
  // Only people of the directory sign in at its issuer.
  { name: "Entra ID", title: "Local sign-in, like Entra ID", buttons: 1, stranger: "not listed" },
];

test.each(providers)(
  "a person signs in at $name with a browser, lets a client in and the client calls; a stranger is $stranger",
  async ({ name, title, buttons, stranger }) => {
    const own = name === "Local sign-in" ? tenant.id : organisation;
    const sub = await aPerson([own, ELSEWHERE]);
    const other = await aPerson([ELSEWHERE]);
    const client = await aWaitingClient();
    const asked = await anAuthorization(client.redirectUri);
    const page = await newPage();
    await openAt(page, asked.url, name);
    expect(await page.title()).toBe(`Choose a person - ${title}`);
    expect(await buttonsOf(page, sub)).toBe(buttons);
    await choosePerson(page, { sub, ...(buttons > 1 && { organisation: own }) });
    await shows(page, "Let a client in");
    const consent = await page.locator("main").innerText();
    for (const words of ["wants to use the tools of Acme for you", `${sub}@example.com`])
      expect(consent).toContain(words);
    await page.getByRole("button", { name: "Allow" }).click();
    const { access_token: access } = await redeem(asked, await client.cameBack);
    expect(access.startsWith(`tgo_${tenant.id}.`)).toBe(true);
    expect((await callTool(access, "get_usage")).isError).toBeFalsy();

    const second = await newPage();
    await openAt(second, `${system.publicUrl}/sign-in`, name);
    expect(await buttonsOf(second, other)).toBe(stranger === "not listed" ? 0 : 1);
    if (stranger === "not listed") return;
    await choosePerson(second, { sub: other });
    await shows(second, stranger === "refused there" ? "You are not signed in" : "Signed in");
    const shown = await second.locator("main").innerText();
    expect(shown).toContain(
      stranger === "refused there" ? "did not confirm who you are" : "a member of no organisation",
    );
  },
);
