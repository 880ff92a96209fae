// A tenant cannot read, list, replace or delete another tenant's documents by any name.
import { expect, test } from "vitest";
import { aTenant, callTool, storedCalls, system, type TestTenant } from "../support/flow.ts";

const write = ({ apiKey }: TestTenant, path: string, text: string) =>
  callTool(apiKey, "write_document", { path, text });
const read = ({ apiKey }: TestTenant, path: string) => callTool(apiKey, "read_document", { path });
const remove = ({ apiKey }: TestTenant, path: string) => callTool(apiKey, "delete_document", { path });
const paths = async ({ apiKey }: TestTenant, args: Record<string, unknown> = {}): Promise<string[]> => {
  const { data } = await callTool(apiKey, "list_documents", args);
  return ((data?.["documents"] ?? []) as { path: string }[]).map(({ path }) => path);
};

test("a tenant writes, replaces, reads, lists and deletes a document", async () => {
  const tenant = await aTenant();
  expect((await write(tenant, "notes/today.md", "first")).data).toMatchObject({ path: "notes/today.md", sizeBytes: 5 });
  await write(tenant, "notes/today.md", "zweiter Entwurf: ä");
  await write(tenant, "plan.md", "plan");
  expect((await read(tenant, "notes/today.md")).data).toMatchObject({
    text: "zweiter Entwurf: ä",
    sizeBytes: 19,
  });
  expect(await paths(tenant)).toEqual(["notes/today.md", "plan.md"]);
  expect(await paths(tenant, { prefix: "notes/" })).toEqual(["notes/today.md"]);
  expect((await remove(tenant, "notes/today.md")).data).toEqual({ path: "notes/today.md", existed: true });
  expect((await remove(tenant, "notes/today.md")).data).toEqual({ path: "notes/today.md", existed: false });
  expect((await read(tenant, "notes/today.md")).isError).toBe(true);
  expect(await paths(tenant)).toEqual(["plan.md"]);
});

test("a long list comes in pages without gaps or repetitions", async () => {
  const tenant = await aTenant({ limits: { callsPerMinute: null } });
  const names = ["a.md", "a/b.md", "b.md", "c.md", "d.md"];
  for (const name of names) await write(tenant, name, name);
  const seen: string[] = [];
  let cursor: unknown;
  do {
    const { data } = await callTool(tenant.apiKey, "list_documents", { limit: 2, ...(cursor ? { cursor } : {}) });
    seen.push(...((data?.["documents"] ?? []) as { path: string }[]).map(({ path }) => path));
    cursor = data?.["nextCursor"];
  } while (cursor !== null);
  expect(seen.toSorted()).toEqual(names.toSorted());
});

test("the same path names a separate document for each tenant", async () => {
  const [acme, globex] = await Promise.all([aTenant(), aTenant()]);
  await write(acme, "same.md", "of acme");
  await write(globex, "same.md", "of globex");
  await write(globex, "only-globex.md", "of globex");
  expect((await read(acme, "same.md")).data).toMatchObject({ text: "of acme" });
  expect((await read(globex, "same.md")).data).toMatchObject({ text: "of globex" });
  expect(await paths(acme)).toEqual(["same.md"]);
  expect((await read(acme, "only-globex.md")).isError).toBe(true);
  expect((await remove(acme, "only-globex.md")).data).toMatchObject({ existed: false });
  expect((await remove(acme, "same.md")).data).toMatchObject({ existed: true });
  expect(await paths(globex)).toEqual(["only-globex.md", "same.md"]);
});

test("no crafted path reaches another tenant's document", async () => {
  const unlimited = { unitsPerHour: null, unitsPerMonth: null, callsPerMinute: null, callsInFlight: 20 };
  const thief = await aTenant({ id: "files-thief", limits: unlimited });
  // This id begins with the thief's id, so that a prefix without a separator would match it.
  const victim = await aTenant({ id: "files-thief-not" });
  const secret = "the victim's secret";
  await write(victim, "secret.md", secret);
  await write(thief, "own.md", "own");
  const target = `${victim.id}/secret.md`;
  const tricks = [
    "secret.md",
    `../${target}`,
    `..//${target}`,
    `../../tenants/${target}`,
    `x/../../${target}`,
    `./../${target}`,
    `own.md/../../${target}`,
    `tenants/${target}`,
    `/tenants/${target}`,
    `/${target}`,
    target,
    `..\\${victim.id}\\secret.md`,
    `%2e%2e/${target}`,
    `%2e%2e%2f${victim.id}%2fsecret.md`,
    `..%2f${target}`,
    `%252e%252e/${target}`,
    `．．/${target}`,
    `‥/${target}`,
    `..\u2215${target}`,
    `..\u0000/${target}`,
    `\u0000../${target}`,
    `.. /${target}`,
    `..\t/${target}`,
    `..\n/${target}`,
    `-not/secret.md`,
    `https://files/tenants/${target}`,
    `file:///tenants/${target}`,
  ];
  for (const path of tricks) {
    const answer = await read(thief, path);
    expect(answer.isError, `read ${path}`).toBe(true);
    expect(JSON.stringify(answer), `read ${path}`).not.toContain(secret);
    // A path that is accepted as a name must be a name in the thief's own folder.
    await remove(thief, path);
    await write(thief, path, "overwritten");
  }
  for (const prefix of [...tricks, "..", "../", `../${victim.id}`, "-not", "-", "tenants", "/"]) {
    const answer = await callTool(thief.apiKey, "list_documents", { prefix });
    expect(JSON.stringify(answer.data ?? {}), `list ${prefix}`).not.toContain('"sizeBytes":19');
  }
  for (const cursor of tricks) {
    const answer = await callTool(thief.apiKey, "list_documents", { cursor });
    expect(JSON.stringify(answer.data ?? {}), `list from ${cursor}`).not.toContain('"sizeBytes":19');
  }
  expect((await read(victim, "secret.md")).data).toMatchObject({ text: secret });
  expect(await paths(victim)).toEqual(["secret.md"]);
});

test("a call with a refused path gets the reason and is not charged", async () => {
  const tenant = await aTenant();
  for (const path of ["../a.md", "/a.md", "a//b.md", "a/", "a\\b.md", "%2e%2e/a.md", "ö".repeat(300)]) {
    const answer = await write(tenant, path, "x");
    expect(answer.isError, path).toBe(true);
    expect(answer.text, path).toMatch(/path/i);
  }
  expect(await storedCalls(tenant.id)).toEqual([]);
});

test("a document over the size limit is refused without a charge, and the existing document stays", async () => {
  const tenant = await aTenant();
  await write(tenant, "a.md", "small");
  // Half a MiB counts bytes, not characters.
  for (const text of ["x".repeat(512 * 1024 + 1), "ä".repeat(256 * 1024 + 1)]) {
    expect((await write(tenant, "a.md", text)).isError).toBe(true);
  }
  expect((await read(tenant, "a.md")).data).toMatchObject({ text: "small" });
  expect(await storedCalls(tenant.id)).toHaveLength(2);
});

test("a document is read back as it was written, or the call fails without a charge", async () => {
  const tenant = await aTenant();
  const marked = "\uFEFFid,name\r\n1,x\r\n";
  await write(tenant, "b.csv", marked);
  expect((await read(tenant, "b.csv")).data).toMatchObject({ text: marked });
  expect((await write(tenant, "half.txt", "a\ud83db")).isError).toBe(true);
  const body = { jsonrpc: "2.0", id: 1, method: "tools/call" };
  const args = { name: "write_document", arguments: { path: "latin1.txt", text: "caf\u00e9" } };
  const refused = await fetch(`${system.publicUrl}/mcp`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      authorization: `Bearer ${tenant.apiKey}`,
    },
    body: Buffer.from(JSON.stringify({ ...body, params: args }), "latin1"),
  });
  expect(refused.status).toBe(400);
  expect(await paths(tenant)).toEqual(["b.csv"]);
  // Deleting what is not there is free, too.
  expect((await remove(tenant, "latin1.txt")).receipt).toBe(undefined);
  expect(await storedCalls(tenant.id)).toHaveLength(3);
});
