// Lists the tenant's documents, page by page, in the order of their paths.
import * as z from "zod";
import { MAX_PATH_BYTES, normalisePath, normalisePrefix } from "#tollgate/document-path";
import { defineTool, isFailure } from "#tollgate/tool";

export const listDocuments = defineTool({
  name: "list_documents",
  title: "List documents",
  description:
    "Lists your account's documents with size and time, by path. Each page is a call. " +
    "Read one with `read_document`.",
  units: 1,
  scopes: ["tools:read"],
  input: z.strictObject({
    prefix: z.string().max(MAX_PATH_BYTES).default("").describe("Only paths that begin so, for example `notes/`"),
    limit: z.int().min(1).max(100).default(50).describe("Documents a page"),
    cursor: z.string().max(MAX_PATH_BYTES).optional().describe("`nextCursor` of the page before, with the same prefix"),
  }),
  output: z.strictObject({
    documents: z.array(
      z.strictObject({ path: z.string(), sizeBytes: z.int(), contentType: z.string(), updatedAt: z.iso.datetime() }),
    ),
    nextCursor: z.string().nullable().describe("For the next page; null: this is the last"),
  }),
  annotations: { readOnly: true, idempotent: true, destructive: false },
  failed: isFailure,

  async run({ prefix, limit, cursor }, context) {
    const within = normalisePrefix(prefix);
    if (!within.ok) {
      context.log("path_refused", { reason: within.reason });
      return { isError: true, text: `The prefix is not usable. ${within.reason}` };
    }
    const after = cursor === undefined ? undefined : normalisePath(cursor);
    if (after?.ok === false) {
      context.log("path_refused", { reason: after.reason });
      return { isError: true, text: "The cursor is not one that this tool gave out. List again without it." };
    }
    const page = await context.files.list({
      prefix: within.path,
      limit,
      ...(after !== undefined && { cursor: after.path }),
    });
    const data = { documents: page.files, nextCursor: page.cursor ?? null };
    if (data.documents.length > 0 || cursor !== undefined) return { data };
    const next = prefix === "" ? "`write_document` makes the first." : "Try without `prefix`.";
    return { text: `There is no such document. ${next}`, data };
  },
});
