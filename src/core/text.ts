// Which texts Tollgate can store as they were sent. Every door (JSON bodies, queries, paths, tool arguments, import lines)
// refuses the others and says why. Invariant: a stored text equals the text that was sent; nothing is replaced silently.
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

/**
 * The first text of a JSON value, names included, that `check` refuses; `undefined`: none. Uses no recursion, because a
 * sender decides how deep the value is.
 */
export function refusedTextIn(
  value: unknown,
  check: (text: string) => string | undefined = unstorableText,
): RefusedText | undefined {
  const left: { value: unknown; path: (string | number)[] }[] = [{ value, path: [] }];
  for (let next = left.pop(); next !== undefined; next = left.pop()) {
    const { value: part, path } = next;
    if (typeof part === "string") {
      const reason = check(part);
      if (reason !== undefined) return { path, reason };
    } else if (Array.isArray(part)) {
      for (const [index, item] of part.entries()) if (hasText(item)) left.push({ value: item, path: [...path, index] });
    } else if (typeof part === "object" && part !== null) {
      for (const [name, item] of Object.entries(part)) {
        const reason = check(name);
        // The name itself cannot be quoted.
        if (reason !== undefined) return { path, reason: `${reason} in a name` };
        if (hasText(item)) left.push({ value: item, path: [...path, name] });
      }
    }
  }
  return undefined;
}

/** Decodes UTF-8 exactly; `undefined` when the bytes are not UTF-8. A byte order mark stays, unless `dropMark` is set. */
export function decodeUtf8(bytes: ArrayBuffer | Uint8Array, { dropMark = false } = {}): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: !dropMark }).decode(bytes);
  } catch {
    return undefined;
  }
}

function hasText(value: unknown): boolean {
  return typeof value === "string" || (typeof value === "object" && value !== null);
}
