// Tenants that bring a provider of their own: an imitation of the local issuer, with a client that the tenant has registered there.
import { expect, onTestFinished } from "vitest";
import { registerClient } from "../../dev/id-jag-agent.ts";
import { publicIssuer, servedAt } from "../../dev/issuer/public-names.ts";
import { operator, system } from "./flow.ts";
import { anOwnedTenant, send } from "./people.ts";
import { textOf } from "./html.ts";
import type { Page } from "./plain-browser.ts";
import { Browser } from "./sign-in.ts";

export interface OwnedTenant {
  id: string;
  ownerToken: string;
}

export interface View {
  id: string;
  slug: string;
  domains: { domain: string; isVerified: boolean; record: { name: string; value: string } }[];
  delivered?: boolean;
}

/** A client of the tenant's at the imitation below `path` of the local issuer. */
export async function aClient(registration: string): Promise<{ clientId: string; clientSecret: string }> {
  const response = await fetch(`${system.issuerUrl}${registration}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      client_name: "The tenant's own client",
      redirect_uris: [`${system.publicUrl}/oauth/callback`],
    }),
  });
  const { client_id: clientId, client_secret: clientSecret } = (await response.json()) as Record<string, string>;
  if (clientId === undefined || clientSecret === undefined) throw new Error(`not registered: ${response.status}`);
  return { clientId, clientSecret };
}

/** Settings of a provider like Auth0, and of one whose issuer is the operator's own. */
export const anAuth0 = async () => ({
  ...{ kind: "auth0", issuer: `${system.issuerUrl}/auth0/`, ...(await aClient("/auth0/oidc/register")) },
});
export const theSameIssuer = async () => ({
  ...{ kind: "oidc", issuer: system.issuerUrl, ...(await aClient("/register")) },
});

export const providerPath = ({ id }: { id: string }): string => `/api/tenants/${id}/provider`;

/** Sets a tenant's provider as its owner. It is removed when the test ends: the page of the sign-in depends on there being any. */
export async function setProvider(tenant: OwnedTenant, settings: Record<string, unknown>): Promise<View> {
  onTestFinished(async () => {
    await operator("DELETE", `/tenants/${tenant.id}/provider`);
  });
  const response = await send("PUT", providerPath(tenant), tenant.ownerToken, settings);
  expect(response.status, await response.clone().text()).toBe(200);
  return (await response.json()) as View;
}

/** Publishes the DNS records of a tenant's domains, and lets Tollgate look for them. */
export async function proveDomains(tenant: OwnedTenant, { domains }: View): Promise<Response> {
  for (const { record } of domains)
    await fetch(`${system.issuerUrl}/dns/names/${record.name}`, {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(["another record", record.value]),
    });
  return send("POST", `${providerPath(tenant)}/domains`, tenant.ownerToken);
}

/** Types a name or an address into the page of the sign-in. Returns where the browser then is. */
export async function typeOrganisation(browser: Browser, page: Page, organisation: string): Promise<Page> {
  const url = /name="continue" value="(?<url>[^"]*)"/.exec(page.html)?.groups?.["url"]?.replaceAll("&amp;", "&");
  if (url === undefined) throw new Error(`no field for an organisation: ${textOf(page.html)}`);
  return browser.page(`${system.publicUrl}/sign-in`, {
    method: "POST",
    headers: { "content-type": "application/x-www-form-urlencoded", origin: system.publicUrl },
    body: new URLSearchParams({ organisation, continue: url }).toString(),
  });
}

/** Signs in at the tenant's own provider. Returns Tollgate's page after it. */
export async function signInAt(
  slug: string,
  sub: string,
  browser = new Browser(),
): Promise<{ browser: Browser; page: Page }> {
  const url = `${system.publicUrl}/sign-in?organisation=${slug}`;
  const form = await browser.page(url);
  const page = await browser.submit(form, { sub });
  if (page instanceof URL) throw new Error(`the browser left for ${page.origin}`);
  return { browser, page };
}

/** A tenant whose provider is at a public name, with a proved domain, and which vouches for agents. */
export async function aCompany(overrides: Record<string, unknown> = {}) {
  const tenant = await anOwnedTenant();
  const issuer = publicIssuer(tenant.id);
  const providerUrl = servedAt(issuer, system.issuerUrl);
  const own = await registerClient(`${providerUrl}/register`, "Tollgate", `${system.publicUrl}/oauth/callback`);
  const domain = `${tenant.id}.example`;
  const settings = { kind: "oidc", issuer, ...own, domains: [domain], idJag: true, ...overrides };
  const view: View = await setProvider(tenant, settings);
  await proveDomains(tenant, view);
  return { tenant, issuer: settings.issuer, providerUrl: providerUrl ?? "", domain, settings, slug: view.slug };
}
