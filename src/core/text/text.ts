// Which texts Tollgate can store as they were sent, and the exact source of JSON values. Every door (JSON bodies, queries,
// paths, tool arguments, import lines) refuses the others and says why.
// Invariant: a stored text equals the text that was sent; nothing is replaced silently.
import * as z from "zod";

/** PostgreSQL accepts no NUL in a text or in JSON. */
const NUL = "must not contain NUL (U+0000)";
/** UTF-8 cannot encode it. An encoder would replace it by U+FFFD. */
const HALF_PAIR = "must not contain half of a surrogate pair";

/** Why UTF-8 cannot hold a text, as the end of a sentence about its name. `undefined`: it can. */
export function brokenText(text: string): string | undefined {
  return text.isWellFormed() ? undefined : HALF_PAIR;
}

/** Why PostgreSQL cannot store a text, as the end of a sentence about its name. `undefined`: it can. */
export function unstorableText(text: string): string | undefined {
  return text.includes("\0") ? NUL : brokenText(text);
}

/**
 * A text as PostgreSQL can store it: at most `maxChars` long, and each character that it cannot hold is replaced by U+FFFD.
 * For texts of other systems that Tollgate quotes to the operator, never for what a client sent.
 */
export function storable(text: string, maxChars: number): string {
  return text.slice(0, maxChars).toWellFormed().replaceAll("\0", "\uFFFD");
}

/** A text that PostgreSQL can store. For inputs of tools: `storableText(200)`. */
export function storableText(maxChars: number) {
  return z
    .string()
    .max(maxChars)
    .refine((text) => unstorableText(text) === undefined, { error: ({ input }) => unstorableText(String(input)) });
}

export interface RefusedText {
  /** The names and indexes that lead to the text. */
  path: (string | number)[];
  /** As `unstorableText` returns it. */
  reason: string;
}

interface Part {
  value: unknown;
  /** Name or index in the parent. */
  name: string | number;
  parent: Part | undefined;
}

/**
 * The first text of a JSON value, names included, that `check` refuses; `undefined`: none. Neither recursive nor quadratic,
 * because a sender decides how deep the value is.
 */
export function refusedTextIn(
  value: unknown,
  check: (text: string) => string | undefined = unstorableText,
): RefusedText | undefined {
  const left: Part[] = [{ value, name: "", parent: undefined }];
  for (let part = left.pop(); part !== undefined; part = left.pop()) {
    if (typeof part.value === "string") {
      const reason = check(part.value);
      if (reason !== undefined) return { path: pathOf(part), reason };
    }
    if (typeof part.value !== "object" || part.value === null) continue;
    const isList = Array.isArray(part.value);
    for (const [key, item] of Object.entries(part.value)) {
      const reason = isList ? undefined : check(key);
      // The name itself cannot be quoted.
      if (reason !== undefined) return { path: pathOf(part), reason: `${reason} in a name` };
      left.push({ value: item, name: isList ? Number(key) : key, parent: part });
    }
  }
  return undefined;
}

function pathOf(part: Part): (string | number)[] {
  const path: (string | number)[] = [];
  for (let at = part; at.parent !== undefined; at = at.parent) path.push(at.name);
  return path.toReversed();
}

/** Decodes UTF-8 exactly; `undefined` when the bytes are not UTF-8. A byte order mark stays, unless `dropMark` is set. */
export function decodeUtf8(bytes: ArrayBuffer | Uint8Array, { dropMark = false } = {}): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: !dropMark }).decode(bytes);
  } catch {
    return undefined;
  }
}

// ---- the source of JSON values. `JSON.parse` rounds numbers, drops digits and reorders names; the source has them all.

/** The members of an object: name to the source of its value. */
export class Members extends Map<string, string> {
  /** A name that occurs more than once; the last value counts. */
  twice: string | undefined;
}

/** The members of the JSON object that `source` is, each with the source of its value. `source` must be valid JSON. */
export function membersOf(source: string): Members {
  const members = new Members();
  let at = skipSpace(source, source.indexOf("{") + 1);
  while (source[at] === '"') {
    const afterName = endOfValue(source, at);
    const name = JSON.parse(source.slice(at, afterName)) as string;
    const begin = skipSpace(source, skipSpace(source, afterName) + 1); // the colon
    const end = endOfValue(source, begin);
    if (members.has(name)) members.twice = name;
    members.set(name, source.slice(begin, end));
    at = skipSpace(source, end);
    if (source[at] === ",") at = skipSpace(source, at + 1);
  }
  return members;
}

/** A name that an object in the JSON value `source` has twice; `undefined`: none. `source` must be valid JSON. */
export function nameTwice(source: string): string | undefined {
  /** The names of each open object; `undefined` for a list. */
  const open: (Set<string> | undefined)[] = [];
  for (let at = 0; at < source.length; at += 1) {
    const character = source[at];
    if (character === "{") open.push(new Set());
    else if (character === "[") open.push(undefined);
    else if (character === "}" || character === "]") open.pop();
    if (character !== '"') continue;
    const end = endOfString(source, at);
    if (source[skipSpace(source, end + 1)] === ":") {
      const name = JSON.parse(source.slice(at, end + 1)) as string;
      const names = open.at(-1);
      if (names?.has(name) === true) return name;
      names?.add(name);
    }
    at = end;
  }
  return undefined;
}

/** The position after the value that begins at `begin`. */
function endOfValue(source: string, begin: number): number {
  let depth = 0;
  for (let at = begin; at < source.length; at += 1) {
    const character = source[at];
    if (character === '"') at = endOfString(source, at);
    else if (character === "{" || character === "[") depth += 1;
    else if (character === "}" || character === "]") depth -= 1;
    else if (depth > 0 || !isEnd(source[at + 1])) continue;
    // A string, or the last character of a number or a word, or a bracket.
    if (depth === 0) return at + 1;
  }
  return source.length;
}

/** The position of the closing quote of the string that begins at `begin`. */
function endOfString(source: string, begin: number): number {
  for (let at = begin + 1; at < source.length; at += 1) {
    if (source[at] === "\\") at += 1;
    else if (source[at] === '"') return at;
  }
  return source.length;
}

function skipSpace(source: string, from: number): number {
  let at = from;
  while (/^[ \t\r\n]$/.test(source[at] ?? "")) at += 1;
  return at;
}

/** Whether a number or a word ends before this character. */
function isEnd(character: string | undefined): boolean {
  return character === undefined || /^[\s,\]}]$/.test(character);
}

/** The longest name of Tollgate's own has 30 characters. Every credential is longer than this. */
const MAX_SHOWN_NAME = 40;

/** A name that a client made up, for a refusal: a long one may be a secret at the wrong place, and is not repeated. */
export function shownName(name: PropertyKey): string {
  const text = String(name);
  return text.length > MAX_SHOWN_NAME ? `(a name of ${text.length} characters)` : text;
}

/** The value of the first cookie of this name in a `Cookie` header, up to the next semicolon; `undefined` without one. */
export function cookieOf(header: string | undefined, name: string): string | undefined {
  const pair = (header ?? "").split(";").find((each) => each.trimStart().startsWith(`${name}=`));
  return pair?.slice(pair.indexOf("=") + 1).trim();
}

/**
 * A `Set-Cookie` header. The name begins with `__Host-`, so that browsers take it only from this host, for all paths and with TLS
 * (RFC 6265bis, 4.1.3.2). Lax: the browser sends it when a link of another site leads here. A life of 0 removes the cookie.
 */
export function hostCookie(name: `__Host-${string}`, value: string, lifeSeconds: number): string {
  return `${name}=${value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=${lifeSeconds}`;
}

/** A CSS colour. */
export const Colour = z.string().regex(/^#[0-9a-f]{6}$/i, "must be a CSS colour such as #1d4ed8");
