// The repository's documents as pages, and `/llms.txt`: the same for agents. cli/generate-docs.ts has rendered them.
import { raw } from "hono/html";
import type { FC } from "hono/jsx";
import { docs } from "#docs";
import { config } from "../../core/app-config.ts";
import { AppError } from "../../core/errors.ts";
import { type HttpContext, publicForMinutes } from "../../http.ts";
import { catalogue } from "../../tools/catalogue.ts";
import { plansInWords, pricesInWords } from "../../tools/offer.ts";
import { publicPage } from "../layout/layout.tsx";

type Doc = (typeof docs)[number];
interface Listed {
  path: string;
  title: string;
  summary: string;
}

const pathOf = ({ slug }: Pick<Doc, "slug">): string => `/docs/${slug}`;

/** Pages below /docs that are made from the program itself. */
const references: readonly Listed[] = [
  { path: "/docs/api", title: "API reference", summary: "Every endpoint, with who may use it and what it answers." },
  { path: "/docs/errors", title: "Error codes", summary: "What each code means, and whether a retry can help." },
  { path: "/openapi.json", title: "OpenAPI description", summary: "The API reference for programs." },
];

/** What customers read, in this order. */
const forCustomers = [
  "api-guide",
  "sign-in",
  "keys",
  "members",
  "billing",
  "tenant-states",
  "removal",
  "configuration",
];
const listedOf = (doc: Doc): Listed => ({ path: pathOf(doc), title: doc.title, summary: doc.summary });
const customerDocs = forCustomers.flatMap((slug) => docs.filter((doc) => doc.slug === slug)).map(listedOf);
const otherDocs = docs.filter(({ slug }) => !forCustomers.includes(slug)).map(listedOf);

const groups: readonly { title: string; listed: readonly Listed[] }[] = [
  { title: "Use the tools and the account", listed: customerDocs },
  { title: "Reference", listed: references },
  { title: "Run and change the software", listed: otherDocs },
];

export function showDocs(c: HttpContext): Promise<Response> {
  const lead = `How ${config.product.name} works, for customers, for those who run it and for those who change it.`;
  return publicPage(c, { title: "Documentation", lead }, () => (
    <>
      {groups.map(({ title, listed }) => (
        <section>
          <h2>{title}</h2>
          <div class="grid">
            {listed.map(({ path, title: name, summary }) => (
              <a class="card doc" href={path}>
                <strong>{name}</strong>
                <span class="muted small">{shortened(summary)}</span>
              </a>
            ))}
          </div>
        </section>
      ))}
    </>
  ));
}

/** GET /docs/:page */
export function showDoc(c: HttpContext): Promise<Response> {
  const doc = docs.find(({ slug }) => slug === c.req.param("page"));
  if (doc === undefined) throw new AppError("not_found");
  return publicPage(c, { title: doc.title, hidesTitle: true }, () => <Document doc={doc} />);
}

const Document: FC<{ doc: Doc }> = ({ doc }) => (
  <div class="document">
    <nav aria-label="Documents">
      <ul>
        {/* On a phone the only one: the others would stand between the reader and the document. */}
        <li>
          <a href="/docs">All documents</a>
        </li>
        {[...customerDocs, ...references, ...otherDocs].map(({ path, title }) => (
          <li>
            <a href={path} aria-current={path === pathOf(doc) ? "page" : undefined}>
              {title}
            </a>
          </li>
        ))}
      </ul>
    </nav>
    <div class="prose">
      <div class="head">
        <h1>{doc.title}</h1>
      </div>
      {raw(doc.html)}
    </div>
  </div>
);

/** The length of a card's text. */
const SUMMARY_CHARS = 150;

/** The first sentences of a text, as far as they fit. */
function shortened(text: string): string {
  if (text.length <= SUMMARY_CHARS) return text;
  const cut = text.slice(0, SUMMARY_CHARS);
  const sentence = /^.*[.:!?](?= )/s.exec(cut)?.[0];
  return sentence ?? `${cut.slice(0, cut.lastIndexOf(" "))} …`;
}

/** GET /llms.txt: what an agent needs to know about the product, and where to read more (llmstxt.org). */
export function showLlms(c: HttpContext): Response {
  const { PUBLIC_URL } = c.env;
  const { name, supportUrl } = config.product;
  const lines = [
    `# ${name}`,
    "",
    `> ${name} sells MCP tools to organisations. The MCP endpoint is ${PUBLIC_URL}/mcp (Streamable HTTP).`,
    "",
    "A client sends an API key as `Authorization: Bearer <key>`, or lets a person sign in: the endpoint answers 401 with the address of its",
    `OAuth metadata. A failed call costs nothing. Plans: ${PUBLIC_URL}/#plans. Support: ${supportUrl}.`,
    "",
    "## Tools",
    "",
    ...[...catalogue.values()].map(
      (tool) =>
        `- \`${tool.name}\` (${pricesInWords(tool)}${plansInWords(tool) === undefined ? "" : `; plans: ${plansInWords(tool)}`}): ${oneLine(tool.description)}`,
    ),
    ...groups.flatMap(({ title, listed }) => [
      "",
      `## ${title}`,
      "",
      ...listed.map((each) => `- [${each.title}](${PUBLIC_URL}${each.path}): ${shortened(each.summary)}`),
    ]),
    "",
  ];
  return c.text(lines.join("\n"), 200, publicForMinutes);
}

const oneLine = (text: string): string => text.replaceAll(/\s+/g, " ").trim();
