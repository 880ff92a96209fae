// Renders the repository's docs to HTML for the pages below /docs. Links between documents lead to their pages, and links to files
// of the repository become names, because a deployment has no repository to show. Our own text, so nothing is sanitised.
import { readFileSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { Marked, type Tokens } from "marked";

export interface RenderedDoc {
  /** The last part of the page's path. */
  slug: string;
  title: string;
  /** The first paragraph, as text. */
  summary: string;
  html: string;
}

/** Documents whose own name is the path of another page. */
const otherSlugs: Readonly<Record<string, string>> = { api: "api-guide", errors: "errors-guide" };

function slugOfDocument(file: string): string {
  const name = basename(file, ".md");
  return otherSlugs[name] ?? name;
}

/** The anchor of a heading, as GitHub writes it, so that links in the documents work in both places. */
export function anchorOf(text: string): string {
  return text
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
    .trim()
    .replaceAll(" ", "-");
}

/** Where a link of a document leads on the pages; `undefined`: to a file that no page shows. */
export function pageLink(href: string): string | undefined {
  if (/^https?:/.test(href) || href.startsWith("#")) return href;
  const [path = "", anchor] = href.split("#");
  if (!/^(docs\/|\.\/)?[\w-]+\.md$/.test(path)) return undefined;
  return `/docs/${slugOfDocument(path)}${anchor === undefined ? "" : `#${anchor}`}`;
}

/** Renders one document. Its first heading is the title and not part of the HTML. */
export function renderDoc(file: string, markdown: string): RenderedDoc {
  const marked = new Marked({
    renderer: {
      heading({ tokens, depth, text }: Tokens.Heading) {
        if (depth === 1) return "";
        const anchor = anchorOf(text);
        const content = this.parser.parseInline(tokens);
        return `<h${depth} id="${anchor}">${content} <a class="anchor" href="#${anchor}" aria-label="Link to this part">#</a></h${depth}>\n`;
      },
      link({ href, tokens }: Tokens.Link) {
        const content = this.parser.parseInline(tokens);
        const target = pageLink(href);
        return target === undefined ? content : `<a href="${target.replaceAll('"', "&quot;")}">${content}</a>`;
      },
    },
  });
  const html = marked.parse(markdown, { async: false });
  const tokens = marked.lexer(markdown);
  const title = tokens.find((token): token is Tokens.Heading => token.type === "heading" && token.depth === 1)?.text;
  if (title === undefined) throw new Error(`${file} has no title: begin it with "# ".`);
  const paragraph = tokens.find((token): token is Tokens.Paragraph => token.type === "paragraph")?.text ?? "";
  const summary = paragraph
    .replaceAll(/\[([^\]]*)\]\([^)]*\)/g, "$1")
    .replaceAll(/[`*]|\s+(?=\s)/g, "")
    .replaceAll("\n", " ");
  return { slug: slugOfDocument(file), title: title.replaceAll("`", ""), summary, html: framed(html) };
}

/** A wide table scrolls by itself, and can be reached with the keyboard. */
function framed(html: string): string {
  return html
    .replaceAll("<table>", '<div class="scroll" role="region" aria-label="Table" tabindex="0"><table>')
    .replaceAll("</table>", "</table></div>")
    .replaceAll("<th>", '<th scope="col">')
    .replaceAll("<pre>", '<pre tabindex="0">');
}

/** All documents of a folder, by their names. */
export function renderDocs(folder: string): RenderedDoc[] {
  const files = readdirSync(folder).filter((name) => name.endsWith(".md"));
  return files.toSorted().map((file) => renderDoc(file, readFileSync(join(folder, file), "utf8")));
}
