// A tenant's documents for its people and programs: they are the documents of its tools, under the same rules, and can be read in
// every state of the account.
import { expect, test } from "vitest";
import {
  aTenant,
  callTool,
  controlRows,
  operator,
  storedCalls,
  system,
  type TestTenant,
  until,
} from "../support/flow.ts";
import { plain, tableOf, textOf } from "../support/html.ts";
import { type Page, formsOf } from "../support/plain-browser.ts";
import type { Browser } from "../support/sign-in.ts";
import { anOwnedTenant } from "../support/signed-in.ts";

const KIB = 1024;
const MOST_BYTES = 512 * KIB;

/** A key with the admin scope. */
async function anAdmin(overrides: Parameters<typeof aTenant>[0] = {}): Promise<TestTenant & { adminKey: string }> {
  const tenant = await aTenant({ limits: { callsPerMinute: null }, ...overrides });
  const made = await operator("POST", `/tenants/${tenant.id}/keys`, {
    ...{ name: "admin", scopes: ["tools:read", "tools:write", "tenant:admin"] },
  });
  return { ...tenant, adminKey: ((await made.json()) as { apiKey: string }).apiKey };
}

const urlOf = (id: string, path: string): string =>
  `${system.publicUrl}/api/tenants/${id}/documents/content?path=${encodeURIComponent(path)}`;

function request(
  { id, adminKey }: { id: string; adminKey: string },
  method: string,
  path: string,
  body?: BodyInit,
  headers: Record<string, string> = {},
): Promise<Response> {
  return fetch(urlOf(id, path), {
    method,
    headers: { authorization: `Bearer ${adminKey}`, ...headers },
    ...(body !== undefined && { body }),
  });
}

interface Listed {
  documents: { path: string; sizeBytes: number; contentType: string }[];
  next: string | null;
}
async function list({ id, adminKey }: { id: string; adminKey: string }, query = ""): Promise<Listed> {
  const answer = await fetch(`${system.publicUrl}/api/tenants/${id}/documents${query}`, {
    headers: { authorization: `Bearer ${adminKey}` },
  });
  expect(answer.status, await answer.clone().text()).toBe(200);
  return (await answer.json()) as Listed;
}
const codeOf = async (answer: Response): Promise<unknown> => ((await answer.json()) as { code?: unknown }).code;

test("people and tools see the same documents, to the byte, and only a tool's are charged", async () => {
  const tenant = await anAdmin();
  const text = "zweiter Entwurf: ä\r\n";
  const put = await request(tenant, "PUT", "notes/today.md", text, { "content-type": "text/markdown" });
  expect(await put.json()).toMatchObject({ path: "notes/today.md", sizeBytes: 21, contentType: "text/markdown" });
  expect((await callTool(tenant.apiKey, "read_document", { path: "notes/today.md" })).data).toMatchObject({ text });
  await callTool(tenant.apiKey, "write_document", { path: "plan.md", text: "plan" });
  const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
  expect((await request(tenant, "PUT", "bild.bin", bytes)).status).toBe(200);
  expect(await list(tenant)).toEqual({
    documents: [
      expect.objectContaining({ path: "bild.bin", sizeBytes: 256, contentType: "application/octet-stream" }),
      expect.objectContaining({ path: "notes/today.md" }),
      expect.objectContaining({ path: "plan.md", sizeBytes: 4 }),
    ],
    next: null,
  });
  expect((await list(tenant, "?prefix=notes/")).documents.map(({ path }) => path)).toEqual(["notes/today.md"]);
  expect(new Uint8Array(await (await request(tenant, "GET", "bild.bin")).arrayBuffer())).toEqual(bytes);
  expect(await (await request(tenant, "GET", "plan.md")).text()).toBe("plan");
  expect(await (await request(tenant, "DELETE", "bild.bin")).json()).toEqual({ deleted: true });
  for (const method of ["GET", "DELETE"])
    expect(await codeOf(await request(tenant, method, "bild.bin")), method).toBe("not_found");
  expect((await storedCalls(tenant.id)).map(({ tool }) => tool)).toEqual(["read_document", "write_document"]);
});

test("the list comes in pages without gaps or repetitions", async () => {
  const tenant = await anAdmin();
  const names = ["a.md", "a/b.md", "b.md", "c.md", "ö.md"];
  for (const name of names) expect((await request(tenant, "PUT", name, name)).status).toBe(200);
  const seen: string[] = [];
  let next: string | null = "";
  while (next !== null) {
    const page: Listed = await list(tenant, `?limit=2${next === "" ? "" : `&after=${encodeURIComponent(next)}`}`);
    seen.push(...page.documents.map(({ path }) => path));
    next = page.next;
  }
  expect(seen.toSorted()).toEqual(names.toSorted());
  for (const query of ["?after=../x", "?prefix=a/&after=b.md", "?prefix=..", "?limit=0"]) {
    const answer = await fetch(`${system.publicUrl}/api/tenants/${tenant.id}/documents${query}`, {
      headers: { authorization: `Bearer ${tenant.adminKey}` },
    });
    expect([query, answer.status]).toEqual([query, 400]);
  }
});

test("a download is a file under its own name, and no browser runs it as a page of Tollgate's", async () => {
  const tenant = await anAdmin();
  const name = `"Größe" & 100 %;\u{1F600}(1).csv`;
  await request(tenant, "PUT", `x/${name}`, "id\r\n1", { "content-type": "text/csv" });
  const answer = await request(tenant, "GET", `x/${name}`);
  expect(answer.headers.get("content-disposition")).toBe(
    `attachment; filename="_Gr__e_ _ 100 ____(1).csv"; filename*=UTF-8''%22Gr%C3%B6%C3%9Fe%22%20%26%20100%20%25%3B%F0%9F%98%80%281%29.csv`,
  );
  expect(Object.fromEntries(answer.headers)).toMatchObject({
    ...{ "content-type": "text/csv", "content-length": "5", "cache-control": "no-store" },
    ...{ "x-content-type-options": "nosniff" },
    "content-security-policy": expect.stringMatching(/^default-src 'none';.* sandbox$/),
  });
  await answer.body?.cancel();
  for (const type of ["text/html", "image/svg+xml", "application/xml", "text/javascript", "multipart/related", "x"])
    expect((await request(tenant, "PUT", "page", "<script>", { "content-type": type })).status, type).toBe(400);
  expect((await list(tenant)).documents).toHaveLength(1);
  const head = await request(tenant, "HEAD", `x/${name}`);
  expect([head.status, await head.text()]).toEqual([200, ""]);
});

test("no path leads out of the tenant's documents, and a refused one says why", async () => {
  const [thief, victim] = [await anAdmin({ id: "documents-thief" }), await anAdmin({ id: "documents-thief-not" })];
  await request(victim, "PUT", "secret.md", "the victim's");
  const target = `${victim.id}/files/secret.md`;
  const refused = [
    ...[`../${target}`, `../../${target}`, `x/../../../${target}`, `/tenants/${target}`, `./${target}`, "..", ".", ""],
    ...["a//b", "a/", "a\\b", `..%2f${target}`, "a\u0000b", "a\u202eb", " a", "a/ b", `${"ö".repeat(256)}.md`],
  ];
  for (const path of refused)
    for (const [method, body] of [["GET"], ["PUT", "x"], ["DELETE"]] as const) {
      const answer = await request(thief, method, path, body);
      const { code, detail = "" } = (await answer.json()) as { code: string; detail?: string };
      expect([code, detail.startsWith("path: ")], `${method} ${JSON.stringify(path)} ${detail}`).toEqual([
        "bad_request",
        true,
      ]);
    }
  // A name that is accepted is a name in the thief's own folder.
  for (const path of [target, `tenants/${target}`, "-not/files/secret.md", "．．/secret.md"])
    expect((await request(thief, "GET", path)).status, path).toBe(404);
  expect(
    (await fetch(urlOf(victim.id, "secret.md"), { headers: { authorization: `Bearer ${thief.adminKey}` } })).status,
  ).toBe(404);
  expect(await (await request(victim, "GET", "secret.md")).text()).toBe("the victim's");
  expect((await list(thief)).documents).toEqual([]);
});

test("a document has 0 to 512 KiB, and a larger one changes nothing", async () => {
  const tenant = await anAdmin();
  const sizes = async (): Promise<number[]> => (await list(tenant)).documents.map(({ sizeBytes }) => sizeBytes);
  expect((await request(tenant, "PUT", "a", new Uint8Array(0))).status).toBe(200);
  expect(await sizes()).toEqual([0]);
  expect(await (await request(tenant, "GET", "a")).text()).toBe("");
  expect((await request(tenant, "PUT", "a", new Uint8Array(MOST_BYTES))).status).toBe(200);
  for (const bytes of [MOST_BYTES + 1, 3 * MOST_BYTES]) {
    const answer = await request(tenant, "PUT", "a", new Uint8Array(bytes));
    expect(await answer.json()).toMatchObject({
      ...{ status: 413, code: "body_too_large", detail: "Send at most 512 KiB. Nothing has changed." },
    });
  }
  expect(await sizes()).toEqual([MOST_BYTES]);
});

test("with If-None-Match: * an existing document stays, also when two are sent at once", async () => {
  const tenant = await anAdmin();
  const onlyNew = { "if-none-match": "*" };
  const sent = await Promise.all(["one", "two"].map((text) => request(tenant, "PUT", "a.txt", text, onlyNew)));
  expect(new Set(sent.map(({ status }) => status))).toEqual(new Set([200, 412]));
  const stored = await (await request(tenant, "GET", "a.txt")).text();
  const refused = await request(tenant, "PUT", "a.txt", "three", onlyNew);
  expect(await refused.json()).toMatchObject({ code: "precondition_failed" });
  expect(await (await request(tenant, "GET", "a.txt")).text()).toBe(stored);
  expect((await request(tenant, "PUT", "a.txt", "three", { "if-none-match": `"an etag"` })).status).toBe(400);
  expect((await request(tenant, "PUT", "a.txt", "three")).status).toBe(200);
});

test("while calls are refused, documents can be read and not changed, and the refusal is the one of a call", async () => {
  const tenant = await anAdmin({ plan: "starter", limits: { callsPerMinute: null, unitsPerHour: 2 } });
  await request(tenant, "PUT", "a.txt", "first");
  const changes = async (): Promise<unknown[]> =>
    Promise.all(
      [request(tenant, "PUT", "a.txt", "second"), request(tenant, "DELETE", "a.txt")].map(async (answer) =>
        codeOf(await answer),
      ),
    );
  const reads = async (): Promise<void> => {
    expect(await (await request(tenant, "GET", "a.txt")).text()).toBe("first");
    expect((await list(tenant)).documents).toHaveLength(1);
  };
  for (let call = 0; call < 2; call += 1) await callTool(tenant.apiKey, "search_products", { query: "" });
  expect((await callTool(tenant.apiKey, "search_products", { query: "" })).refusal?.code).toBe("window_exhausted");
  expect(await changes()).toEqual(["window_exhausted", "window_exhausted"]);
  await reads();
  await operator("PATCH", `/tenants/${tenant.id}`, { limits: { unitsPerHour: 100, unitsPerMonth: 2 } });
  expect(await changes()).toEqual(["period_exhausted", "period_exhausted"]);
  await operator("PATCH", `/tenants/${tenant.id}`, { limits: { unitsPerMonth: 100 } });
  for (const [act, code] of [
    ["suspend", "tenant_suspended"],
    ["remove", "tenant_leaving"],
  ] as const) {
    expect((await operator("POST", `/tenants/${tenant.id}/${act}`)).status).toBeLessThan(300);
    expect(await changes()).toEqual([code, code]);
    await reads();
  }
});

test("a change and a download are in the audit log with the document's path", async () => {
  const tenant = await anAdmin();
  await request(tenant, "PUT", "notes/a.md", "x");
  await (await request(tenant, "GET", "notes/a.md")).text();
  await request(tenant, "DELETE", "notes/a.md");
  await request(tenant, "DELETE", "notes/a.md");
  const events = async () =>
    controlRows<{ action: string; target: string; outcome: string }>(
      `SELECT action, target, outcome FROM audit_events WHERE tenant_id = $1 AND action LIKE '%Document' ORDER BY position`,
      [tenant.id],
    );
  await until(async () => (await events()).length === 4, "the acts are recorded");
  expect((await events()).map((event) => Object.values(event))).toEqual([
    ["saveDocument", "notes/a.md", "succeeded"],
    ["downloadDocument", "notes/a.md", "succeeded"],
    ["deleteDocument", "notes/a.md", "succeeded"],
    // What does not exist is not named: the text could be anything.
    ["deleteDocument", tenant.id, "refused"],
  ]);
});

test("an account stores 30 documents a minute without a charge", async () => {
  const tenant = await anAdmin();
  const stored = await Promise.all(Array.from({ length: 31 }, (_, n) => request(tenant, "PUT", `${n}.txt`, "x")));
  expect(stored.map(({ status }) => status).filter((status) => status !== 200)).toEqual([429]);
  const refused = stored.find(({ status }) => status === 429);
  expect(refused?.headers.get("retry-after")).toMatch(/^\d+$/);
  expect(await refused?.json()).toMatchObject({ detail: expect.stringContaining("may store 30 documents a minute") });
  expect((await list(tenant)).documents).toHaveLength(30);
});

// ---- the page

const HOSTILE = `<img src=x onerror=alert(1)>"'&amp;.svg`;

interface Sent {
  name?: string;
  bytes?: string | Uint8Array<ArrayBuffer>;
  type?: string;
  as?: string;
  in?: string;
  replace?: boolean;
}

/** Sends the page's upload form as a browser does. Returns the answer to the form, or the page that it leads to. */
async function upload(browser: Browser, id: string, sent: Sent): Promise<Page> {
  const form = new FormData();
  form.set("in", sent.in ?? "");
  form.set("file", new File(sent.bytes === undefined ? [] : [sent.bytes], sent.name ?? "", { type: sent.type ?? "" }));
  form.set("name", sent.as ?? "");
  if (sent.replace === true) form.set("replace", "yes");
  const multipart = new Response(form);
  return browser.page(`${system.publicUrl}/app/${id}/files`, {
    method: "POST",
    headers: { "content-type": multipart.headers.get("content-type") ?? "", origin: system.publicUrl },
    body: await multipart.arrayBuffer(),
  });
}
const open = (browser: Browser, id: string, query = "") => browser.page(`${system.publicUrl}/app/${id}/files${query}`);
const namesOn = (html: string, caption = "Documents"): string[] =>
  tableOf(html, caption).map((row) => row["Name"] ?? "");

test("a person uploads, replaces, downloads and deletes a document without script, folder by folder", async () => {
  const { id, browser } = await anOwnedTenant();
  expect(textOf((await open(browser, id)).html)).toContain("No documents yet");
  const stored = await upload(browser, id, {
    name: "today.md",
    bytes: "first",
    type: "text/markdown",
    as: "notes/2026/today.md",
  });
  expect(textOf(stored.html)).toContain("notes/2026/today.md is stored.");
  expect(namesOn(stored.html, "Documents in notes/2026/")).toEqual(["today.md"]);
  expect(namesOn((await open(browser, id)).html)).toEqual(["notes/"]);
  const folder = await open(browser, id, "?in=notes/2026/");
  expect(tableOf(folder.html, "Documents in notes/2026/")[0]).toMatchObject({
    ...{ Name: "today.md", Type: "text/markdown", Size: "5 B" },
  });
  for (const href of [`/app/${id}/files"`, `/app/${id}/files?in=notes%2F"`]) expect(folder.html).toContain(href);
  // The same name is refused, and says what to do. Nothing is lost.
  const again = await upload(browser, id, { name: "today.md", bytes: "second", in: "notes/2026/" });
  expect(again.status).toBe(412);
  expect(textOf(again.html)).toContain(
    "There is a document notes/2026/today.md already. It has not changed. Choose the file again",
  );
  const replaced = await upload(browser, id, { name: "today.md", bytes: "second!", in: "notes/2026/", replace: true });
  expect(tableOf(replaced.html, "Documents in notes/2026/")[0]).toMatchObject({ Size: "7 B" });
  const href = /href="(?<href>[^"]*files\/content[^"]*)"/.exec(replaced.html)?.groups?.["href"] ?? "";
  const file = await browser.page(`${system.publicUrl}${plain(href)}`);
  expect([file.html, file.headers.get("content-disposition")]).toEqual([
    "second!",
    expect.stringMatching(/^attachment;/),
  ]);
  const gone = await browser.submit(replaced, { path: "notes/2026/today.md" });
  expect("html" in gone && textOf(gone.html)).toContain("notes/2026/today.md is deleted.");
  expect(textOf((await open(browser, id, "?in=notes/")).html)).toContain("No documents in this folder");
});

test("names of every kind are text on the page, and a name that is refused says why at its field", async () => {
  const { id, browser } = await anOwnedTenant();
  const family = "\u{1F468}\u200D\u{1F469}\u200D\u{1F467}";
  const names = [
    HOSTILE,
    "r\u0065\u0301sum\u0065\u0301.txt",
    `${family} ファイル.txt`,
    "a&b=c+d#e?.txt",
    "x".repeat(512),
  ];
  for (const name of names) {
    const page = await upload(browser, id, { name: "a.svg", bytes: "<svg/>", type: "image/svg+xml", as: name });
    expect(page.status, textOf(page.html)).toBe(200);
  }
  const { html } = await open(browser, id);
  expect(namesOn(html).toSorted()).toEqual(names.map((name) => name.normalize("NFC")).toSorted());
  expect(html).not.toContain("<img src=x");
  // A browser sends the type of a file by its name: what it would run is stored as text.
  expect(new Set(tableOf(html, "Documents").map((row) => row["Type"]))).toEqual(new Set(["text/plain"]));
  const links = [...html.matchAll(/href="(?<href>[^"]*files\/content[^"]*)"/g)].map(
    ({ groups }) => groups?.["href"] ?? "",
  );
  expect(links).toHaveLength(names.length);
  for (const href of links) expect((await browser.page(`${system.publicUrl}${plain(href)}`)).html).toBe("<svg/>");
  for (const [as, why] of [
    ["../a", "The path contains `.` or `..`."],
    ["/a", "The path starts with `/`."],
    ["a//b", "The path has an empty part"],
    ["ö".repeat(300), "The path is longer than 512 bytes."],
    ["a\u202Eb", "The path contains an invisible character"],
  ] as const) {
    const page = await upload(browser, id, { name: "a.txt", bytes: "x", as });
    expect(page.status, as).toBe(400);
    expect(textOf(/<small id="name-error".*?<\/small>/s.exec(page.html)?.[0] ?? ""), as).toContain(why);
    expect(formsOf(page.html).flatMap(({ choices }) => choices)).toContainEqual(["name", as]);
  }
  expect((await open(browser, id, "?in=..")).status).toBe(400);
  const shown = await open(browser, id);
  const page = await browser.submit(shown, { path: HOSTILE });
  expect("html" in page && namesOn(page.html)).toHaveLength(names.length - 1);
});

test("a form without a file, with an empty one, and with one that is too large gets an answer in words", async () => {
  const { id, browser } = await anOwnedTenant();
  const none = await upload(browser, id, { as: "kept.txt" });
  expect([none.status, textOf(none.html)]).toEqual([400, expect.stringContaining("Choose a file.")]);
  expect(formsOf(none.html).flatMap(({ choices }) => choices)).toContainEqual(["name", "kept.txt"]);
  const empty = await upload(browser, id, { name: "empty.txt", bytes: "", type: "text/plain" });
  expect(tableOf(empty.html, "Documents")[0]).toMatchObject({ Name: "empty.txt", Size: "0 B" });
  const large = await upload(browser, id, { name: "empty.txt", bytes: new Uint8Array(MOST_BYTES + 1), replace: true });
  expect([large.status, textOf(large.html)]).toEqual([
    413,
    expect.stringContaining("The document has 524289 bytes. The limit is 524288 (512 KiB). Nothing has changed."),
  ]);
  const huge = await upload(browser, id, { name: "empty.txt", bytes: new Uint8Array(9 * KIB * KIB), replace: true });
  expect([huge.status, textOf(huge.html)]).toEqual([
    413,
    expect.stringContaining("Send at most 8192 KiB. Nothing has changed."),
  ]);
  expect(tableOf((await open(browser, id)).html, "Documents")[0]).toMatchObject({ Name: "empty.txt", Size: "0 B" });
  const full = await upload(browser, id, { name: "full.bin", bytes: new Uint8Array(MOST_BYTES) });
  expect(full.status).toBe(200);
  const wrong = await browser.page(`${system.publicUrl}/app/${id}/files`, {
    ...{
      method: "POST",
      body: "file=x",
      headers: { "content-type": "application/x-www-form-urlencoded", origin: system.publicUrl },
    },
  });
  expect(wrong.status).toBe(400);
  const cut = await browser.page(`${system.publicUrl}/app/${id}/files`, {
    ...{
      method: "POST",
      body: "--b\r\nContent-Disposition: form-data; name=",
      headers: { "content-type": "multipart/form-data; boundary=b", origin: system.publicUrl },
    },
  });
  expect(cut.status, textOf(cut.html)).toBe(400);
});

test("a folder of many documents comes in pages, with each folder and document once", async () => {
  const { id, browser } = await anOwnedTenant({ plan: "pro" });
  const made = await operator("POST", `/tenants/${id}/keys`, { name: "writer" });
  const { apiKey } = (await made.json()) as { apiKey: string };
  const names = Array.from({ length: 110 }, (_, n) => (n % 11 === 0 ? `f${n}/a.md` : `f${n}.md`));
  for (let at = 0; at < names.length; at += 10)
    await Promise.all(names.slice(at, at + 10).map((path) => callTool(apiKey, "write_document", { path, text: "x" })));
  await callTool(apiKey, "write_document", { path: "f0/b.md", text: "x" });
  const seen: string[] = [];
  let next: string | undefined = "";
  while (next !== undefined) {
    const { html } = await open(browser, id, next);
    seen.push(...namesOn(html));
    next = /href="[^"]*\/files(?<query>\?[^"]*after=[^"]*)"/.exec(html)?.groups?.["query"];
    next = next && plain(next);
  }
  const shown = names.map((name) => name.replace("/a.md", "/"));
  expect(seen.toSorted()).toEqual(shown.toSorted());
});

test("while the account is suspended, its people see and download documents, and why they cannot change them", async () => {
  const { id, browser } = await anOwnedTenant();
  await upload(browser, id, { name: "a.txt", bytes: "kept" });
  await operator("POST", `/tenants/${id}/suspend`);
  const { html } = await open(browser, id);
  expect(namesOn(html)).toEqual(["a.txt"]);
  expect(textOf(html)).toContain("The account is suspended.");
  expect(formsOf(html).filter(({ action }) => action.includes("/files"))).toEqual([]);
  const refused = await upload(browser, id, { name: "a.txt", bytes: "lost", replace: true });
  expect([refused.status, textOf(refused.html)]).toEqual([403, expect.stringContaining("The account is suspended.")]);
  expect((await browser.page(`${system.publicUrl}/app/${id}/files/content?path=a.txt`)).html).toBe("kept");
});
