// People with a real browser: they sign in at their provider, decide about a client, sign out, and accept an invitation. A test
// fails, too, when a page reports an error or something that the content policy has refused.
import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { aWaitingClient, choosePerson, newPage, shows } from "../support/browser.ts";
import { aTenant, callTool, postMcp, modernMeta, system } from "../support/flow.ts";
import { anOwnedTenant, send } from "../support/people.ts";
import { aPerson, aPublishedAuthorization, anAuthorization, redeem, token } from "../support/sign-in.ts";
import { config } from "../support/fixture-app/config.ts";

const contentOf = (page: Page): Promise<string> => page.locator("main").innerText();

/** Presses the button that lets the client in, and returns where the client came back. */
async function allow(page: Page, client: { cameBack: Promise<URL> }): Promise<URL> {
  await page.getByRole("button", { name: "Allow" }).click();
  return client.cameBack;
}

async function listed(
  kind: "grants" | "sessions",
  { id, ownerToken }: { id: string; ownerToken: string },
): Promise<{ id: string }[]> {
  const answer = await send("GET", `/api/tenants/${id}/${kind}`, ownerToken);
  expect(answer.status).toBe(200);
  return ((await answer.json()) as Record<string, { id: string }[]>)[kind] ?? [];
}

const ways = [
  { how: "that registers itself", publisher: "unverified", ask: anAuthorization },
  { how: "that publishes a document", publisher: "published by agent.example", ask: aPublishedAuthorization },
];

test.each(ways)(
  "a client $how is let in on pages, calls, refreshes, and is refused once an administrator ends its access",
  async ({ publisher, ask }) => {
    const account = await anOwnedTenant({ name: "Screws & <i>Sons</i>" });
    const sub = await aPerson([account.id]);
    const client = await aWaitingClient();
    const asked = await ask(client.redirectUri, `Agent <script>document.title = "changed"</script>`);

    const page = await newPage();
    await page.goto(asked.url);
    expect(new URL(page.url()).origin).toBe(system.issuerUrl);
    await choosePerson(page, { sub });
    await shows(page, "Let a client in");
    const content = await contentOf(page);
    for (const words of [
      `Agent <script>document.title = "changed"</script> wants to use the tools of Screws & <i>Sons</i> for you`,
      ...[publisher, new URL(client.redirectUri).hostname, `${sub}@example.com`, "program on this computer"],
    ])
      expect(content).toContain(words);
    expect(await page.title()).toBe("Let a client in · Tollgate");
    const abilities = await page.locator("form li").allInnerTexts();

    const tokens = await redeem(asked, await allow(page, client));
    expect(tokens.scope.split(" ").map((scope) => config.scopes[scope])).toEqual(abilities);
    expect((await callTool(tokens.access_token, "get_usage")).isError).toBeFalsy();
    const renewal = { grant_type: "refresh_token", client_id: asked.clientId };
    const refreshed = await token({ ...renewal, refresh_token: tokens.refresh_token });
    const renewed = (await refreshed.json()) as typeof tokens;
    expect((await callTool(renewed.access_token, "get_usage")).isError).toBeFalsy();

    const [grant] = await listed("grants", account);
    const ended = await send("DELETE", `/api/tenants/${account.id}/grants/${grant?.id}`, account.ownerToken);
    expect(ended.status).toBe(200);
    const call = { method: "tools/call", params: { name: "get_usage", arguments: {}, _meta: modernMeta } };
    expect((await postMcp(renewed.access_token, { jsonrpc: "2.0", id: 1, ...call })).status).toBe(401);
    expect((await token({ ...renewal, refresh_token: renewed.refresh_token })).status).toBe(400);
  },
);

test("a member of two organisations has to choose one, and the client gets the rows of that one alone", async () => {
  const [acme, bolt] = await Promise.all([aTenant({ name: "Acme" }), aTenant({ name: "Bolt" })]);
  await callTool(acme.apiKey, "write_document", { path: "acme.txt", text: "of Acme" });
  await callTool(bolt.apiKey, "write_document", { path: "bolt.txt", text: "of Bolt" });
  const sub = await aPerson([acme.id, bolt.id]);
  const page = await newPage();
  // The provider speaks for one organisation at a time. Signing in for each makes the person a member of both.
  for (const organisation of [acme.id, bolt.id]) {
    await page.goto(`${system.publicUrl}/sign-in?prompt=select_account`);
    await choosePerson(page, { sub, organisation });
  }
  for (const { name, path } of [
    { name: "Bolt", path: "bolt.txt" },
    { name: "Acme", path: "acme.txt" },
  ]) {
    const client = await aWaitingClient();
    const asked = await anAuthorization(client.redirectUri);
    await page.goto(asked.url);
    expect(await page.getByRole("radio").count()).toBe(2);
    // Without a choice the browser does not send the form, and the page stays.
    await page.getByRole("button", { name: "Allow" }).click();
    expect(await page.locator("form:invalid").count()).toBe(1);
    await page.getByRole("radio", { name }).check();
    const { access_token: access } = await redeem(asked, await allow(page, client));
    const { documents } = (await callTool(access, "list_documents")).data as { documents: { path: string }[] };
    expect(documents.map((each) => each.path)).toEqual([path]);
  }
});

test("a client that is refused reads so, and gets nothing", async () => {
  const account = await anOwnedTenant();
  const client = await aWaitingClient();
  const sub = await aPerson([account.id]);
  const page = await newPage();
  await page.goto((await anAuthorization(client.redirectUri)).url);
  await choosePerson(page, { sub });
  await page.getByRole("button", { name: "Refuse" }).click();
  const back = await client.cameBack;
  expect([back.searchParams.get("error"), back.searchParams.get("code")]).toEqual(["access_denied", null]);
  expect(await listed("grants", account)).toEqual([]);
});

test.each([
  ["twice by a double click", (page: Page) => page.getByRole("button", { name: "Allow" }).dblclick()],
  [
    "again after the back button",
    async (page: Page) => {
      await page.getByRole("button", { name: "Allow" }).click();
      await page.getByText("You can close this window").waitFor();
      await page.goBack();
      await page.getByRole("button", { name: "Allow" }).click();
    },
  ],
])("a consent that is given %s ends at the client, which has one grant", async (_, press) => {
  const account = await anOwnedTenant();
  const client = await aWaitingClient();
  const asked = await anAuthorization(client.redirectUri);
  const sub = await aPerson([account.id]);
  const page = await newPage();
  await page.goto(asked.url);
  await choosePerson(page, { sub });
  await press(page);
  await page.getByText("You can close this window").waitFor();
  const tokens = await redeem(asked, new URL(page.url()));
  expect((await callTool(tokens.access_token, "get_usage")).isError).toBeFalsy();
  expect(await listed("grants", account)).toHaveLength(1);
});

test("a person signs out, and is signed out when an administrator ends the session", async () => {
  const account = await anOwnedTenant({ name: "Acme" });
  const sub = await aPerson([account.id]);
  const page = await newPage();
  await page.goto(`${system.publicUrl}/sign-in`);
  await choosePerson(page, { sub });
  await shows(page, "Signed in");
  expect(await contentOf(page)).toContain(`You are signed in as ${sub}@example.com.`);
  expect(await contentOf(page)).toContain("Acme: ");
  const cookies = await page.context().cookies();
  const session = cookies.find(({ name }) => name === "__Host-tollgate-session");
  expect(session).toMatchObject({ secure: true, httpOnly: true, sameSite: "Lax" });
  await page.getByRole("button", { name: "Sign out" }).click();
  await shows(page, "Signed out");
  expect((await page.context().cookies()).map(({ name }) => name)).not.toContain("__Host-tollgate-session");

  await page.getByRole("link", { name: "Sign in again" }).click();
  await choosePerson(page, { sub });
  await shows(page, "Signed in");
  for (const { id } of await listed("sessions", account))
    await send("DELETE", `/api/tenants/${account.id}/sessions/${id}`, account.ownerToken);
  await page.context().clearCookies({ name: /^local_issuer/ }); // the provider remembers the person
  await page.reload();
  expect(new URL(page.url()).origin).toBe(system.issuerUrl);
});

test("an invited person opens the mail's link, signs in, accepts with a button, and is a member", async () => {
  const account = await anOwnedTenant({ name: "Acme" });
  const email = `guest-${crypto.randomUUID()}@example.com`;
  await send("POST", `/api/tenants/${account.id}/invitations`, account.ownerToken, { email, role: "developer" });
  // The provider knows the person by another address, so the sign-in alone accepts nothing.
  const sub = await aPerson([]);
  const page = await newPage();
  await page.goto(`${system.mailboxUrl}/?to=${encodeURIComponent(email)}`);
  await page.getByRole("link", { name: "/invitation" }).click();
  await shows(page, "Invitation");
  expect(await contentOf(page)).toContain(
    `You are invited to the account Acme as developer. The invitation is for ${email}`,
  );
  await page.getByRole("link", { name: "Sign in to accept" }).click();
  await choosePerson(page, { sub });
  await page.getByRole("button", { name: "Accept" }).click();
  await shows(page, "You are a member");
  expect(await contentOf(page)).toContain("You belong to Acme as developer.");
  await page.goto(`${system.publicUrl}/sign-in`);
  expect(await contentOf(page)).toContain("Acme: developer");
});

test("a form on another site cannot decide for the person who is signed in", async () => {
  const account = await anOwnedTenant();
  const sub = await aPerson([account.id]);
  const page = await newPage();
  await page.goto(`${system.publicUrl}/sign-in`);
  await choosePerson(page, { sub });
  // Another port of this machine is the same site, so the browser sends the cookie of the session.
  const { redirectUri: elsewhere } = await aWaitingClient();
  await page.goto(elsewhere);
  await page.setContent(`<form method="post" action="${system.publicUrl}/sign-out"><button>A prize</button></form>`);
  await page.getByRole("button").click();
  await shows(page, "This form is not from here");
  await page.goto(`${system.publicUrl}/sign-in`);
  await shows(page, "Signed in");
});
