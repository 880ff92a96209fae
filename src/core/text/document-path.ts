// Rules for a tenant's documents: path, size and content type. Tollgate refuses an ambiguous path with the reason and never repairs it, so
// that the requested name and the stored name are the same. The only change is Unicode's canonical composition (NFC):
// without it, two names that look alike would be two documents.

/** R2 allows 1,024 bytes a key. Half of it leaves room for the prefix and keeps listings short. */
export const MAX_PATH_BYTES = 512;

/** More than a model can use, and with its envelope well below the 1 MiB of a result. */
export const MAX_DOCUMENT_BYTES = 512 * 1024;

export type PathResult = { ok: true; path: string } | { ok: false; reason: string };

/** The path as it is stored, or the reason for the refusal, in words for the sender. Idempotent. */
export function normalisePath(path: string): PathResult {
  const composed = path.normalize("NFC");
  const reason = refusedAsAWhole(composed) ?? firstOf(composed.split("/"), refusedSegment);
  return reason === undefined ? { ok: true, path: composed } : { ok: false, reason };
}

/** Like `normalisePath`, for a prefix: it may be empty (everything) and end anywhere, as in `notes/` or `notes/2026-`. */
export function normalisePrefix(prefix: string): PathResult {
  if (prefix === "") return { ok: true, path: "" };
  const folder = prefix.endsWith("/") && prefix !== "/";
  const result = normalisePath(folder ? prefix.slice(0, -1) : prefix);
  return result.ok && folder ? { ok: true, path: `${result.path}/` } : result;
}

/** Characters of a content type. The longest registered ones have about 80. */
const MAX_CONTENT_TYPE_CHARS = 127;
/** RFC 9110, section 8.3.1, with the characters of RFC 6838 for the names. The value of a parameter may be quoted. */
const contentTypePattern =
  /^[a-z0-9][a-z0-9!#$&^_.+-]*\/[a-z0-9][a-z0-9!#$&^_.+-]*(?: *; *[a-z0-9!#$&^_.+-]+=(?:[a-z0-9!#$&^_.+:/-]+|"[ !#-[\]-~]*"))*$/i;
/** Types that a browser runs or renders with scripts: HTML, XML with SVG and MathML, scripts, and containers of them. */
const activeType =
  /^(?:multipart|message)\/|[/+.-](?:x?html?|xml|svg|xslt?|mathml|hta)(?:$|[+.;\s-])|script|shockwave/i;

/** Why Tollgate stores no document of this content type, in words for the sender; `undefined` when it does. */
export function refusedContentType(contentType: string): string | undefined {
  if (contentType.length > MAX_CONTENT_TYPE_CHARS || !contentTypePattern.test(contentType))
    return "The content type is not valid. Send one such as `text/plain` or `application/pdf`.";
  if (activeType.test(contentType))
    return "A browser would run a document of this content type. Store it as `text/plain` or `application/octet-stream`.";
  return undefined;
}

/**
 * The content type under which a document of this type may leave or be stored without a choice: itself, or `text/plain` for one
 * that a browser would run, also where a parameter only carries it.
 */
export function plainContentType(contentType: string): string {
  return refusedContentType(contentType) === undefined ? contentType : "text/plain";
}

/** The length of a text in UTF-8, as it is stored. */
export function utf8Bytes(text: string): number {
  return new TextEncoder().encode(text).byteLength;
}

function refusedAsAWhole(path: string): string | undefined {
  if (path === "") return "The path is empty. Name a document, for example `notes/today.md`.";
  if (utf8Bytes(path) > MAX_PATH_BYTES) return `The path is longer than ${MAX_PATH_BYTES} bytes. Choose a shorter one.`;
  if (path.startsWith("/")) return "The path starts with `/`. Paths are relative, for example `notes/today.md`.";
  if (path.includes("\\")) return "The path contains a backslash. Separate folders with `/`.";
  // Control characters, line separators, and unpaired surrogates, which UTF-8 cannot encode.
  if (/[\p{Cc}\p{Cs}\u2028\u2029]/u.test(path)) return "The path contains a control character or broken text.";
  // Joiners stay: emoji and some scripts need them.
  if (/[\u00AD\u061C\u200B\u200E\u200F\u202A-\u202E\u2060-\u2069\uFEFF]/.test(path))
    return "The path contains an invisible character, so it would look like another path. Remove it.";
  // Tollgate never decodes a path, but a program that reads an export might.
  if (/%[0-9a-f]{2}/i.test(path)) return "The path contains a percent-encoded character. Write the character itself.";
  return undefined;
}

function refusedSegment(segment: string): string | undefined {
  if (segment === "") return "The path has an empty part: `//`, or a `/` at its end.";
  if (segment === "." || segment === "..") return "The path contains `.` or `..`. Name the document from the top.";
  if (segment !== segment.trim()) return "A part of the path begins or ends with white space.";
  return undefined;
}

function firstOf<T, R>(items: readonly T[], find: (item: T) => R | undefined): R | undefined {
  for (const item of items) {
    const found = find(item);
    if (found !== undefined) return found;
  }
  return undefined;
}
