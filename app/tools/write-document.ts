// Writes a whole document. Writing the same text again changes nothing, so Tollgate may run a lost call again.
import * as z from "zod";
import { MAX_DOCUMENT_BYTES, MAX_PATH_BYTES, normalisePath, utf8Bytes } from "#tollgate/document-path";
import { defineTool, isFailure } from "#tollgate/tool";

/** Content types of text that a browser does not execute. */
const contentTypes = ["text/plain", "text/markdown", "text/csv", "application/json"] as const;

export const writeDocument = defineTool({
  name: "write_document",
  title: "Write document",
  description:
    `Writes a document of your account, at most ${MAX_DOCUMENT_BYTES / 1024} KiB of UTF-8 text. ` +
    "It replaces the document at the path. To add to a document, call `read_document` first.",
  units: 1,
  scopes: ["tools:write"],
  input: z.strictObject({
    path: z.string().min(1).max(MAX_PATH_BYTES).describe("For example `notes/today.md`. Folders need not exist"),
    text: z.string().max(MAX_DOCUMENT_BYTES).describe("The whole document"),
    contentType: z.enum(contentTypes).default("text/plain"),
  }),
  output: z.strictObject({
    path: z.string().describe("The path as it is stored"),
    sizeBytes: z.int(),
    contentType: z.string(),
    updatedAt: z.iso.datetime(),
  }),
  annotations: { readOnly: false, idempotent: true, destructive: true },
  failed: isFailure,

  async run({ path, text, contentType }, context) {
    const named = normalisePath(path);
    if (!named.ok) {
      context.log("path_refused", { reason: named.reason });
      return { isError: true, text: named.reason };
    }
    const sizeBytes = utf8Bytes(text);
    if (sizeBytes > MAX_DOCUMENT_BYTES) {
      return {
        isError: true,
        text: `The text has ${sizeBytes} bytes. The limit is ${MAX_DOCUMENT_BYTES}. Split it into several documents.`,
      };
    }
    return { data: await context.files.write(named.path, text, contentType) };
  },
});
