// The frame of every page, and its answer. Pages are whole without script and load nothing: the style is in the page, and the
// content policy names it by its hash. hono/jsx escapes every text.
import { html } from "hono/html";
import type { Child, FC } from "hono/jsx";
import { config } from "../core/app-config.ts";
import { type HttpContext, publicForMinutes } from "../http.ts";

const { product } = config;

const style = `
:root { color-scheme: light dark; --accent: ${product.colour}; --line: #8884; --soft: #8881; }
body { margin: 0 auto; max-width: 64rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
header, footer { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; padding: .5rem 0; }
header { border-bottom: 3px solid var(--accent); }
h2 { border-bottom: 1px solid var(--line); margin-top: 3rem; }
article { border: 1px solid var(--line); border-radius: .5rem; margin: 1rem 0; padding: 0 1rem 1rem; }
article h3, article h4 { margin: 1rem 0 .25rem; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; font-weight: 600; padding: .5rem 0; }
th, td { border-top: 1px solid var(--line); padding: .35rem .75rem .35rem 0; text-align: left; vertical-align: top; }
:target { background: var(--soft); outline: 2px solid var(--accent); }
code { font: .9em ui-monospace, monospace; }
.scroll { overflow-x: auto; }
.method { display: inline-block; min-width: 4.5rem; font-weight: 700; }
.skip:not(:focus) { position: absolute; left: -100rem; }
`;

let policy: Promise<string> | undefined;

/** A page may show itself, with its own style, and nothing else. */
async function contentPolicy(): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(style)));
  const hash = btoa(String.fromCharCode(...digest));
  return [
    ...["default-src 'none'", `style-src 'sha256-${hash}'`, "base-uri 'none'", "form-action 'none'"],
    "frame-ancestors 'none'",
  ].join("; ");
}

interface LayoutProps {
  title: string;
  children?: Child;
}

export const Layout: FC<LayoutProps> = ({ title, children }) => (
  <html lang="en">
    <head>
      <meta charset="utf-8" />
      <meta name="viewport" content="width=device-width, initial-scale=1" />
      <title>{`${title} · ${product.name}`}</title>
      <style dangerouslySetInnerHTML={{ __html: style }} />
    </head>
    <body>
      <a class="skip" href="#content">
        Skip to the content
      </a>
      <header>
        <strong>{product.name}</strong>
        <nav aria-label="Documents">
          <a href="/docs/api">API reference</a> · <a href="/docs/errors">Error codes</a> ·{" "}
          <a href="/openapi.json">OpenAPI</a>
        </nav>
      </header>
      <main id="content">
        <h1>{title}</h1>
        {children}
      </main>
      <footer>
        <a href={product.supportUrl}>Support</a>
        <a href={product.termsUrl}>Terms</a>
        <a href={product.privacyUrl}>Privacy</a>
      </footer>
    </body>
  </html>
);

/** Pages of this isolate by origin and title. Strangers may ask for a page as often as they like, so it is made once. */
const pages = new Map<string, string>();

/** The answer with a page that is the same for everyone. */
export async function publicPage(c: HttpContext, title: string, content: () => Child): Promise<Response> {
  const name = `${c.env.PUBLIC_URL} ${title}`;
  const page = pages.get(name) ?? (await html`<!doctype html>${<Layout title={title}>{content()}</Layout>}`);
  pages.set(name, page);
  return c.html(page, 200, { ...publicForMinutes, "content-security-policy": await (policy ??= contentPolicy()) });
}

/** The answer with a page that is not the same for everyone. `headers` say how long it is kept. */
export async function ownPage(
  c: HttpContext,
  title: string,
  content: Child,
  headers: Readonly<Record<string, string>>,
): Promise<Response> {
  const page = await html`<!doctype html>${<Layout title={title}>{content}</Layout>}`;
  return c.html(page, 200, { ...headers, "content-security-policy": await (policy ??= contentPolicy()) });
}
