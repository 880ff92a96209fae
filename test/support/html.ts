// What a page says: its text, and its numbers as a test compares them. Tables go by their caption, and figures by their name.

/** A text or attribute without HTML's escapes. */
export const plain = (text: string): string =>
  text
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&quot;", '"')
    .replaceAll("&#39;", "'")
    .replaceAll("&amp;", "&");

/** The text of a page, for messages of failed tests and to look for words. */
export function textOf(html: string): string {
  return plain(html.replace(/<style>.*?<\/style>/s, "").replaceAll(/<[^>]+>/g, " "))
    .replaceAll(/\s+/g, " ")
    .trim();
}

/** The rows of the table with this caption, each with its texts by column. Throws when the page has no such table. */
export function tableOf(html: string, caption: string): Record<string, string>[] {
  const tables = [...html.matchAll(/<table[^>]*>(?<table>.*?)<\/table>/gs)].map(
    ({ groups }) => groups?.["table"] ?? "",
  );
  const table = tables.find((each) => textOf(/<caption.*?<\/caption>/s.exec(each)?.[0] ?? "") === caption);
  if (table === undefined) throw new Error(`no table ${caption}: ${textOf(html)}`);
  const cells = (row: string): string[] => [...row.matchAll(/<t[hd].*?<\/t[hd]>/gs)].map(([cell]) => textOf(cell));
  const [head = [], ...rows] = [...table.matchAll(/<tr.*?<\/tr>/gs)].map(([row]) => cells(row));
  return rows.map((row) => Object.fromEntries(row.map((text, index) => [head[index] ?? index, text])));
}

/** The value of the figure with this name, without what follows it in small letters. */
export function figureOf(html: string, name: string): string {
  const found = [
    ...html.matchAll(/<div class="name">(?<name>.*?)<\/div><div class="value">(?<value>.*?)<\/div>/gs),
  ].find(({ groups }) => textOf(groups?.["name"] ?? "") === name);
  if (found === undefined) throw new Error(`no figure ${name}: ${textOf(html)}`);
  return textOf((found.groups?.["value"] ?? "").replace(/<small>.*/s, ""));
}

/** The value of the field with this name: of an input, or of the chosen option. `undefined`: the page has none. */
export function enteredIn(html: string, name: string): string | undefined {
  const valueIn = (tag: string): string | undefined => {
    const value = /\svalue="(?<value>[^"]*)"/.exec(tag)?.groups?.["value"];
    return value === undefined ? undefined : plain(value);
  };
  const input = [...html.matchAll(/<input[^>]*>/g)].find(([tag]) => tag.includes(`name="${name}"`));
  if (input !== undefined) return valueIn(input[0]);
  const select = [...html.matchAll(/<select(?<tag>[^>]*)>(?<options>.*?)<\/select>/gs)].find(({ groups }) =>
    groups?.["tag"]?.includes(`name="${name}"`),
  );
  const chosen = /<option[^>]*\sselected[^>]*>/.exec(select?.groups?.["options"] ?? "");
  return chosen === null ? undefined : valueIn(chosen[0]);
}

/** `12,500` or `$12.50` as a number. `–` is nothing. */
export function numberOf(text: string | undefined): number {
  return text === "–" ? 0 : Number((text ?? "").replaceAll(/[,$]/g, ""));
}
