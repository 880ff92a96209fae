// Reads a document in pieces that a model can hold. A piece is told twice, as text and as data, and stays below the
// bound of a result even if every character of it must be escaped.
import * as z from "zod";
import { MAX_PATH_BYTES, normalisePath } from "#tollgate/document-path";
import { defineTool, isFailure } from "#tollgate/tool";

/** Twice, at 6 bytes for an escaped character, this is 768 KiB: below 1 MiB. */
const PIECE_CHARS = 65_536;

export const readDocument = defineTool({
  name: "read_document",
  title: "Read document",
  description:
    `Reads one document of your account, at most ${PIECE_CHARS} characters at a time. ` +
    "If `nextOffset` is not null there is more: call again with it as `offset`. `list_documents` tells which there are.",
  units: 1,
  scopes: ["tools:read"],
  input: z.strictObject({
    path: z.string().min(1).max(MAX_PATH_BYTES).describe("For example `notes/today.md`"),
    offset: z.int().min(0).default(0).describe("Where to go on reading: `nextOffset` of the call before"),
  }),
  output: z.strictObject({
    path: z.string(),
    sizeBytes: z.int().describe("Of the whole document"),
    contentType: z.string(),
    updatedAt: z.iso.datetime(),
    text: z.string(),
    nextOffset: z.int().nullable().describe("Where the rest begins; null: this was the end"),
  }),
  annotations: { readOnly: true, idempotent: true, destructive: false },
  failed: isFailure,

  async run({ path, offset }, context) {
    const named = normalisePath(path);
    if (!named.ok) {
      context.log("path_refused", { reason: named.reason });
      return { isError: true, text: named.reason };
    }
    const document = await context.files.read(named.path);
    if (document === undefined) {
      return { isError: true, text: `There is no document ${named.path}. Call list_documents to see which there are.` };
    }
    const end = endOfPiece(document.text, offset);
    const text = document.text.slice(offset, end);
    const nextOffset = end < document.text.length ? end : null;
    return { text, data: { ...document.info, text, nextOffset } };
  },
});

/** Where the piece from `offset` ends: never between the two halves of a character. */
function endOfPiece(text: string, offset: number): number {
  const end = offset + PIECE_CHARS;
  if (end >= text.length) return text.length;
  const last = text.charCodeAt(end - 1);
  return last >= 0xd800 && last <= 0xdbff ? end - 1 : end;
}
