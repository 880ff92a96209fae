// What an operator sees and does on the pages about one tenant, as requests of a browser without script.
import { expect, test } from "vitest";
import { aTenant, callTool, operator, system, until } from "../support/flow.ts";
import { figureOf, numberOf, tableOf, textOf } from "../support/html.ts";
import { anOperator } from "../support/operators.ts";
import { anOwnerOf } from "../support/signed-in.ts";

/** The metrics are about a minute behind, and wait for the alarm of the object besides. */
const FOLDED_WITHIN_MS = 150_000;

interface Figures {
  calls: number;
  units: number;
  failed: number;
}

test("an operator reads a tenant's usage, its last calls and each call by its receipt, with the customer's own numbers", async () => {
  const tenant = await aTenant({ name: `<b>Acme</b> & "Sons"` });
  const owner = await anOwnerOf(tenant.id);
  const staff = await anOperator("viewer");
  const { receipt } = await callTool(tenant.apiKey, "search_products", { query: "" });
  for (let more = 0; more < 3; more += 1) await callTool(tenant.apiKey, "search_products", { query: "" });
  await callTool(tenant.apiKey, "read_document", { path: "there/is/none.txt" });
  const metrics = async (): Promise<Figures> => {
    const answer = await operator("GET", `/tenants/${tenant.id}/metrics`);
    return ((await answer.json()) as { total: Figures }).total;
  };
  await until(async () => (await metrics()).calls >= 5, "the metrics have all calls", FOLDED_WITHIN_MS);

  const theirs = `${system.publicUrl}/app/${tenant.id}`;
  const ours = `${system.publicUrl}/admin/tenants/${tenant.id}`;
  for (const query of ["", "?by=caller", "?tool=search_products", `?from=2026-01-01&to=2026-01-05`]) {
    const [customers, operators] = [
      await owner.page(theirs + "/usage" + query),
      await staff.page(ours + "/usage" + query),
    ];
    expect(operators.status).toBe(200);
    for (const name of ["Calls", "Units charged", "Errors", "Latency, median", "Database time"])
      expect(figureOf(operators.html, name), query + name).toBe(figureOf(customers.html, name));
    // Each link of the page stays with the operator's pages.
    expect(operators.html).not.toContain(`/app/${tenant.id}`);
  }
  const { html } = await staff.page(`${ours}/usage?by=tool`);
  expect(numberOf(figureOf(html, "Calls"))).toBe((await metrics()).calls);
  expect(tableOf(html, "Usage by tool").map((row) => row["Tool"])).toContain("search_products");
  for (const chart of ["Calls by day", "Latency by day"]) expect(tableOf(html, chart)).toHaveLength(30);

  const calls = await staff.page(`${ours}/calls`);
  const own = await owner.page(`${theirs}/calls`);
  expect(tableOf(calls.html, "Calls")).toEqual(tableOf(own.html, "Calls"));
  const failed = await staff.page(`${ours}/calls?outcome=failed`);
  expect(tableOf(failed.html, "Calls").map((row) => row["Tool"])).toEqual(["read_document"]);

  // The form for a receipt leads to its call.
  for (const [browser, base] of [
    [staff, ours],
    [owner, theirs],
  ] as const) {
    const one = await browser.page(`${base}/calls?receipt=${encodeURIComponent(receipt?.id ?? "")}`);
    expect(one.url.href).toBe(`${base}/calls/${receipt?.id}`);
    expect(textOf(one.html)).toContain("search_products");
  }
  expect((await staff.page(`${ours}/calls?receipt=unknown`)).status).toBe(404);
  const other = await aTenant();
  const foreign = await staff.page(`${system.publicUrl}/admin/tenants/${other.id}/calls/${receipt?.id}`);
  expect(foreign.status).toBe(404);
});
