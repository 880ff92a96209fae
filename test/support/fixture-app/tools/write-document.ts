// Writes a whole document. It is idempotent: Tollgate may run a lost call again.
import * as z from "zod";
import { MAX_DOCUMENT_BYTES } from "#tollgate/document-path";
import { defineTool, isFailure } from "#tollgate/tool";
import { pathInput, storedPath } from "../paths.ts";

export const writeDocument = defineTool({
  name: "write_document",
  title: "Write document",
  description: "Writes a document and replaces the one before.",
  units: 1,
  scopes: ["tools:write"],
  input: z.strictObject({
    path: pathInput,
    text: z.string().max(MAX_DOCUMENT_BYTES).describe("The whole document"),
    contentType: z.enum(["text/plain", "text/markdown"]).default("text/plain"),
  }),
  output: z.strictObject({
    path: z.string(),
    sizeBytes: z.int(),
    contentType: z.string(),
    updatedAt: z.iso.datetime(),
  }),
  annotations: { readOnly: false, idempotent: true, destructive: true },
  failed: isFailure,

  async run({ path, text, contentType }, { files }) {
    const stored = storedPath(path);
    if ("isError" in stored) return stored;
    return { data: await files.write(stored.path, text, contentType) };
  },
});
