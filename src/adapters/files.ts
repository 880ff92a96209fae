// A tenant's documents in R2, under `tenants/<id>/files/`. Only this file makes their keys, from the tenant's id and a path
// that cannot leave the prefix. A refused path never reaches R2. An outage of R2 is `tenant_unavailable`.
import { AppError } from "../core/errors.ts";
import {
  MAX_DOCUMENT_BYTES,
  type PathResult,
  normalisePath,
  normalisePrefix,
  refusedContentType,
  utf8Bytes,
} from "../core/text/document-path.ts";
import { type TenantId, tenantIdPattern } from "../core/tenant/tenant.ts";
import { brokenText, decodeUtf8 } from "../core/text/text.ts";
import type { FileInfo, TenantFiles } from "../tools/tool.ts";

/** The tenant's documents as its own people and programs use them: as bytes of any kind, and by folder. */
export interface TenantDocuments {
  list(options: { prefix: string; cursor?: string; limit: number }): ReturnType<TenantFiles["list"]>;
  /**
   * What is directly in a folder, by path: `""` for the top, otherwise its path with `/` at the end, as are those of `folders`. `after`:
   * the `next` of the page before.
   */
  folder(folder: string, options: { after?: string | undefined; limit: number }): Promise<Folder>;
  /** `undefined` when there is no such document. The body must be read or cancelled. */
  open(path: string): Promise<{ info: FileInfo; body: ReadableStream } | undefined>;
  /** Stores a document under the same conditions as a tool's. `undefined`: with `onlyNew`, there is one already, which stays. */
  put(
    path: string,
    bytes: ArrayBuffer,
    options: { contentType: string; onlyNew: boolean },
  ): Promise<FileInfo | undefined>;
  /** Whether there was such a document. */
  delete(path: string): Promise<boolean>;
}

export interface Folder {
  folders: string[];
  files: FileInfo[];
  next: string | null;
}

interface Place {
  bucket: R2Bucket;
  tenantId: TenantId;
}

/** R2's largest page. */
const LARGEST_PAGE = 1_000;
const DEFAULT_CONTENT_TYPE = "text/plain";

/**
 * Opens one tenant's files. A path or cursor that `normalisePath` refuses throws `bad_request`; tools check paths first, to
 * explain the refusal. A text over `MAX_DOCUMENT_BYTES` throws `body_too_large` on writing and `result_too_large` on reading.
 * A text that UTF-8 cannot hold throws `text_invalid`, a content type that Tollgate does not store `bad_request`.
 */
export function createTenantFiles({ bucket, tenantId }: Place): TenantFiles {
  const { root, keyOf, infoOf } = keysOf(tenantId);
  return {
    // The cursor is the last path of the previous page. It cannot point outside of the tenant's files and never expires.
    async list({ prefix = "", cursor, limit = LARGEST_PAGE } = {}) {
      const options: R2ListOptions = {
        prefix: root + accepted(normalisePrefix(prefix)),
        limit: Math.min(limit, LARGEST_PAGE),
        include: ["httpMetadata"],
        ...(cursor !== undefined && { startAfter: keyOf(cursor) }),
      };
      const page = await available(() => bucket.list(options));
      const files = page.objects.map(infoOf);
      return { files, cursor: page.truncated ? files.at(-1)?.path : undefined };
    },

    async read(path) {
      const key = keyOf(path);
      return await available(async () => {
        const object = await bucket.get(key);
        if (object === null) return undefined;
        if (object.size > MAX_DOCUMENT_BYTES) {
          await object.body.cancel();
          throw new AppError("result_too_large", `a document of ${object.size} bytes is too large to return`);
        }
        return { info: infoOf(object), text: decodeUtf8(await object.arrayBuffer()) ?? null };
      });
    },

    async write(path, text, contentType = DEFAULT_CONTENT_TYPE) {
      const key = keyOf(path);
      refuseContentType(contentType);
      if (brokenText(text) !== undefined) throw new AppError("text_invalid", "UTF-8 cannot encode the document");
      if (utf8Bytes(text) > MAX_DOCUMENT_BYTES) throw new AppError("body_too_large", "the document is too large");
      return infoOf(await available(() => bucket.put(key, text, { httpMetadata: { contentType } })));
    },

    async delete(path) {
      const key = keyOf(path);
      return await available(async () => {
        // R2 does not report whether an object existed.
        const existed = (await bucket.head(key)) !== null;
        if (existed) await bucket.delete(key);
        return existed;
      });
    },
  };
}

/** Opens one tenant's documents. It throws as `createTenantFiles` does. */
export function createDocuments(place: Place): TenantDocuments {
  const { bucket, tenantId } = place;
  const { root, keyOf, infoOf } = keysOf(tenantId);
  const files = createTenantFiles(place);
  return {
    list: (options) => files.list(options),
    delete: (path) => files.delete(path),

    async folder(folder, { after, limit }) {
      const within = accepted(normalisePrefix(folder));
      const last = after === undefined ? undefined : accepted(normalisePrefix(after));
      const page = await available(() =>
        bucket.list({
          ...{ prefix: root + within, delimiter: "/", limit, include: ["httpMetadata"] },
          // What is in a folder comes after the folder itself.
          ...(last !== undefined && { startAfter: root + (last.endsWith("/") ? last + LAST_CHARACTER : last) }),
        }),
      );
      const found = page.objects.map(infoOf);
      const folders = page.delimitedPrefixes.map((key) => key.slice(root.length));
      const paths = [...found.map(({ path }) => path), ...folders].toSorted(byBytes);
      return { folders, files: found, next: page.truncated ? (paths.at(-1) ?? null) : null };
    },

    async open(path) {
      const key = keyOf(path);
      const object = await available(() => bucket.get(key));
      return object === null ? undefined : { info: infoOf(object), body: object.body };
    },

    async put(path, bytes, { contentType, onlyNew }) {
      const key = keyOf(path);
      refuseContentType(contentType);
      if (bytes.byteLength > MAX_DOCUMENT_BYTES) throw new AppError("body_too_large", "the document is too large");
      const onlyIf = new Headers({ "if-none-match": "*" });
      const stored = await available(() =>
        bucket.put(key, bytes, { httpMetadata: { contentType }, ...(onlyNew && { onlyIf }) }),
      );
      // The type knows no put with a condition that may be absent.
      return (stored as R2Object | null) === null ? undefined : infoOf(stored);
    },
  };
}

/** R2 lists keys by their bytes, where no character is after this one. */
const LAST_CHARACTER = "\u{10FFFF}";

function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

function keysOf(tenantId: TenantId) {
  const root = `${tenantPrefix(tenantId)}files/`;
  return {
    root,
    keyOf: (path: string): string => root + accepted(normalisePath(path)),
    infoOf: (object: R2Object): FileInfo => ({
      path: object.key.slice(root.length),
      sizeBytes: object.size,
      contentType: object.httpMetadata?.contentType ?? DEFAULT_CONTENT_TYPE,
      updatedAt: object.uploaded.toISOString(),
    }),
  };
}

function refuseContentType(contentType: string): void {
  const refused = refusedContentType(contentType);
  if (refused !== undefined) throw new AppError("bad_request", refused);
}

/**
 * Writes the marker that a tenant's storage is set up, outside of `files/`, so that tools do not see it. Also proves that the
 * bucket accepts writes. Can be repeated; the marker keeps `nowIso` as the time of the last set-up.
 */
export async function writeStorageMarker(options: {
  bucket: R2Bucket;
  tenantId: TenantId;
  nowIso: string;
}): Promise<void> {
  const { bucket, tenantId, nowIso } = options;
  const body = JSON.stringify({ tenantId, setUpAt: nowIso });
  const httpMetadata = { contentType: "application/json" };
  await available(() => bucket.put(`${tenantPrefix(tenantId)}tollgate.json`, body, { httpMetadata }));
}

/** The prefix of all of a tenant's objects. Throws `internal` for a value that is not a tenant's id. */
export function tenantPrefix(tenantId: TenantId): string {
  // The type promises it, but a wrong cast would open another tenant's files.
  if (!tenantIdPattern.test(tenantId)) throw new AppError("internal", "storage was opened without a tenant id");
  return `tenants/${tenantId}/`;
}

function accepted(result: PathResult): string {
  if (!result.ok) throw new AppError("bad_request", result.reason);
  return result.path;
}

/** Runs an R2 operation; an outage becomes `tenant_unavailable`. */
export async function available<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof AppError) throw error;
    throw new AppError("tenant_unavailable", "R2 did not complete the operation", { cause: error });
  }
}
