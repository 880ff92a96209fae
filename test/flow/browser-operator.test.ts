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
  await page.getByText("An operator (viewer) · viewer").click();
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
