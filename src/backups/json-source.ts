// Splits JSON text into parts without parsing them: `JSON.parse` would round numbers, drop digits and reorder names.
// The text must be valid JSON.

/** The members of an object: name to the source of its value. */
export class Members extends Map<string, string> {
  /** A name that occurs more than once; the last value counts. */
  twice: string | undefined;
}

/** The members of the JSON object that `source` is. */
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
