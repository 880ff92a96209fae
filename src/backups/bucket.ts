// Backup and import files in R2, under `backups/<tenant>/` and `imports/<tenant>/`, and a tenant's documents as bytes.
// Invariant: no file is in memory as a whole. Files are uploaded in parts and read in windows of whole lines.
import * as z from "zod";
import { AppError } from "../core/errors.ts";
import type { FileDocument } from "./file/backup-file.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { decodeUtf8 } from "../core/text/text.ts";
import { available, tenantPrefix } from "../adapters/files.ts";

const MIB = 1024 * 1024;
/** R2 requires equal parts of at least 5 MiB; only the last part may be smaller. */
const PART_BYTES = 5 * MIB;
/** Size of one read. A few of these fit in the memory of an object. A longer line is read again in a larger window. */
const WINDOW_BYTES = 2 * MIB;
/** Maximum length of a line. A line is part of one database answer, and no answer is this long. */
const MAX_LINE_BYTES = 16 * MIB;
/** Enough to tell the kind of a file by its first lines. */
const HEAD_BYTES = 64 * 1024;
/** Documents read in parallel. Workers allow six open connections an invocation. */
const DOCUMENTS_AT_ONCE = 6;

const contentType = "application/x-ndjson";
export const LINE_END = 10;
const NOT_UTF8 = "The line is not UTF-8. Save the file as UTF-8.";

/** A multipart upload that a later step can resume. Plain JSON. */
export const Upload = z.object({
  key: z.string(),
  uploadId: z.string(),
  parts: z.array(z.object({ partNumber: z.int(), etag: z.string() })),
});
export type Upload = z.infer<typeof Upload>;

export async function beginUpload(bucket: R2Bucket, key: string): Promise<Upload> {
  const { uploadId } = await available(() => bucket.createMultipartUpload(key, { httpMetadata: { contentType } }));
  return { key, uploadId, parts: [] };
}

/** Resumes an upload. Bytes that were not flushed are lost when the step ends; the next step writes them again. */
export function openUpload(bucket: R2Bucket, upload: Upload) {
  const multipart = bucket.resumeMultipartUpload(upload.key, upload.uploadId);
  const parts = [...upload.parts];
  let buffered = new Uint8Array(0);
  const put = async (part: Uint8Array): Promise<void> => {
    parts.push(await available(() => multipart.uploadPart(parts.length + 1, part)));
  };

  return {
    async write(bytes: Uint8Array): Promise<void> {
      const joined = new Uint8Array(buffered.length + bytes.length);
      joined.set(buffered);
      joined.set(bytes, buffered.length);
      let at = 0;
      for (; joined.length - at > PART_BYTES; at += PART_BYTES) await put(joined.subarray(at, at + PART_BYTES));
      buffered = joined.slice(at);
    },
    /** Bytes that the last part lacks. A blank line of this length fills it, so that `flush` writes a full part. */
    get lacking(): number {
      return buffered.length === 0 ? 0 : PART_BYTES - buffered.length;
    },
    /** Uploads the buffered bytes as a part. Returns the state from which a later step resumes. */
    async flush(): Promise<Upload> {
      if (buffered.length > 0) await put(buffered);
      buffered = new Uint8Array(0);
      return { ...upload, parts };
    },
    /** Joins the parts into one R2 object. Can be repeated after a lost answer. Returns the size in bytes. */
    async complete(): Promise<number> {
      if (buffered.length > 0) await put(buffered);
      const object = await multipart.complete(parts).catch(() => bucket.head(upload.key));
      if (object === null) throw new AppError("tenant_unavailable", "R2 did not complete the upload of a backup");
      return object.size;
    },
  };
}

/** Aborts an upload and frees its parts. An upload that no longer exists is not an error. */
export async function abandonUpload(bucket: R2Bucket, { key, uploadId }: Upload): Promise<void> {
  await bucket
    .resumeMultipartUpload(key, uploadId)
    .abort()
    .catch(() => undefined);
}

export interface FileLine {
  /** Includes the line end. Empty for a line that is too long to be read. */
  bytes: Uint8Array;
  /** The text, or why the line has none, in words for the sender. */
  content: { text: string } | { refused: string };
}

export interface Window {
  lines: FileLine[];
  /** Offset of the byte after the last line. */
  end: number;
  sizeBytes: number;
  /** The window ends where the file ends. */
  atEnd: boolean;
}

/**
 * Reads whole lines from a byte offset on. Returns `undefined` when the file does not exist. Skips a line that is longer
 * than `MAX_LINE_BYTES` and returns it without its bytes.
 */
export async function readLines(bucket: R2Bucket, key: string, offset: number): Promise<Window | undefined> {
  for (const length of [WINDOW_BYTES, MAX_LINE_BYTES]) {
    const head = await available(() => bucket.head(key));
    if (head === null) return undefined;
    const sizeBytes = head.size;
    if (offset >= sizeBytes) return { lines: [], end: offset, sizeBytes, atEnd: true };
    const object = await available(() =>
      bucket.get(key, { range: { offset, length: Math.min(length, sizeBytes - offset) } }),
    );
    if (object === null) return undefined;
    const bytes = new Uint8Array(await available(() => object.arrayBuffer()));
    const atEnd = offset + bytes.length >= sizeBytes;
    const lines: FileLine[] = [];
    let begin = 0;
    for (let end = bytes.indexOf(LINE_END); begin < bytes.length; end = bytes.indexOf(LINE_END, begin)) {
      if (end < 0 && !atEnd) break;
      const line = bytes.subarray(begin, end < 0 ? bytes.length : end + 1);
      const text = decodeUtf8(line);
      lines.push({ bytes: line, content: text === undefined ? { refused: NOT_UTF8 } : { text } });
      begin += line.length;
    }
    if (lines.length > 0) return { lines, end: offset + begin, sizeBytes, atEnd };
  }
  const refused = `The line is longer than ${MAX_LINE_BYTES / MIB} MiB. Split it.`;
  const next = await nextLine(bucket, key, offset);
  return next && { lines: [{ bytes: new Uint8Array(0), content: { refused } }], ...next };
}

/** Finds the end of the line at an offset without keeping its bytes. */
async function nextLine(bucket: R2Bucket, key: string, offset: number): Promise<Omit<Window, "lines"> | undefined> {
  const object = await available(() => bucket.get(key, { range: { offset } }));
  if (object === null) return undefined;
  const { size: sizeBytes } = object;
  let end = offset;
  // Leaving the loop early cancels the rest of the file.
  for await (const chunk of object.body as ReadableStream<Uint8Array>) {
    const at = chunk.indexOf(LINE_END);
    if (at >= 0) return { end: end + at + 1, sizeBytes, atEnd: end + at + 1 >= sizeBytes };
    end += chunk.length;
  }
  return { end, sizeBytes, atEnd: true };
}

/** The first bytes of a file, at most `HEAD_BYTES`. Returns `undefined` when the file does not exist. */
export async function readHead(bucket: R2Bucket, key: string): Promise<Uint8Array | undefined> {
  const head = await available(() => bucket.head(key));
  if (head === null) return undefined;
  if (head.size === 0) return new Uint8Array(0);
  const length = Math.min(head.size, HEAD_BYTES);
  const object = await available(() => bucket.get(key, { range: { offset: 0, length } }));
  return object === null ? undefined : new Uint8Array(await available(() => object.arrayBuffer()));
}

/** Counts the lines of a file. Streams the whole file once. Returns `undefined` when the file does not exist. */
export async function countLines(bucket: R2Bucket, key: string): Promise<number | undefined> {
  const object = await available(() => bucket.get(key));
  if (object === null) return undefined;
  let lines = 0;
  let last = LINE_END;
  for await (const chunk of object.body as ReadableStream<Uint8Array>) {
    for (let at = chunk.indexOf(LINE_END); at >= 0; at = chunk.indexOf(LINE_END, at + 1)) lines += 1;
    last = chunk.at(-1) ?? last;
  }
  return last === LINE_END ? lines : lines + 1;
}

/** Stores a file in one request. Returns its size in bytes. */
export async function putFile(bucket: R2Bucket, key: string, body: ReadableStream | Uint8Array): Promise<number> {
  const { size } = await available(() => bucket.put(key, body, { httpMetadata: { contentType } }));
  return size;
}

// ---- a tenant's documents

/** Reads the next few documents after a path. `last` is the path to continue from; `null` means all were read. */
export async function readDocuments(
  bucket: R2Bucket,
  tenantId: TenantId,
  after: string | null,
): Promise<{ documents: FileDocument[]; last: string | null }> {
  const root = `${tenantPrefix(tenantId)}files/`;
  const listed = await available(() =>
    bucket.list({ prefix: root, limit: DOCUMENTS_AT_ONCE, ...(after !== null && { startAfter: root + after }) }),
  );
  const read = listed.objects.map(async ({ key }): Promise<FileDocument[]> => {
    const object = await available(() => bucket.get(key));
    if (object === null) return []; // deleted since it was listed
    if (object.size > MAX_LINE_BYTES / 2)
      throw new AppError("result_too_large", "a document is too large for a backup line");
    const bytes = new Uint8Array(await available(() => object.arrayBuffer()));
    const about = { path: key.slice(root.length), contentType: object.httpMetadata?.contentType ?? "text/plain" };
    const text = decodeUtf8(bytes);
    return [text === undefined ? { ...about, base64: Buffer.from(bytes).toString("base64") } : { ...about, text }];
  });
  return { documents: (await Promise.all(read)).flat(), last: listed.objects.at(-1)?.key.slice(root.length) ?? null };
}

/** Writes a document. Overwrites an existing one, unless `keep` is set. Returns whether an existing one stayed. */
export async function writeDocument(
  bucket: R2Bucket,
  tenantId: TenantId,
  document: FileDocument,
  { keep }: { keep: boolean },
): Promise<boolean> {
  const key = `${tenantPrefix(tenantId)}files/${document.path}`;
  const body = "text" in document ? document.text : Buffer.from(document.base64, "base64");
  return await available(async () => {
    if (keep && (await bucket.head(key)) !== null) return true;
    await bucket.put(key, body, { httpMetadata: { contentType: document.contentType } });
    return false;
  });
}
