// The operator's form of a tenant's configuration with a real browser: what it stores is in force on the next call, and of two
// operators who change the same tenant neither undoes the other's change.
import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { newPage, shows } from "../support/browser.ts";
import { aTenant, callTool, controlRows, operator, system } from "../support/flow.ts";
import { signInOperator } from "../support/operators.ts";

const contentOf = async (page: Page): Promise<string> =>
  (await page.locator("main").innerText()).replaceAll(/\s+/g, " ");
const field = (page: Page, name: string) => page.locator(`[name="${name}"]`);
const save = (page: Page): Promise<void> => page.getByRole("button", { name: "Save", exact: true }).click();
const configurationOf = async (id: string): Promise<Record<string, unknown>> =>
  (await (await operator("GET", `/tenants/${id}/configuration`)).json()) as Record<string, unknown>;

async function openForm(name: string, role: string): Promise<{ id: string; apiKey: string; page: Page }> {
  const { id, apiKey } = await aTenant({ name });
  const page = await newPage();
  await signInOperator(page, role, `/admin/tenants/${id}/configuration`);
  await shows(page, name);
  return { id, apiKey, page };
}

test("an operator changes every part of a configuration, a wrong field keeps the others, and the next call uses it", async () => {
  const { id, apiKey, page } = await openForm("Acme", "support");
  await field(page, "callsPerMinute").fill("1,000");
  await field(page, "unitsPerMonth").fill("none");
  await field(page, "unitsPerHourByTool").fill("search_products = 5");
  await field(page, "tools").selectOption("chosen");
  await page.locator('input[name="allowedTools"][value="health_check"]').check();
  await field(page, "features").fill("seats = 5\nbeta = true");
  await field(page, "productName").fill("Ours");
  await field(page, "colour").fill("blue");
  await save(page);
  expect(await page.locator(".field .error").innerText()).toMatch(/CSS colour/);
  expect(await field(page, "callsPerMinute").inputValue()).toBe("1,000");
  expect(await field(page, "features").inputValue()).toBe("seats = 5\nbeta = true");
  expect(await page.locator('input[name="allowedTools"]:checked').count()).toBe(1);
  await field(page, "colour").fill("#1d4ed8");
  await save(page);
  await page.getByText("The configuration is saved.").waitFor();
  expect(await configurationOf(id)).toMatchObject({
    limits: { callsPerMinute: 1_000, unitsPerMonth: "none", unitsPerHourByTool: { search_products: 5 } },
    ...{ allowedTools: ["health_check"], features: { seats: 5, beta: true } },
    branding: { productName: "Ours", colour: "#1d4ed8" },
  });
  expect((await callTool(apiKey, "get_usage")).refusal?.code).toBe("tool_not_allowed");

  // An empty field is the number that was sold.
  expect(await field(page, "callsPerMinute").inputValue()).toBe("1000");
  await field(page, "callsPerMinute").fill("");
  await field(page, "tools").selectOption("all");
  await field(page, "features").fill("");
  await save(page);
  await page.getByText("The configuration is saved.").waitFor();
  const { limits, features, allowedTools } = await configurationOf(id);
  expect([features, allowedTools]).toEqual([{}, undefined]);
  expect(limits).not.toHaveProperty("callsPerMinute");
  expect((await callTool(apiKey, "get_usage")).refusal).toBeUndefined();
});

test("of two operators who change a tenant at once the later one keeps the input, sees what changed, and undoes nothing", async () => {
  const { id, page } = await openForm("Acme", "admin");
  const other = await newPage();
  await signInOperator(other, "support", `/admin/tenants/${id}/configuration`);
  await shows(other, "Acme");

  await field(page, "features").fill("seats = 9");
  await field(page, "unitsPerHour").fill("77");

  await field(other, "features").fill("seats = 3");
  await field(other, "productName").fill("Theirs");
  await save(other);
  await other.getByText("The configuration is saved.").waitFor();

  await save(page);
  const late = await contentOf(page);
  expect(late).toContain("Another change came first. It changed: Features of its own, Name in agents.");
  expect(late).toContain("Stored now: seats = 3");
  // What only the other has changed is taken, and what this operator entered is kept.
  expect(await field(page, "productName").inputValue()).toBe("Theirs");
  expect(await field(page, "features").inputValue()).toBe("seats = 9");
  expect(await field(page, "unitsPerHour").inputValue()).toBe("77");
  expect(await configurationOf(id)).toMatchObject({ features: { seats: 3 }, limits: {} });
  expect(await page.getByRole("link", { name: "See who made it" }).getAttribute("href")).toContain(id);

  await save(page);
  await page.getByText("The configuration is saved.").waitFor();
  expect(await configurationOf(id)).toMatchObject({
    ...{ features: { seats: 9 }, limits: { unitsPerHour: 77 }, branding: { productName: "Theirs" } },
  });
});

test("numbers that a tenant was sold and that the plan no longer has are shown as such, and a viewer reads them", async () => {
  const { id, page } = await openForm("Acme", "viewer");
  await controlRows(
    `UPDATE tenants SET limits = limits || '{"unitsPerHour": 777}', sold_limits = NULL, version = version + 1 WHERE id = $1`,
    [id],
  );
  await page.reload();
  expect(await contentOf(page)).toContain("Units an hour 777 Sold with 777. Free has 100 now.");
  expect(await page.locator("main form").count()).toBe(0);
  await page.goto(`${system.publicUrl}/admin/tenants/${id}`);
  expect(await contentOf(page)).toContain("Units an hour 777 Sold with 777. Free has 100 now.");

  const support = await newPage();
  await signInOperator(support, "support", `/admin/tenants/${id}/configuration`);
  expect(await contentOf(support)).toContain("Sold with 777. Free has 100 now.");
  await field(support, "unitsPerHour").fill("5000");
  await save(support);
  await support.getByText("The configuration is saved.").waitFor();
  await support.goto(`${system.publicUrl}/admin/tenants/${id}`);
  expect(await contentOf(support)).toContain("Units an hour 5,000 Set by an operator. Sold with 777.");
});
