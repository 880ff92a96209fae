// The files adapter on an in-memory bucket with R2's contract for listings.
import { expect, test } from "vitest";
import { createTenantFiles, writeStorageMarker } from "../../src/adapters/files.ts";
import { errorCode } from "../../src/core/errors.ts";
import { MAX_DOCUMENT_BYTES, refusedContentType } from "../../src/core/text/document-path.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";

interface Stored {
  body: string | Uint8Array;
  httpMetadata: R2HTTPMetadata;
}

function object(key: string, { body, httpMetadata }: Stored) {
  const blob = new Blob([new Uint8Array(Buffer.from(body))]);
  return {
    key,
    size: blob.size,
    uploaded: new Date(0),
    httpMetadata,
    body: blob.stream(),
    arrayBuffer: () => blob.arrayBuffer(),
  };
}

/** `keys` lists the stored objects; `down` makes every request fail. */
function aBucket() {
  const keys = new Map<string, Stored>();
  const state = { down: false };
  const found = (key: string) => {
    if (state.down) throw new Error("internal error of the store");
    const stored = keys.get(key);
    return stored === undefined ? null : object(key, stored);
  };
  const bucket = {
    head: async (key: string) => found(key),
    get: async (key: string) => found(key),
    put: async (key: string, body: string, { httpMetadata }: { httpMetadata: R2HTTPMetadata }) => {
      found(key);
      keys.set(key, { body, httpMetadata });
      return object(key, { body, httpMetadata });
    },
    delete: async (key: string) => void keys.delete(key),
    list: async ({ prefix = "", startAfter = "", limit = 1_000 }: R2ListOptions) => {
      found("");
      const matching = [...keys]
        .filter(([key]) => key.startsWith(prefix) && key > startAfter)
        .toSorted(([one], [other]) => (one < other ? -1 : 1));
      const objects = matching.slice(0, limit).map(([key, stored]) => object(key, stored));
      return { objects, truncated: matching.length > limit, cursor: "unused" };
    },
  };
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the part of R2 that the adapter uses
  return { bucket: bucket as unknown as R2Bucket, keys, state };
}

const acme = TenantId.parse("acme");

test("a document is stored under its tenant's prefix, and can be read, replaced and deleted", async () => {
  const { bucket, keys } = aBucket();
  const files = createTenantFiles({ bucket, tenantId: acme });
  expect(await files.read("notes/a.md")).toBeUndefined();
  const info = await files.write("notes/a.md", "é", "text/markdown");
  expect(info).toEqual({
    path: "notes/a.md",
    sizeBytes: 2,
    contentType: "text/markdown",
    updatedAt: "1970-01-01T00:00:00.000Z",
  });
  expect([...keys.keys()]).toEqual(["tenants/acme/files/notes/a.md"]);
  expect(await files.read("notes/a.md")).toEqual({ info, text: "é" });
  await files.write("notes/a.md", "new");
  expect(await files.read("notes/a.md")).toMatchObject({ text: "new", info: { contentType: "text/plain" } });
  expect(await files.delete("notes/a.md")).toBe(true);
  expect(await files.delete("notes/a.md")).toBe(false);
  expect(keys.size).toBe(0);
});

test("a composed and a decomposed name are one document", async () => {
  const files = createTenantFiles({ bucket: aBucket().bucket, tenantId: acme });
  await files.write("caf\u00e9.md", "1");
  expect(await files.read("cafe\u0301.md")).toMatchObject({ text: "1" });
});

test("another tenant's documents are neither listed nor readable, also when one id is a prefix of the other", async () => {
  const { bucket, keys } = aBucket();
  const mine = createTenantFiles({ bucket, tenantId: acme });
  await createTenantFiles({ bucket, tenantId: TenantId.parse("acme2") }).write("secret.md", "x");
  await writeStorageMarker({ bucket, tenantId: acme, nowIso: "2026-01-01T00:00:00.000Z" });
  expect(keys.has("tenants/acme/tollgate.json")).toBe(true);
  expect(await mine.list()).toEqual({ files: [], cursor: undefined });
  const before = [...keys.keys()];
  for (const path of [
    "../../acme2/files/secret.md",
    "/tenants/acme2/files/secret.md",
    "..",
    "%2e%2e/tollgate.json",
    "",
  ]) {
    for (const attempt of [
      () => mine.read(path),
      () => mine.write(path, "mine"),
      () => mine.delete(path),
      () => mine.list({ cursor: path }),
    ]) {
      await expect(attempt().catch(errorCode)).resolves.toBe("bad_request");
    }
  }
  await expect(mine.list({ prefix: "../" }).catch(errorCode)).resolves.toBe("bad_request");
  expect([...keys.keys()]).toEqual(before);
});

test("pages of a listing have no gaps and stay within the prefix", async () => {
  const files = createTenantFiles({ bucket: aBucket().bucket, tenantId: acme });
  for (const path of ["b/2", "a/1", "b/1", "b/3", "c"]) await files.write(path, path);
  const first = await files.list({ prefix: "b/", limit: 2 });
  expect(first).toMatchObject({ files: [{ path: "b/1" }, { path: "b/2" }], cursor: "b/2" });
  const second = await files.list({ prefix: "b/", limit: 2, cursor: "b/2" });
  expect(second).toMatchObject({ files: [{ path: "b/3" }], cursor: undefined });
});

test("a document is read as it was written, with a byte order mark, and never with replaced characters", async () => {
  const { bucket, keys } = aBucket();
  const files = createTenantFiles({ bucket, tenantId: acme });
  for (const text of ["\uFEFFid,name\r\n1,x\r\n", "a\0b", "\u{1F600}"]) {
    await files.write("a.csv", text, "text/csv");
    expect(await files.read("a.csv")).toMatchObject({ text });
  }
  await expect(files.write("a.csv", "a\ud83db").catch(errorCode)).resolves.toBe("text_invalid");
  expect(await files.read("a.csv")).toMatchObject({ text: "\u{1F600}" });
  keys.set("tenants/acme/files/a.bin", { body: Buffer.from("caf\u00e9", "latin1"), httpMetadata: {} });
  expect(await files.read("a.bin")).toMatchObject({ info: { sizeBytes: 4 }, text: null });
});

test.each([
  "text/plain\r\nX-Other: 1",
  "text/plain\n",
  "text",
  "",
  "text/html",
  "TEXT/HTML; charset=utf-8",
  "application/xhtml+xml",
  "image/svg+xml",
  "text/xml",
  "application/atom+xml",
  "text/javascript",
  "application/ecmascript",
  "multipart/x-mixed-replace",
  "message/rfc822",
  `text/${"x".repeat(200)}`,
])("no document has the content type %j", async (contentType) => {
  const files = createTenantFiles({ bucket: aBucket().bucket, tenantId: acme });
  expect(refusedContentType(contentType)).toMatch(/\.$/);
  await expect(files.write("a", "", contentType).catch(errorCode)).resolves.toBe("bad_request");
});

test.each([
  "text/plain",
  "text/plain; charset=utf-8",
  'text/plain; name="a b"',
  "text/markdown",
  "application/json",
  "application/pdf",
  "image/png",
  "application/octet-stream",
  "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
])("a document may have the content type %j", (contentType) => expect(refusedContentType(contentType)).toBe(undefined));

test("a document over the size limit is neither written nor read", async () => {
  const { bucket, keys } = aBucket();
  const files = createTenantFiles({ bucket, tenantId: acme });
  await files.write("largest", "a".repeat(MAX_DOCUMENT_BYTES));
  await expect(files.write("larger", "a".repeat(MAX_DOCUMENT_BYTES + 1)).catch(errorCode)).resolves.toBe(
    "body_too_large",
  );
  keys.set("tenants/acme/files/larger", { body: "a".repeat(MAX_DOCUMENT_BYTES + 1), httpMetadata: {} });
  await expect(files.read("larger").catch(errorCode)).resolves.toBe("result_too_large");
});

test("an outage of R2 is `tenant_unavailable`, without R2's text", async () => {
  const { bucket, state } = aBucket();
  const files = createTenantFiles({ bucket, tenantId: acme });
  state.down = true;
  for (const attempt of [
    () => files.list(),
    () => files.read("a"),
    () => files.write("a", ""),
    () => files.delete("a"),
  ]) {
    await expect(attempt()).rejects.toMatchObject({
      code: "tenant_unavailable",
      message: expect.not.stringContaining("internal error of the store"),
    });
  }
});

test("a value that is not a tenant id opens no files", () => {
  for (const id of ["", "a/b", "..", "acme/files/../../other"]) {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the mistake under test
    const tenantId = id as TenantId;
    expect(() => createTenantFiles({ bucket: aBucket().bucket, tenantId })).toThrow();
  }
});
