// The frame of every page, and its answer. Pages are whole without script and load nothing: the style is in the page, and the
// content policy names it by its hash. hono/jsx escapes every text. A form goes to Tollgate alone: a page that continues
// elsewhere after a form is an answer that refreshes, because browsers apply the policy to redirects of forms, too.
import { html } from "hono/html";
import type { Child, FC } from "hono/jsx";
import { config } from "../core/app-config.ts";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { type HttpContext, noStore, publicForMinutes } from "../http.ts";

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
.narrow { max-width: 32rem; }
.warning { border-left: 4px solid #b45309; background: var(--soft); padding: .5rem 1rem; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; }
.facts dt { font-weight: 600; }
.facts dd { margin: 0; }
fieldset { border: 1px solid var(--line); border-radius: .5rem; margin: 1rem 0; }
fieldset label { display: block; padding: .25rem 0; }
.actions { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.5rem 0; }
.button, button { border: 1px solid var(--accent); border-radius: .5rem; background: none; color: inherit; cursor: pointer; font: inherit; padding: .5rem 1.25rem; text-decoration: none; }
button.main { background: var(--accent); color: #fff; }
.skip:not(:focus) { position: absolute; left: -100rem; }
`;

const policies = new Map<string, Promise<string>>();

/** A page may show itself, with its own style, and nothing else. `forms`: the sources that its forms may go to. */
function contentPolicy(forms: "'none'" | "'self'"): Promise<string> {
  const known = policies.get(forms);
  if (known !== undefined) return known;
  const made = makePolicy(forms);
  policies.set(forms, made);
  return made;
}

async function makePolicy(forms: string): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(style)));
  const hash = btoa(String.fromCharCode(...digest));
  return [
    ...["default-src 'none'", `style-src 'sha256-${hash}'`, "base-uri 'none'", `form-action ${forms}`],
    "frame-ancestors 'none'",
  ].join("; ");
}

interface LayoutProps {
  title: string;
  /** The browser continues there at once. */
  continuesAt?: string | undefined;
  children?: Child;
}

export const Layout: FC<LayoutProps> = ({ title, continuesAt, children }) => (
  <html lang="en">
    <head>
      <meta charset="utf-8" />
      <meta name="viewport" content="width=device-width, initial-scale=1" />
      {continuesAt !== undefined && <meta http-equiv="refresh" content={`0;url=${continuesAt}`} />}
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
  return c.html(page, 200, { ...publicForMinutes, "content-security-policy": await contentPolicy("'none'") });
}

export interface PageOptions {
  title: string;
  status?: ContentfulStatusCode;
  /** The page has a form, which goes to Tollgate. Its requests then name their origin, which `no-referrer` would hide. */
  hasForm?: boolean;
  /** A URL: the browser continues there at once. The page should have a link to it, too. */
  continuesAt?: string;
  /** Cookies to set. */
  cookies?: readonly string[];
}

/** The answer with a page for one person. No cache keeps it. */
export async function personalPage(c: HttpContext, options: PageOptions, content: Child): Promise<Response> {
  const { title, status = 200, hasForm = false, continuesAt, cookies = [] } = options;
  const page = await html`<!doctype html>${(
      <Layout title={title} continuesAt={continuesAt}>
        {content}
      </Layout>
    )}`;
  const headers = {
    ...noStore,
    "content-security-policy": await contentPolicy(hasForm ? "'self'" : "'none'"),
    ...(hasForm && { "referrer-policy": "same-origin" }),
  };
  // As a plain text: for a string object Hono would answer later, without our cookies.
  const response = c.html(page.toString(), status, headers);
  for (const cookie of cookies) response.headers.append("set-cookie", cookie);
  return response;
}
