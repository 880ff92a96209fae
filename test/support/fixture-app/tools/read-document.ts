// Reads a whole document.
import * as z from "zod";
import { defineTool, isFailure } from "#tollgate/tool";
import { pathInput, storedPath } from "../paths.ts";

export const readDocument = defineTool({
  name: "read_document",
  title: "Read document",
  description: "Reads a document.",
  units: 1,
  scopes: ["tools:read"],
  input: z.strictObject({ path: pathInput }),
  output: z.strictObject({ path: z.string(), sizeBytes: z.int(), contentType: z.string(), text: z.string() }),
  annotations: { readOnly: true, idempotent: true, destructive: false },
  failed: isFailure,

  async run(input, { files }) {
    const stored = storedPath(input.path);
    if ("isError" in stored) return stored;
    const document = await files.read(stored.path);
    if (document === undefined) return { isError: true, text: `There is no document ${stored.path}.` };
    const { text } = document;
    const { path, sizeBytes, contentType } = document.info;
    if (text === null) return { isError: true, text: `The document ${path} (${contentType}) is not UTF-8 text.` };
    return { text, data: { path, sizeBytes, contentType, text } };
  },
});
