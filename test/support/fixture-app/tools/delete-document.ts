// Deletes a document. That there was none is an answer and not a failure: a call that was lost may run again, and must
// then not be told that it failed.
import * as z from "zod";
import { MAX_PATH_BYTES, normalisePath } from "#tollgate/document-path";
import { defineTool, isFailure } from "#tollgate/tool";

export const deleteDocument = defineTool({
  name: "delete_document",
  title: "Delete document",
  description: "Deletes one document of your account for good. Says whether there was one.",
  units: 1,
  scopes: ["tools:write"],
  input: z.strictObject({
    path: z.string().min(1).max(MAX_PATH_BYTES).describe("Exactly as `list_documents` tells it"),
  }),
  output: z.strictObject({
    path: z.string(),
    existed: z.boolean().describe("Whether there was such a document; afterwards there is none"),
  }),
  annotations: { readOnly: false, idempotent: true, destructive: true },
  failed: isFailure,

  async run({ path }, context) {
    const named = normalisePath(path);
    if (!named.ok) {
      context.log("path_refused", { reason: named.reason });
      return { isError: true, text: named.reason };
    }
    const existed = await context.files.delete(named.path);
    const data = { path: named.path, existed };
    if (existed) return { data };
    return { text: `There was no document ${named.path}. Call list_documents to see which there are.`, data };
  },
});
