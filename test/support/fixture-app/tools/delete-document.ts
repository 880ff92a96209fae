// Deletes a document. A second call succeeds, too: Tollgate may run a lost call again.
import * as z from "zod";
import { defineTool, isFailure } from "#tollgate/tool";
import { pathInput, storedPath } from "../paths.ts";

export const deleteDocument = defineTool({
  name: "delete_document",
  title: "Delete document",
  description: "Deletes a document.",
  units: 1,
  scopes: ["tools:write"],
  input: z.strictObject({ path: pathInput }),
  output: z.strictObject({ path: z.string(), existed: z.boolean() }),
  annotations: { readOnly: false, idempotent: true, destructive: true },
  // There was nothing to delete, so the call is free.
  failed: (result) => isFailure(result) || !result.data.existed,

  async run(input, { files }) {
    const stored = storedPath(input.path);
    if ("isError" in stored) return stored;
    return { data: { path: stored.path, existed: await files.delete(stored.path) } };
  },
});
