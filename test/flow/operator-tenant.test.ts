// What an operator sees and does on the pages about one tenant, as requests of a browser without script.
import { expect, test } from "vitest";
import { aTenant, callTool, controlRows, operator, system, until } from "../support/flow.ts";
import { enteredIn, figureOf, numberOf, tableOf, textOf } from "../support/html.ts";
import { anOperator, sendForm } from "../support/operators.ts";
import type { Page } from "../support/plain-browser.ts";
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

test("an operator changes what a key may do, and the form keeps what the API refuses", async () => {
  const { id } = await aTenant();
  const staff = await anOperator();
  const made = await operator("POST", `/tenants/${id}/keys`, { name: "Nightly" });
  const { id: keyId, apiKey } = (await made.json()) as { id: string; apiKey: string };
  const path = `/admin/tenants/${id}/keys/${keyId}/change`;
  const form = await staff.page(system.publicUrl + path);
  expect(enteredIn(form.html, "name")).toBe("Nightly");
  const refused = await sendForm(staff, path, { name: "Weekly", unitsPerMonth: "0" });
  expect([refused.status, enteredIn(refused.html, "name"), enteredIn(refused.html, "unitsPerMonth")]).toEqual([
    ...[400, "Weekly", "0"],
  ]);
  const changed = await sendForm(staff, path, { name: "Weekly", unitsPerMonth: "1,000", tools: "health_check" });
  expect(textOf(changed.html)).toContain("The key is changed.");
  expect(tableOf(changed.html, "API keys. Times in UTC.")).toContainEqual(
    expect.objectContaining({ Key: `Weekly ${keyId}`, Only: "health_check, 1,000 units a month" }),
  );
  expect((await callTool(apiKey, "get_usage")).refusal?.code).toBe("tool_not_in_key");
  // An operator who may not change keys sees no button for it.
  const viewer = await anOperator("support");
  expect((await viewer.page(`${system.publicUrl}/admin/tenants/${id}/people`)).html).not.toContain(`${keyId}/change`);
  expect((await viewer.page(system.publicUrl + path)).status).toBe(403);
});

test("an operator takes a backup out, restores it into a new tenant and uploads an import, on pages", async () => {
  const { id, apiKey } = await aTenant({ name: "Acme" });
  const staff = await anOperator();
  const base = `/admin/tenants/${id}`;
  const data = `${base}/data`;
  await sendForm(staff, `${base}/backup`, {});
  const backups = async (): Promise<{ name: string; state: string }[]> =>
    ((await (await operator("GET", `/tenants/${id}/backups`)).json()) as { backups: { name: string; state: string }[] })
      .backups;
  await until(async () => (await backups())[0]?.state === "done", "the backup is made");
  const [{ name } = { name: "" }] = await backups();
  const page = await staff.page(system.publicUrl + data);
  const links = [...page.html.matchAll(/href="([^"]*)" download/g)].map(([, href]) => href ?? "");
  expect(links).toEqual([`/admin/api/tenants/${id}/backups/${name}`, `/admin/api/tenants/${id}/export`]);
  const [file = "", exported = ""] = await Promise.all(
    links.map(async (href) => (await staff.page(system.publicUrl + href)).html),
  );
  expect(file.split("\n").length).toBeGreaterThan(3);
  expect(exported).toContain(id);
  const support = await anOperator("support");
  expect((await support.page(system.publicUrl + data)).html).not.toContain(" download");

  // Elsewhere: a form that is sent twice makes one tenant.
  const form = enteredIn((await staff.page(`${system.publicUrl}${base}/restore-into`)).html, "form") ?? "";
  const into = { form, backup: name, name: "Acme, looked at", plan: "free" };
  const restored = await sendForm(staff, `${base}/restore-into`, into);
  const [, newId = ""] = /^\/admin\/tenants\/(\w+)\/data$/.exec(restored.url.pathname) ?? [];
  expect([textOf(restored.html).includes("The new tenant is being set up."), newId === id]).toEqual([true, false]);
  const again = await sendForm(staff, `${base}/restore-into`, into);
  expect([again.status, enteredIn(again.html, "name")]).toEqual([409, "Acme, looked at"]);
  const restores = async (): Promise<{ state: string }[]> =>
    ((await (await operator("GET", `/tenants/${newId}/restores`)).json()) as { restores: { state: string }[] })
      .restores;
  await until(async () => (await restores())[0]?.state === "done", "the rows are in the new tenant");
  expect((await callTool(apiKey, "search_products", { query: "" })).refusal).toBeUndefined();

  const upload = (content: string): Promise<Page> => {
    const body = new FormData();
    if (content !== "") body.append("file", new File([content], "rows.ndjson"));
    body.append("overwrite", "yes");
    return staff.page(`${system.publicUrl}${base}/import/upload`, {
      ...{ method: "POST", headers: { origin: system.publicUrl }, body },
    });
  };
  const empty = await upload("");
  expect([empty.status, textOf(empty.html)]).toEqual([400, expect.stringContaining("Choose a file with lines.")]);
  expect(empty.html).toMatch(/name="overwrite" value="yes" checked/);
  const line = JSON.stringify({ table: "products", row: { id: "uploaded", name: "Uploaded", price_cents: 100 } });
  const begun = await upload(`${line}\n`);
  expect(textOf(begun.html)).toContain("The import has begun.");
  const shown = async (): Promise<string> => textOf((await staff.page(system.publicUrl + data)).html);
  await until(async () => (await shown()).includes("Last import: done 1 of 1 lines"), "the line is imported");
}, 240_000);

test("the figures of the deployment are compared with the time before, and come as a file like the list of tenants", async () => {
  const marker = crypto.randomUUID().slice(0, 8);
  const { id, apiKey } = await aTenant({ name: `=1+1 "${marker}", a name` });
  const staff = await anOperator("viewer");
  await callTool(apiKey, "search_products", { query: "" });
  const addedAt = (hours: number, calls: number): Promise<unknown> =>
    controlRows(
      `INSERT INTO metrics_hourly (tenant_id, hour, tool, caller, outcome, code, calls, units, ms, db_ms, latency)
       SELECT $1, date_trunc('hour', now(), 'UTC') - make_interval(hours => $2), 'a', 'key:x', 'ok', '', $3, $3, 1, 1, h.latency
       FROM metrics_hourly h LIMIT 1`,
      [id, hours, calls],
    );
  const figures = async (): Promise<string> => (await staff.page(`${system.publicUrl}/admin?range=day`)).html;
  const csv = async (path: string): Promise<{ type: string; rows: string[] }> => {
    const { html, headers } = await staff.page(system.publicUrl + path);
    return { type: headers.get("content-type") ?? "", rows: html.trimEnd().split("\r\n") };
  };
  const callsNow = async (): Promise<number> => numberOf(figureOf(await figures(), "Calls"));
  await until(async () => (await callsNow()) > 0, "the metrics have a call", FOLDED_WITHIN_MS);
  await addedAt(25, 1_000_000);
  expect(textOf(await figures())).toContain("% less than in the 24 hours before");
  await addedAt(1, 5_000_000);
  expect(textOf(await figures())).toMatch(/[45](\.\d+)? times as many as in the 24 hours before/);

  const file = await csv("/admin/figures.csv?range=day");
  expect(file.type).toMatch(/^text\/csv/);
  const [head, ...hours] = file.rows;
  expect(head).toBe("start,calls,failed,refused,units,tenants");
  const calls = hours.reduce((sum, row) => sum + Number(row.split(",")[1]), 0);
  expect(calls).toBeGreaterThanOrEqual(5_000_001);

  const tenants = await csv(`/admin/tenants.csv?q=${marker}`);
  expect(tenants.rows).toHaveLength(2);
  // A name that a spreadsheet would run is a text in it.
  expect(tenants.rows[1]).toMatch(new RegExp(`^${id},"'=1[+]1 ""${marker}"", a name",,active,free,`));
  expect((await fetch(`${system.publicUrl}/admin/tenants.csv`, { redirect: "manual" })).status).not.toBe(200);
});
