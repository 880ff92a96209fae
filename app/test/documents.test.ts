// Tests each document tool on its own, with a fake context.
import { expect, test } from "vitest";
import { MAX_DOCUMENT_BYTES } from "#tollgate/document-path";
import { callTool, toolContext } from "#tollgate/testing";
import { deleteDocument } from "../tools/delete-document.ts";
import { listDocuments } from "../tools/list-documents.ts";
import { readDocument } from "../tools/read-document.ts";
import { writeDocument } from "../tools/write-document.ts";

test("documents are written, listed in pages, read and deleted", async () => {
  const { context, store } = toolContext();
  for (const path of ["a.md", "notes/b.md", "notes/c.md"]) await callTool(writeDocument, { path, text: path }, context);
  const first = await callTool(listDocuments, { prefix: "notes/", limit: 1 }, context);
  expect(first.data).toMatchObject({ documents: [{ path: "notes/b.md" }], nextCursor: "notes/b.md" });
  const rest = await callTool(listDocuments, { prefix: "notes/", cursor: first.data?.nextCursor }, context);
  expect(rest.data).toMatchObject({ documents: [{ path: "notes/c.md", sizeBytes: 10 }], nextCursor: null });
  expect(await callTool(readDocument, { path: "a.md" }, context)).toMatchObject({
    text: "a.md",
    data: { path: "a.md", text: "a.md", nextOffset: null },
  });
  expect(await callTool(deleteDocument, { path: "a.md" }, context)).toMatchObject({ data: { existed: true } });
  expect(await callTool(deleteDocument, { path: "a.md" }, context)).toMatchObject({
    failed: true, // so it is free
    data: { existed: false },
  });
  expect([...store.keys()]).toEqual(["notes/b.md", "notes/c.md"]);
});

test("a document that is not there is a failure that says what to do", async () => {
  const answer = await callTool(readDocument, { path: "none.md" }, toolContext().context);
  expect(answer).toMatchObject({ failed: true, text: expect.stringContaining("list_documents") });
});

test("a document that is read, changed and written back keeps its byte order mark", async () => {
  const { context, store } = toolContext({ documents: { "a.csv": "\uFEFFid\n1\n" } });
  const { data } = await callTool(readDocument, { path: "a.csv" }, context);
  await callTool(writeDocument, { path: "a.csv", text: `${String(data?.text)}2\n` }, context);
  expect(store.get("a.csv")).toBe("\uFEFFid\n1\n2\n");
});

test("a document that is not text is a failure that says what it is", async () => {
  const { context } = toolContext({ documents: { "a.bin": null } });
  const answer = await callTool(readDocument, { path: "a.bin" }, context);
  expect(answer).toMatchObject({ failed: true, text: expect.stringContaining("not UTF-8 text") });
});

test("a piece that starts inside of a character contains the whole character", async () => {
  const { context } = toolContext({ documents: { a: "x😀y" } });
  expect((await callTool(readDocument, { path: "a", offset: 2 }, context)).data).toMatchObject({ text: "😀y" });
  expect((await callTool(readDocument, { path: "a", offset: 9 }, context)).data).toMatchObject({
    text: "",
    nextOffset: null,
  });
});

test("the pieces of a long document make up the document, and no piece breaks a character or the bound", async () => {
  const text = `x${"😀".repeat(100_000)}${"\u0001".repeat(70_000)}`;
  const { context } = toolContext({ documents: { long: text } });
  let read = "";
  let offset: unknown = 0;
  while (offset !== null) {
    const { data } = await callTool(readDocument, { path: "long", offset }, context);
    const piece = String(data?.text);
    expect(piece.isWellFormed()).toBe(true);
    expect(JSON.stringify([piece, data]).length).toBeLessThan(1_048_576);
    read += piece;
    offset = data?.nextOffset;
  }
  expect(read).toBe(text);
});

test.each(["../x", "/x", "a/../../b", "%2e%2e/x", "a\\b"])(
  "no document tool goes to %j, and the attempt is logged",
  async (path) => {
    const { context, seen, store } = toolContext({ documents: { x: "x" } });
    const answers = [
      await callTool(readDocument, { path }, context),
      await callTool(writeDocument, { path, text: "" }, context),
      await callTool(deleteDocument, { path }, context),
      await callTool(listDocuments, { prefix: path }, context),
      await callTool(listDocuments, { cursor: path }, context),
    ];
    for (const answer of answers) expect(answer.failed).toBe(true);
    expect(seen.logged).toEqual(Array.from(answers, () => "path_refused"));
    expect([...store]).toEqual([["x", "x"]]);
  },
);

test("a cursor of another prefix is refused, because its page would not follow", async () => {
  const { context } = toolContext({ documents: { "notes/a": "x" } });
  expect((await callTool(listDocuments, { prefix: "notes/", cursor: "a" }, context)).failed).toBe(true);
  expect((await callTool(listDocuments, { prefix: "notes/", cursor: "notes/a" }, context)).failed).toBe(false);
});

test("a document is bounded in bytes, not in characters", async () => {
  const { context, store } = toolContext();
  const text = "é".repeat(MAX_DOCUMENT_BYTES / 2);
  expect(await callTool(writeDocument, { path: "fits", text }, context)).toMatchObject({ failed: false });
  expect(await callTool(writeDocument, { path: "over", text: `${text}a` }, context)).toMatchObject({ failed: true });
  expect([...store.keys()]).toEqual(["fits"]);
});

test("the document tools refuse arguments outside their bounds", () => {
  expect(listDocuments.input.safeParse({ limit: 101 }).success).toBe(false);
  expect(writeDocument.input.safeParse({ path: "a", text: "", contentType: "text/html" }).success).toBe(false);
});
