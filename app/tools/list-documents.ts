// Lists the tenant's documents by path, in pages.
import * as z from "zod";
import { MAX_PATH_BYTES, normalisePath, normalisePrefix } from "#tollgate/document-path";
import { defineTool, isFailure } from "#tollgate/tool";

export const listDocuments = defineTool({
  name: "list_documents",
  title: "List documents",
  description:
    "Lists your account's documents with their sizes and times, by path. Each page costs one call. " +
    "Read one with `read_document`.",
  units: 1,
  scopes: ["tools:read"],
  input: z.strictObject({
    prefix: z.string().max(MAX_PATH_BYTES).default("").describe("Start of the paths, for example `notes/`"),
    limit: z.int().min(1).max(100).default(50).describe("Documents in a page"),
    cursor: z
      .string()
      .min(1)
      .max(MAX_PATH_BYTES)
      .optional()
      .describe("`nextCursor` of the previous page, with the same prefix"),
  }),
  output: z.strictObject({
    documents: z.array(
      z.strictObject({ path: z.string(), sizeBytes: z.int(), contentType: z.string(), updatedAt: z.iso.datetime() }),
    ),
    nextCursor: z.string().nullable().describe("Cursor of the next page; null on the last page"),
  }),
  annotations: { readOnly: true, idempotent: true, destructive: false },
  failed: isFailure,

  async run({ prefix, limit, cursor }, context) {
    const within = normalisePrefix(prefix);
    if (!within.ok) {
      context.log("path_refused", { reason: within.reason });
      return { isError: true, text: `The prefix is not valid. ${within.reason}` };
    }
    const after = cursor === undefined ? undefined : normalisePath(cursor);
    if (after?.ok === false) {
      context.log("path_refused", { reason: after.reason });
      return { isError: true, text: "The cursor is not valid. List again without it." };
    }
    if (after?.path.startsWith(within.path) === false) {
      return { isError: true, text: "The cursor belongs to another prefix. List again without it." };
    }
    const page = await context.files.list({
      prefix: within.path,
      limit,
      ...(after !== undefined && { cursor: after.path }),
    });
    const data = { documents: page.files, nextCursor: page.cursor ?? null };
    if (data.documents.length > 0 || cursor !== undefined) return { data };
    const next = prefix === "" ? "Write the first one with `write_document`." : "Try without `prefix`.";
    return { text: `There is no such document. ${next}`, data };
  },
});
