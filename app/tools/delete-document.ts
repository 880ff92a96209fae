// Deletes a document. Deleting a missing document succeeds, because Tollgate may run a call again whose outcome was lost.
import * as z from "zod";
import { MAX_PATH_BYTES, normalisePath } from "#tollgate/document-path";
import { defineTool, isFailure } from "#tollgate/tool";

export const deleteDocument = defineTool({
  name: "delete_document",
  title: "Delete document",
  description: "Permanently deletes one document of your account. Returns whether it existed.",
  units: 1,
  scopes: ["tools:write"],
  input: z.strictObject({
    path: z.string().min(1).max(MAX_PATH_BYTES).describe("The path as `list_documents` returns it"),
  }),
  output: z.strictObject({
    path: z.string(),
    existed: z.boolean().describe("Whether the document existed before the call"),
  }),
  annotations: { readOnly: false, idempotent: true, destructive: true },
  // There was nothing to delete, so the call is free.
  failed: (result) => isFailure(result) || !result.data.existed,

  async run({ path }, context) {
    const named = normalisePath(path);
    if (!named.ok) {
      context.log("path_refused", { reason: named.reason });
      return { isError: true, text: named.reason };
    }
    const existed = await context.files.delete(named.path);
    const data = { path: named.path, existed };
    if (existed) return { data };
    return { text: `There was no document ${named.path}. Call list_documents to list the documents.`, data };
  },
});
