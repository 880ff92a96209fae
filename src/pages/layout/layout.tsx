// The answer with a page: its head, its frame and its headers. hono/jsx escapes every text.
//
// Invariants: a page has no inline style and no inline script, and loads only files of Tollgate's own, so the content policy has
// no `unsafe-inline`. It works without script. A form goes to Tollgate alone: a page that continues elsewhere after a form is an
// answer that refreshes, because browsers apply the policy to redirects of forms, too. No cache keeps a page for one person.
import { html } from "hono/html";
import type { Child, FC } from "hono/jsx";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { config } from "../../core/app-config.ts";
import type { ErrorCode } from "../../core/errors.ts";
import { type HttpContext, noStore, publicForMinutes } from "../../http.ts";
import { accountStyle, colourStyle, htmx, script, style } from "../assets/assets.ts";
import { flashOf, shownFlashCookie } from "./flash.ts";
import { type Frame, Framed } from "./frame.tsx";
import { markPath } from "./icon.tsx";
import { Notice } from "../parts/notice.tsx";

const { product } = config;

/** none: plain HTML. own: our script, for buttons that copy or ask again. live: htmx too, for parts that renew themselves. */
type Scripts = "none" | "own" | "live";

/** What a page may load and where its forms go. A form's request names its origin, which `no-referrer` would hide. */
function headersOf({ scripts, hasForm }: { scripts: Scripts; hasForm: boolean }): Record<string, string> {
  const policy = [
    "default-src 'none'",
    "style-src 'self'",
    ...(scripts === "none" ? [] : ["script-src 'self'"]),
    ...(scripts === "live" ? ["connect-src 'self'"] : []),
    "img-src 'self' data:",
    `form-action ${hasForm ? "'self'" : "'none'"}`,
    "base-uri 'none'",
    "frame-ancestors 'none'",
  ];
  return { "content-security-policy": policy.join("; "), ...(hasForm && { "referrer-policy": "same-origin" }) };
}

/** htmx must add no style, and remembers no page: a person's page must not outlive the session. */
const HTMX_CONFIG = "includeIndicatorCSS:false, history:false, mode:same-origin";

const icon = `data:image/svg+xml,${encodeURIComponent(
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><rect width="24" height="24" rx="6" fill="${product.colour}"/>` +
    `<path d="${markPath}" fill="none" stroke="#fff" stroke-width="2" stroke-linecap="round"/></svg>`,
)}`;

export interface PageOptions {
  title: string;
  status?: ContentfulStatusCode;
  /** Default: a page with one task for a person, the site for everyone. */
  frame?: Frame;
  /** A sentence below the title. */
  lead?: Child;
  /** Beside the title: links and buttons for the whole page. */
  actions?: Child;
  /** The content has its own `h1`. */
  hidesTitle?: boolean;
  /** Default: none. */
  scripts?: Scripts;
  /** The page has a form, which goes to Tollgate. Its requests then name their origin, which `no-referrer` would hide. */
  hasForm?: boolean;
  /** A URL: the browser continues there at once. The page should have a link to it, too. */
  continuesAt?: string | undefined;
  /** Without script, the browser loads the page again after this time. */
  reloadSeconds?: number | undefined;
  /** A customer's colour `#rrggbb`, for a page of theirs. Default: the product's. */
  colour?: string | undefined;
  /** Cookies to set. */
  cookies?: readonly string[];
  /** Of a refusal: its code, for programs. People read the text. */
  code?: ErrorCode | undefined;
}

const Page: FC<{ options: PageOptions; frame: Frame; message?: Child; children?: Child }> = (props) => {
  const { options, frame, message, children } = props;
  const {
    title,
    lead,
    actions,
    hidesTitle = false,
    scripts = "none",
    continuesAt,
    reloadSeconds,
    colour,
    code,
  } = options;
  return (
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        {code !== undefined && <meta name="error-code" content={code} />}
        {continuesAt !== undefined && <meta http-equiv="refresh" content={`0;url=${continuesAt}`} />}
        {reloadSeconds !== undefined && (
          <noscript>
            <meta http-equiv="refresh" content={String(reloadSeconds)} />
          </noscript>
        )}
        <title>{`${title} · ${product.name}`}</title>
        <link rel="stylesheet" href={style.path} />
        {frame.kind === "sided" && <link rel="stylesheet" href={accountStyle.path} />}
        {colour !== undefined && <link rel="stylesheet" href={colourStyle(colour).path} />}
        <link rel="icon" href={icon} />
        {scripts === "live" && <meta name="htmx-config" content={HTMX_CONFIG} />}
        {scripts === "live" && <script src={htmx.path} defer />}
        {scripts !== "none" && <script src={script.path} defer />}
      </head>
      <Framed frame={frame}>
        {!hidesTitle && (
          <div class="head">
            <div>
              <h1>{title}</h1>
              {lead !== undefined && <p>{lead}</p>}
            </div>
            {actions !== undefined && <div class="actions">{actions}</div>}
          </div>
        )}
        {message}
        {children}
      </Framed>
    </html>
  );
};

/** Pages of this isolate by origin and title. Strangers may ask for a page as often as they like, so it is made once. */
const pages = new Map<string, string>();

/** The answer with a page that is the same for everyone. No other public page has its title. */
export async function publicPage(
  c: HttpContext,
  options: Omit<PageOptions, "cookies" | "status">,
  content: () => Child,
): Promise<Response> {
  const { frame = { kind: "site", current: c.req.path }, scripts = "none", hasForm = false } = options;
  const name = `${c.env.PUBLIC_URL} ${options.title}`;
  const page =
    pages.get(name) ??
    (await html`<!doctype html>${(
        <Page options={options} frame={frame}>
          {content()}
        </Page>
      )}`);
  pages.set(name, page);
  return c.html(page, 200, { ...publicForMinutes, ...headersOf({ scripts, hasForm }) });
}

/** The answer with a page for one person. No cache keeps it. It shows the message that the form before it has left. */
export async function personalPage(c: HttpContext, options: PageOptions, content: Child): Promise<Response> {
  const { status = 200, frame = { kind: "focus" }, hasForm = frame.kind === "sided", scripts = "none" } = options;
  const flash = flashOf(c.req.header("cookie"));
  const message = flash && <Notice tone={flash.tone}>{flash.text}</Notice>;
  const page = await html`<!doctype html>${(
      <Page options={options} frame={frame} message={message}>
        {content}
      </Page>
    )}`;
  const headers = { ...noStore, ...headersOf({ scripts, hasForm }) };
  // As a plain text: for a string object Hono would answer later, without our cookies.
  const response = c.html(page.toString(), status, headers);
  const cookies = [...(flash === undefined ? [] : [shownFlashCookie]), ...(options.cookies ?? [])];
  for (const cookie of cookies) response.headers.append("set-cookie", cookie);
  return response;
}

/** Whether htmx asks for one part of a page. The same URL answers it. */
export function wantsPart(c: HttpContext): boolean {
  return c.req.header("hx-request") === "true";
}

/** The answer with one part of a page, for htmx. A part without `hx-trigger` ends the polling of the one that it replaces. */
export async function pagePart(c: HttpContext, content: Child): Promise<Response> {
  const part = await html`${content}`;
  return c.html(part.toString(), 200, noStore);
}
