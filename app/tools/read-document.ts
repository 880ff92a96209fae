// Reads a document in pieces that fit into a model's context.
// Invariant: a result stays below the limit of 1 MiB, even when JSON escapes every character. It contains the piece twice,
// as text and as data.
import * as z from "zod";
import { MAX_PATH_BYTES, normalisePath } from "#tollgate/document-path";
import { defineTool, isFailure } from "#tollgate/tool";

/** Two copies at 6 bytes for an escaped character are 768 KiB, below the limit of 1 MiB. */
const PIECE_CHARS = 65_536;

export const readDocument = defineTool({
  name: "read_document",
  title: "Read document",
  description:
    `Reads one document of your account, at most ${PIECE_CHARS} characters at a time. ` +
    "If `nextOffset` is not null, call again with it as `offset` to read the rest. `list_documents` lists the documents.",
  units: 1,
  scopes: ["tools:read"],
  input: z.strictObject({
    path: z.string().min(1).max(MAX_PATH_BYTES).describe("For example `notes/today.md`"),
    offset: z.int().min(0).default(0).describe("Position to read from: `nextOffset` of the previous call"),
  }),
  output: z.strictObject({
    path: z.string(),
    sizeBytes: z.int().describe("Size of the whole document"),
    contentType: z.string(),
    updatedAt: z.iso.datetime(),
    text: z.string(),
    nextOffset: z.int().nullable().describe("Position of the rest; null at the end of the document"),
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
      return { isError: true, text: `There is no document ${named.path}. Call list_documents to list the documents.` };
    }
    const { info, text: whole } = document;
    if (whole === null) {
      return {
        isError: true,
        text: `The document ${info.path} (${info.contentType}, ${info.sizeBytes} bytes) is not UTF-8 text. It cannot be read here; an export of your account contains it.`,
      };
    }
    const end = characterAt(whole, offset + PIECE_CHARS);
    const text = whole.slice(characterAt(whole, offset), end);
    const nextOffset = end < whole.length ? end : null;
    return { text, data: { ...info, text, nextOffset } };
  },
});

/** The position itself, or the one before when it is between the two code units of a character. */
function characterAt(text: string, position: number): number {
  if (position <= 0 || position >= text.length) return Math.min(position, text.length);
  const isInside =
    /^[\uDC00-\uDFFF]$/.test(text.charAt(position)) && /^[\uD800-\uDBFF]$/.test(text.charAt(position - 1));
  return isInside ? position - 1 : position;
}
