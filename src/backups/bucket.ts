// Backups and imports in R2, under `backups/<tenant>/` and `imports/<tenant>/`, and a tenant's documents as bytes. Files
// are written in parts and read in windows, so that none is ever in memory as a whole.
import { AppError } from "../core/errors.ts";
import type { FileDocument } from "./backup-file.ts";
import type { TenantId } from "../core/tenant.ts";
import { available, tenantPrefix } from "../adapters/files.ts";

/** R2 wants parts of one size, 5 MiB or more; only the last may be smaller. */
const PART_BYTES = 5 * 1024 * 1024;
/** Read at once; a line that is longer is read again in a window that it fits in. */
const WINDOW_BYTES = 2 * 1024 * 1024;
/** Longer than any answer of the database, of which a line is a part. */
const MAX_LINE_BYTES = 16 * 1024 * 1024;
/** Read at once: R2 takes six requests of one invocation at a time. */
const DOCUMENTS_AT_ONCE = 6;

const contentType = "application/x-ndjson";
export const LINE_END = 10;

export interface Upload {
  key: string;
  uploadId: string;
  parts: R2UploadedPart[];
}

export async function beginUpload(bucket: R2Bucket, key: string): Promise<Upload> {
  const { uploadId } = await available(() => bucket.createMultipartUpload(key, { httpMetadata: { contentType } }));
  return { key, uploadId, parts: [] };
}

/** Writes an upload's next parts. What was not flushed is written anew by whoever goes on. */
export function openUpload(bucket: R2Bucket, upload: Upload) {
  const multipart = bucket.resumeMultipartUpload(upload.key, upload.uploadId);
  const parts = [...upload.parts];
  let held = new Uint8Array(0);
  const put = async (part: Uint8Array): Promise<void> => {
    parts.push(await available(() => multipart.uploadPart(parts.length + 1, part)));
  };

  return {
    async write(bytes: Uint8Array): Promise<void> {
      const joined = new Uint8Array(held.length + bytes.length);
      joined.set(held);
      joined.set(bytes, held.length);
      let at = 0;
      for (; joined.length - at > PART_BYTES; at += PART_BYTES) await put(joined.subarray(at, at + PART_BYTES));
      held = joined.slice(at);
    },
    /** How many bytes a line of spaces must have for `flush` to leave nothing behind. */
    get lacking(): number {
      return held.length === 0 ? 0 : PART_BYTES - held.length;
    },
    /** Writes a part that is full. Returns what the next one to go on needs. */
    async flush(): Promise<Upload> {
      if (held.length > 0) await put(held);
      held = new Uint8Array(0);
      return { ...upload, parts };
    },
    /** Makes the object of the parts. May be repeated after a lost answer. Returns its size. */
    async complete(): Promise<number> {
      if (held.length > 0) await put(held);
      const made = await multipart.complete(parts).catch(() => bucket.head(upload.key));
      if (made === null) throw new AppError("tenant_unavailable", "R2 did not complete a backup");
      return made.size;
    },
  };
}

/** Gives up what was uploaded. What is gone is fine. */
export async function abandonUpload(bucket: R2Bucket, { key, uploadId }: Upload): Promise<void> {
  await bucket
    .resumeMultipartUpload(key, uploadId)
    .abort()
    .catch(() => undefined);
}

export interface FileLine {
  /** With its end. */
  bytes: Uint8Array;
  text: string;
}

export interface Window {
  lines: FileLine[];
  /** Of the byte after the last of the lines. */
  end: number;
  sizeBytes: number;
  /** Every line has its end, or is the last one of the file. */
  atEnd: boolean;
}

/** The whole lines from a byte on, or `undefined` when there is no such file. A line is never longer than `MAX_LINE_BYTES`. */
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
    const decoder = new TextDecoder("utf-8", { fatal: false, ignoreBOM: true });
    let begin = 0;
    for (let end = bytes.indexOf(LINE_END); begin < bytes.length; end = bytes.indexOf(LINE_END, begin)) {
      if (end < 0 && !atEnd) break;
      const line = bytes.subarray(begin, end < 0 ? bytes.length : end + 1);
      lines.push({ bytes: line, text: decoder.decode(line) });
      begin += line.length;
    }
    if (lines.length > 0) return { lines, end: offset + begin, sizeBytes, atEnd };
  }
  throw new AppError("bad_request", `a line is longer than ${MAX_LINE_BYTES} bytes`);
}

/** How many lines a file has, or `undefined` when there is none. Reads it once, from beginning to end. */
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

export async function putFile(bucket: R2Bucket, key: string, body: ReadableStream | Uint8Array): Promise<number> {
  const { size } = await available(() => bucket.put(key, body, { httpMetadata: { contentType } }));
  return size;
}

// ---- a tenant's documents

/** The next few documents after a path, and the path to go on from; none: all were read. */
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
    if (object === null) return []; // deleted meanwhile
    if (object.size > MAX_LINE_BYTES / 2)
      throw new AppError("result_too_large", "a document is too large for a backup");
    const bytes = new Uint8Array(await available(() => object.arrayBuffer()));
    const about = { path: key.slice(root.length), contentType: object.httpMetadata?.contentType ?? "text/plain" };
    try {
      return [{ ...about, text: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes) }];
    } catch {
      return [{ ...about, base64: Buffer.from(bytes).toString("base64") }];
    }
  });
  return { documents: (await Promise.all(read)).flat(), last: listed.objects.at(-1)?.key.slice(root.length) ?? null };
}

/** Writes a document over the one of its path; with `keep`, only when there is none. */
export async function writeDocument(
  bucket: R2Bucket,
  tenantId: TenantId,
  document: FileDocument,
  { keep }: { keep: boolean },
): Promise<void> {
  const key = `${tenantPrefix(tenantId)}files/${document.path}`;
  const body = "text" in document ? document.text : Buffer.from(document.base64, "base64");
  await available(async () => {
    if (keep && (await bucket.head(key)) !== null) return;
    await bucket.put(key, body, { httpMetadata: { contentType: document.contentType } });
  });
}
