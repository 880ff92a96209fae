// Secrets that a tenant's administrators set for its tools: in force on the next call, only ever written, and nowhere in clear.
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { aTenant, asSuperuser, callTool, controlRows, operator, system } from "../support/flow.ts";
import { controlPlaces, leaksOf } from "../support/planted-secrets.ts";
import { anOwnerOf, ask } from "../support/signed-in.ts";
import { textOf } from "../support/html.ts";

const aSecret = (): string => `planted-tenant-secret-${crypto.randomUUID()}`;
const digestOf = (value: string): string => createHash("sha256").update(value).digest("base64");

async function anAccount() {
  const made = await aTenant();
  const tenant = { ...made, browser: await anOwnerOf(made.id) };
  const answers: string[] = [];
  /** A request of the owner's browser. Keeps the answer. */
  const send = async (method: string, path = "", body?: unknown) => {
    const response = await ask(tenant.browser, method, `/api/tenants/${tenant.id}/secrets${path}`, body);
    const text = await response.text();
    answers.push(text);
    return { status: response.status, body: JSON.parse(text) as Record<string, unknown> };
  };
  const set = (value: string) => send("PUT", "/shipping_api_key", { value });
  const use = (act: string, name = "shipping_api_key") => callTool(tenant.apiKey, "use_secrets", { act, name });
  return { ...tenant, answers, send, set, use };
}

test("a secret is in force on the very next call, also after a change and a removal, and a missing one costs nothing", async () => {
  const { id, send, set, use } = await anAccount();
  const missing = await use("digest");
  expect(missing.text).toMatch(/^secret_missing: .* not charged\. The secret shipping_api_key is not set\./);
  expect(missing.text).toContain(`${system.publicUrl}/app/${id}/secrets`);
  expect(missing.receipt).toBeUndefined();
  expect((await send("GET")).body).toEqual({
    next: null,
    secrets: [
      {
        ...{ name: "shipping_api_key", meaning: "Key of your account at the shipping service", isSet: false },
        ...{ setAt: null, setBy: null, tools: ["use_secrets", "ask_outside"] },
      },
    ],
  });
  for (const value of [aSecret(), aSecret()]) {
    const { status, body } = await set(value);
    expect({ status, body }).toMatchObject({
      status: 200,
      body: { isSet: true, delivered: true, setBy: { kind: "member" }, setAt: expect.any(String) },
    });
    const used = await use("digest");
    expect(used).toMatchObject({ data: { digest: digestOf(value) }, receipt: { units: 1 } });
  }
  expect((await send("DELETE", "/shipping_api_key")).body).toMatchObject({ removed: true, delivered: true });
  expect((await use("digest")).text).toMatch(/^secret_missing/);
  expect((await send("DELETE", "/shipping_api_key")).status).toBe(404);
  // The operator's own is the same for every tenant.
  expect((await use("digest", "carrier_account")).data?.["digest"]).toBe(
    digestOf(system.secrets["carrier_account"] ?? ""),
  );
});

test("a value is refused where it has no place, and no answer repeats it", async () => {
  const { answers, send, set } = await anAccount();
  const value = aSecret();
  expect((await set(value)).status).toBe(200);
  expect((await send("PUT", `/${value}`, { value: "x" })).status).toBe(404);
  expect((await send("PUT", "/carrier_account", { value })).status).toBe(404);
  expect((await send("PUT", "/shipping_api_key", { value, more: value })).status).toBe(400);
  expect((await send("PUT", "/shipping_api_key", { value: [value] })).status).toBe(400);
  expect((await send("PUT", "/shipping_api_key", { value: value.repeat(200) })).status).toBe(400);
  expect((await send("PUT", "/shipping_api_key", { value: " " })).status).toBe(400);
  expect((await send("GET")).status).toBe(200);
  expect(answers.join("\n")).not.toContain(value);
});

test("a tenant reads no secret of another one", async () => {
  const [first, second] = [await anAccount(), await anAccount()];
  const value = aSecret();
  await first.set(value);
  expect((await second.use("digest")).text).toMatch(/^secret_missing/);
  // A row that was copied to another tenant does not decrypt there.
  await controlRows(
    `INSERT INTO tenant_secrets SELECT $2, name, value, set_at, set_by_kind, set_by_id FROM tenant_secrets WHERE tenant_id = $1`,
    [first.id, second.id],
  );
  await second.send("DELETE", "/none");
  await controlRows(`UPDATE tenants SET version = version + 1 WHERE id = $1`, [second.id]);
  await operator("PATCH", `/tenants/${second.id}`, { name: "Read again" });
  expect((await second.use("digest")).text).toMatch(/^tool_failed/);
  expect((await first.use("digest")).data).toEqual({ digest: digestOf(value) });
});

test("people set, replace and remove a secret on its page, which never shows a value", async () => {
  const { id, browser, use } = await anAccount();
  const path = `${system.publicUrl}/app/${id}/secrets`;
  const value = aSecret();
  const shown = await browser.page(path);
  expect(textOf(shown.html)).toContain("Key of your account at the shipping service");
  expect(textOf(shown.html)).toContain("not set");
  const submit = (to: string, fields: Record<string, string>) =>
    fetch(path + to, {
      method: "POST",
      redirect: "manual",
      headers: {
        ...{ origin: system.publicUrl, "content-type": "application/x-www-form-urlencoded" },
        cookie: [...browser.cookies(system.publicUrl)].map((pair) => pair.join("=")).join("; "),
      },
      body: new URLSearchParams(fields).toString(),
    });
  const empty = await submit("/shipping_api_key", { value: "" });
  expect([empty.status, textOf(await empty.text()).includes("This is missing")]).toEqual([400, true]);
  const large = await submit("/shipping_api_key", { value: value.repeat(200) });
  const refused = await large.text();
  expect([large.status, textOf(refused).includes("4,096 bytes"), refused.includes(value)]).toEqual([400, true, false]);
  expect((await submit("/shipping_api_key", { value })).status).toBe(303);
  expect((await use("digest")).data).toEqual({ digest: digestOf(value) });
  const after = await browser.page(path);
  expect(after.html).not.toContain(value);
  expect(textOf(after.html)).toMatch(/set shipping_api_key.*by a member.*Used by use_secrets, ask_outside\./s);
  expect((await submit("/shipping_api_key/remove", {})).status).toBe(303);
  expect((await use("digest")).text).toMatch(/^secret_missing/);
});

test("a secret is encrypted again when its key is rotated out, and works all the time", async () => {
  const { id, set, use } = await anAccount();
  const value = aSecret();
  await set(value);
  const keyOf = async (): Promise<unknown> =>
    (await controlRows(`SELECT split_part(value, '.', 2) AS key FROM tenant_secrets WHERE tenant_id = $1`, [id]))[0]?.[
      "key"
    ];
  expect(await keyOf()).toBe("local");
  await fetch(`${system.publicUrl}/test/rotate`);
  expect(await keyOf()).toBe("other");
  expect((await use("digest")).data).toEqual({ digest: digestOf(value) });
});

test("the audit log says who set and removed which secret, without the value", async () => {
  const { id, browser, set, send } = await anAccount();
  const value = aSecret();
  await set(value);
  await send("DELETE", "/shipping_api_key");
  const events = (await (await ask(browser, "GET", `/api/tenants/${id}/audit`)).json()) as {
    events: unknown[];
  };
  for (const action of ["setOwnSecret", "removeOwnSecret"])
    expect(events.events).toContainEqual(
      expect.objectContaining({
        action,
        target: "shipping_api_key",
        actor: expect.objectContaining({ kind: "member" }),
      }),
    );
  expect(JSON.stringify(events)).not.toContain(value);
});

test("used, leaked and thrown values of both sides are in no answer, log line, row, export or backup", async () => {
  const { id, answers, apiKey, set, use } = await anAccount();
  const value = aSecret();
  await set(value);
  const results: string[] = [];
  for (const name of ["shipping_api_key", "carrier_account"]) {
    expect((await use("digest", name)).receipt).toMatchObject({ units: 1 });
    for (const act of ["answer", "name", "explain"]) {
      const withheld = await use(act, name);
      results.push(JSON.stringify(withheld));
      expect(withheld, act).toMatchObject({ isError: true, receipt: undefined });
      expect(withheld.text, act).toMatch(/^secret_in_result: /);
    }
    for (const act of ["throw", "report"]) results.push(JSON.stringify(await use(act, name)));
  }
  results.push(JSON.stringify(await callTool(apiKey, "get_usage")));
  results.push(await (await operator("GET", `/tenants/${id}/export`)).text());
  const backup = await operator("POST", `/tenants/${id}/backups`, {});
  expect(backup.status).toBeLessThan(300);
  const named = { "a tenant's secret": value, "an operator's secret": system.secrets["carrier_account"] ?? "" };
  for (const secret of Object.values({ ...named })) {
    expect([...results, ...answers].join("\n")).not.toContain(secret);
    expect([...results, ...answers].join("\n")).not.toContain(btoa(secret).replaceAll("=", ""));
  }
  const log = { name: "the log", text: await readFile(system.logFile, "utf8") };
  expect(log.text).toContain("used_[secret]");
  expect(await leaksOf([log], { named })).toEqual([]);
  expect(await leaksOf(controlPlaces(asSuperuser(system.controlUrl)), { named })).toEqual([]);
});
