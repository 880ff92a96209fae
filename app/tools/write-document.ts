// Writes a whole document. The same text at the same path is the same document, so a call that was lost may run again.
import * as z from "zod";
import { MAX_DOCUMENT_BYTES, MAX_PATH_BYTES, normalisePath, utf8Bytes } from "#tollgate/document-path";
import { defineTool, isFailure } from "#tollgate/tool";

/** Kinds of text; none that a browser would run. */
const contentTypes = ["text/plain", "text/markdown", "text/csv", "application/json"] as const;

export const writeDocument = defineTool({
  name: "write_document",
  title: "Write document",
  description:
    `Writes a document of your account, at most ${MAX_DOCUMENT_BYTES / 1024} KiB of UTF-8 text. ` +
    "What was at the path before is replaced; to add to it, call `read_document` first.",
  units: 1,
  scopes: ["tools:write"],
  input: z.strictObject({
    path: z.string().min(1).max(MAX_PATH_BYTES).describe("For example `notes/today.md`; folders need not exist"),
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
        text: `The text has ${sizeBytes} bytes, a document at most ${MAX_DOCUMENT_BYTES}. Split it into several documents.`,
      };
    }
    return { data: await context.files.write(named.path, text, contentType) };
  },
});
