// Finds the pages of a site by their links, each kind once: the pages of single calls, keys or tenants are all the same page.

/** A bound for pages that link to ever new ones. */
const MAX_PAGES = 80;

/** Ids have a digit or a capital. Those of tenants may have neither, and are longer than any word of a path. */
const isId = (part: string): boolean => /[\dA-Z]/.test(part) || /^[a-z]{16,}$/.test(part);

const withoutQuery = (path: string): string => path.replace(/\?.*/, "");

/** The path with `ID` for each id, and without its query: `/admin/tenants/ID/data`. */
function kindOf(path: string): string {
  return withoutQuery(path)
    .split("/")
    .map((part) => (isId(part) ? "ID" : part))
    .join("/");
}

/** The paths of pages that a page links to, with their queries. */
export function linksOf(html: string): string[] {
  return [...html.matchAll(/href="(\/[^"#]*)/g)].map(([, path = ""]) => path.replaceAll("&amp;", "&"));
}

/**
 * Opens the pages at these paths, and those to which they link at or below `root`. `open` returns the links of the page, or
 * undefined for a file.
 */
export async function crawl({
  paths,
  root,
  open,
}: {
  paths: readonly string[];
  root?: string;
  open: (path: string, kind: string) => Promise<readonly string[] | undefined>;
}): Promise<void> {
  const waiting = [...paths];
  const kinds = new Set<string>();
  for (let path = waiting.shift(); path !== undefined && kinds.size < MAX_PAGES; path = waiting.shift()) {
    const kind = kindOf(path);
    if (kinds.has(kind)) continue;
    kinds.add(kind);
    const links = (await open(path, kind)) ?? [];
    waiting.push(...links.filter((link) => root !== undefined && `${withoutQuery(link)}/`.startsWith(`${root}/`)));
  }
}
