// A form that is refused comes back with what the person entered, and says why: the operator's forms and a customer's.
import { expect, test } from "vitest";
import { aTenant, operator, system } from "../support/flow.ts";
import { enteredIn, textOf } from "../support/html.ts";
import { anOperator, sendForm as send } from "../support/operators.ts";
import { anOwnedTenant, ask } from "../support/signed-in.ts";

test("an act of the operator that is refused keeps what was entered, and says why", async () => {
  const [{ id }, other] = [await aTenant(), await aTenant()];
  const issuer = system.issuerUrl;
  const theirs = { issuer, organisation: `org-${other.id}` };
  expect((await operator("POST", `/tenants/${other.id}/links`, theirs)).status).toBeLessThan(300);
  const staff = await anOperator();
  const refusals: [act: string, fields: Record<string, string>, status: number, why: RegExp][] = [
    ["links/new", theirs, 409, /linked to another tenant/],
    ["links/new", { ...theirs, issuer: "nowhere" }, 400, /Issuer: /],
    ["move", { strategy: "schema", shard: "no-such-shard" }, 404, /There is no schema shard no-such-shard/],
    ["drop", { name: "Another <name>" }, 400, /must be the account's name/],
    ["restore", { backup: "one.ndjson", at: "2026-11-28T10:00:00Z" }, 400, /Name a backup or an instant/],
    ["impersonate", { reason: "x".repeat(300) }, 400, /Reason: /],
  ];
  for (const [act, fields, status, why] of refusals) {
    const { html, status: answered } = await send(staff, `/admin/tenants/${id}/${act}`, fields);
    expect(textOf(html), act).toMatch(why);
    expect(answered, act).toBe(status);
    for (const [name, value] of Object.entries(fields)) expect(enteredIn(html, name), `${act} ${name}`).toBe(value);
  }
});

test("a customer's form that is refused after its fields were read keeps them, and marks the field", async () => {
  const { id, browser } = await anOwnedTenant();
  const keys = `/api/tenants/${id}/keys`;
  const expiresAt = new Date(Date.now() + 86_400_000).toISOString();
  const made = (await (await ask(browser, "POST", keys, { name: "Nightly", expiresAt })).json()) as { id: string };
  const later = new Date(Date.now() + 10 * 86_400_000).toISOString().slice(0, 10);
  const key = `/app/${id}/keys/${made.id}`;
  const changed = await send(browser, key, { name: "Weekly", unitsPerMonth: "5,000", expiresAt: later });
  expect(changed.status).toBe(400);
  expect(textOf(changed.html)).toContain("can only come earlier");
  for (const [name, value] of Object.entries({ name: "Weekly", unitsPerMonth: "5,000", expiresAt: later }))
    expect(enteredIn(changed.html, name)).toBe(value);

  for (let more = 1; more < 50; more += 1) await ask(browser, "POST", keys, { name: `key ${more}` });
  const page = await browser.page(`${system.publicUrl}/app/${id}/keys/new`);
  const seed = enteredIn(page.html, "form") ?? "";
  const over = await send(browser, `/app/${id}/keys`, { form: seed, name: "One more", unitsPerMonth: "7" });
  expect(over.status).toBe(409);
  expect(textOf(over.html)).toContain("Revoke one first");
  expect(enteredIn(over.html, "name")).toBe("One more");
  expect(enteredIn(over.html, "unitsPerMonth")).toBe("7");
});
