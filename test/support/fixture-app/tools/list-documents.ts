// Lists documents by path, in pages.
import * as z from "zod";
import { MAX_PATH_BYTES, normalisePrefix } from "#tollgate/document-path";
import { defineTool, isFailure } from "#tollgate/tool";
import { pathInput, storedPath } from "../paths.ts";

export const listDocuments = defineTool({
  name: "list_documents",
  title: "List documents",
  description: "Lists documents by path, in pages.",
  units: 1,
  scopes: ["tools:read"],
  input: z.strictObject({
    prefix: z.string().max(MAX_PATH_BYTES).default("").describe("Start of the paths"),
    limit: z.int().min(1).max(100).default(50).describe("Documents in a page"),
    cursor: pathInput.optional(),
  }),
  output: z.strictObject({
    documents: z.array(
      z.strictObject({ path: z.string(), sizeBytes: z.int(), contentType: z.string(), updatedAt: z.iso.datetime() }),
    ),
    nextCursor: z.string().nullable(),
  }),
  annotations: { readOnly: true, idempotent: true, destructive: false },
  failed: isFailure,

  async run({ prefix, limit, cursor }, { files }) {
    const within = normalisePrefix(prefix);
    if (!within.ok) return { isError: true, text: within.reason };
    const after = cursor === undefined ? undefined : storedPath(cursor);
    if (after !== undefined && "isError" in after) return after;
    const page = await files.list({ prefix: within.path, limit, ...(after && { cursor: after.path }) });
    return { data: { documents: page.files, nextCursor: page.cursor ?? null } };
  },
});
