// The operator's people with a real browser. A test fails, too, when a page reports an error or something that the content policy
// has refused.
import { expect, test } from "vitest";
import { choosePerson, newPage, shows } from "../support/browser.ts";
import { aTenant, operator, system } from "../support/flow.ts";
import { signInOperator } from "../support/operators.ts";
import { aPerson } from "../support/sign-in.ts";

test("an operator signs in at the issuer and comes back to the page, and after the sign-out or the end of the session to the sign-in", async () => {
  const page = await newPage();
  await signInOperator(page, "viewer");
  await shows(page, "Operators");
  expect(await page.locator("main").innerText()).toContain("An operator (viewer)");
  // A viewer may not end a session, and sees no button for it.
  expect(await page.getByRole("button", { name: "End" }).count()).toBe(0);
  await page.locator("summary", { hasText: "An operator (viewer) · viewer" }).click();
  await page.getByRole("button", { name: "Sign out" }).click();
  await shows(page, "Operator sign-in");
  await page.goto(`${system.publicUrl}/admin/access`);
  await shows(page, "Operator sign-in");

  const other = await newPage();
  const admin = await signInOperator(other, "admin");
  await shows(other, "Operators");
  const { sessions } = (await (await operator("GET", "/sessions")).json()) as {
    sessions: { id: string; operator: { id: string } }[];
  };
  const own = sessions.find((session) => session.operator.id === admin);
  expect((await operator("DELETE", `/sessions/${own?.id}`)).status).toBe(200);
  await other.reload();
  await shows(other, "Operator sign-in");
});

test("a person without a role and a customer are refused at the operator's sign-in, and a customer's session opens no page of it", async () => {
  const page = await newPage();
  await signInOperator(page, undefined);
  await shows(page, "You are not signed in");

  const { id } = await aTenant();
  const customer = await newPage();
  const sub = await aPerson([id], { roles: ["owner"] });
  await customer.goto(`${system.publicUrl}/sign-in`);
  await choosePerson(customer, { sub });
  await shows(customer, "Signed in");
  await customer.goto(`${system.publicUrl}/admin/access`);
  await shows(customer, "Operator sign-in");
  await customer.getByRole("link", { name: /^Sign in with / }).click();
  await shows(customer, "You are not signed in");
});

test("the operator token opens a session, and a wrong one does not", async () => {
  const page = await newPage();
  await page.goto(`${system.publicUrl}/admin/access`);
  await page.getByText("In an emergency, use the operator token").click();
  const field = page.getByLabel("Operator token");
  await field.fill("wrong");
  await page.getByRole("button", { name: "Sign in with the token" }).click();
  await page.getByText("This is not the operator token.").waitFor();
  await field.fill(system.operatorToken);
  await page.getByRole("button", { name: "Sign in with the token" }).click();
  await shows(page, "Operators");
  expect(await page.locator("main").innerText()).toContain("the operator token");
});

test("an operator finds a tenant, suspends and resumes it, acts for it under a banner, and moves it with its progress; a viewer sees no button", async () => {
  const name = `Miller & <b>Sons</b> ${crypto.randomUUID().slice(0, 8)}`;
  const { id } = await aTenant({ name });
  const page = await newPage();
  const sub = await signInOperator(page, "admin", "/admin/tenants");
  await page.getByLabel("Name, e-mail or id").fill(name);
  await page.getByRole("button", { name: "Search" }).click();
  await page.getByRole("link", { name }).click();
  await shows(page, name);

  // Each act asks first, without script.
  await page.getByRole("link", { name: "Suspend" }).click();
  await page.getByRole("button", { name: "Suspend" }).click();
  await page.getByText("The tenant is suspended.").waitFor();
  expect(await (await operator("GET", `/tenants/${id}`)).json()).toMatchObject({ state: "suspended", served: false });
  await page.getByRole("link", { name: "Resume" }).click();
  await page.getByRole("button", { name: "Resume" }).click();
  await page.getByText("The tenant is resumed.").waitFor();

  await page.getByRole("link", { name: "Act as its administrator" }).click();
  await page.getByLabel("Reason").fill("Ticket <4711>");
  await page.getByRole("button", { name: "Start" }).click();
  await shows(page, "Overview");
  const banner = page.locator(".banner");
  expect(await banner.innerText()).toMatch(
    /^An operator \(admin\) acts for .*Reason: Ticket <4711> · ends in 10 minutes/s,
  );
  await page.goto(`${system.publicUrl}/app/${id}`);
  await banner.getByRole("button", { name: "End now" }).click();
  await shows(page, name);
  await page.getByText("You no longer act for this tenant.").waitFor();
  await page.goto(`${system.publicUrl}/app/${id}`);
  await shows(page, "Page not found");
  expect(await banner.count()).toBe(0);

  const actions = async (): Promise<unknown[]> => {
    const answer = (await (await operator("GET", `/audit?tenant=${id}`)).json()) as {
      events: { action: string; outcome: string; actor: { kind: string; id: string } }[];
    };
    return answer.events.map(({ action, outcome, actor }) => [action, outcome, actor.kind, actor.id]);
  };
  await expect
    .poll(actions, { timeout: 15_000 })
    .toEqual(
      expect.arrayContaining([
        ...["suspendTenant", "resumeTenant", "impersonate"].map((action) => [action, "succeeded", "operator", sub]),
        ["endImpersonation", "succeeded", "impersonator", sub],
      ]),
    );
  await page.goto(`${system.publicUrl}/admin/audit?tenant=${id}`);
  await page.getByText("suspendTenant", { exact: true }).waitFor();

  await page.goto(`${system.publicUrl}/admin/tenants/${id}/data`);
  await page.getByRole("link", { name: "Move the rows" }).click();
  await page.locator('select[name="strategy"]').selectOption("schema");
  await page.getByRole("button", { name: "Start the move" }).click();
  // The page renews itself until the move waits to be confirmed.
  await page.getByText("moved, not confirmed").waitFor({ timeout: 60_000 });
  await page.getByRole("link", { name: "Confirm the move" }).click();
  await page.getByRole("button", { name: "Confirm the move" }).click();
  await page.getByText("The move is confirmed.").waitFor();

  const viewer = await newPage();
  await signInOperator(viewer, "viewer", `/admin/tenants/${id}`);
  await shows(viewer, name);
  for (const path of ["", "/data", "/people"]) {
    await viewer.goto(`${system.publicUrl}/admin/tenants/${id}${path}`);
    expect(await viewer.locator("main .actions a, main form").count(), path).toBe(0);
  }
  await viewer.goto(`${system.publicUrl}/admin/tenants/${id}/suspend`);
  await viewer.getByText("This needs the role support. You have the role viewer.").waitFor();
}, 180_000);
