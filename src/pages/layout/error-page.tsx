// The answer to what a handler throws: a problem document (RFC 9457), or a page where people open the route in a browser. Without
// a session such a page leads to the sign-in, and back. Pages say with `errorPage` why they cannot continue.
import type { Child } from "hono/jsx";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { config } from "../../core/app-config.ts";
import { AppError, type ErrorCode, errorCode, errors } from "../../core/errors.ts";
import {
  type HttpContext,
  OUTAGE_RETRY_SECONDS,
  Problem,
  TooManyRequests,
  challengeOf,
  problemDocument,
} from "../../http.ts";
import { describeError, log } from "../../log.ts";
import { personalPage } from "./layout.tsx";
import { refusedFailure } from "../../identity/address-rate.ts";

export interface ErrorPageOptions {
  title: string;
  status: ContentfulStatusCode;
  /** What happened, and what the person can do. */
  text: Child;
  code?: ErrorCode | undefined;
  /** A link that may help. */
  link?: { url: string; text: string } | undefined;
  cookies?: readonly string[];
  /** Default: for an outage, as in other answers. */
  retryAfterSeconds?: number | undefined;
}

export async function errorPage(c: HttpContext, options: ErrorPageOptions): Promise<Response> {
  const { title, status, text, link, code, cookies = [] } = options;
  const { retryAfterSeconds = status === 503 ? OUTAGE_RETRY_SECONDS : undefined } = options;
  const page = await personalPage(
    c,
    { title, status, code, cookies },
    <div class="narrow">
      <p>{text}</p>
      {link !== undefined && (
        <p class="actions">
          <a class="button" href={link.url}>
            {link.text}
          </a>
        </p>
      )}
      <p class="small muted">
        If it does not help, send <a href={config.product.supportUrl}>support</a> the number of this request:{" "}
        <span class="code">{c.get("requestId")}</span>
      </p>
    </div>,
  );
  if (retryAfterSeconds !== undefined) page.headers.set("retry-after", String(retryAfterSeconds));
  return page;
}

const titles: Readonly<Record<number, string>> = {
  403: "You have no access to this page",
  404: "Page not found",
  429: "Too many requests",
};

/** Where a person continues who cannot have the page. */
function placeOf(c: HttpContext): { url: string; text: string } {
  const [, first] = c.req.path.split("/");
  if (first === "admin") return { url: "/admin", text: "The operator's overview" };
  if (first === "app") return { url: "/app", text: "Your organisations" };
  return { url: "/", text: "Home" };
}

/** The answer where there is no route: a page for people who open the address in a browser, and a problem document for programs. */
export function answerNotFound(c: HttpContext): Response | Promise<Response> {
  const isOpened = c.req.method === "GET" || c.req.method === "HEAD";
  const takesPages = c.req.header("accept")?.includes("text/html") === true;
  return isOpened && takesPages ? errorCodePage(c, "not_found") : problemDocument(c, "not_found");
}

/** The page of an error code. `detail` is for the person. */
export async function errorCodePage(
  c: HttpContext,
  code: ErrorCode,
  detail?: string,
  retryAfterSeconds?: number,
): Promise<Response> {
  const { status, advice } = errors[code];
  c.set("code", code);
  const page = await errorPage(c, {
    title: status >= 500 ? "This does not work at the moment" : (titles[status] ?? "This request cannot be answered"),
    link: status === 403 || status === 404 ? placeOf(c) : undefined,
    status: status as ContentfulStatusCode,
    text: detail ?? advice,
    code,
    retryAfterSeconds,
  });
  if (status === 401) page.headers.set("www-authenticate", challengeOf(code));
  return page;
}

/** Answers an error in the words for its code. The log has what happened. */
export function answerError(
  c: HttpContext,
  error: Error,
  { isPage }: { isPage: boolean },
): Response | Promise<Response> {
  const code = errorCode(error);
  const level = errors[code].status >= 500 ? "error" : "info";
  if (isPage && needsSignIn(c, code)) {
    const { pathname, search } = new URL(c.req.url);
    c.set("code", code);
    // The operator's people sign in elsewhere.
    const signIn = /^\/admin(?:\/|$)/.test(pathname) ? "/admin/sign-in" : "/sign-in";
    return c.redirect(`${signIn}?return=${encodeURIComponent(pathname + search)}`, 303);
  }
  const detail = error instanceof Problem ? error.message : undefined;
  const retryAfterSeconds = error instanceof TooManyRequests ? error.retryAfterSeconds : undefined;
  if (detail === undefined || level === "error") logFailure(c, code, error);
  return isPage
    ? errorCodePage(c, code, detail, retryAfterSeconds)
    : problemDocument(c, code, detail, retryAfterSeconds);
}

/** A page that a person opens without a session, or after it has ended. A form's fields would be lost: its refusal is a page. */
function needsSignIn(c: HttpContext, code: ErrorCode): boolean {
  const isOpened = c.req.method === "GET" || c.req.method === "HEAD";
  return isOpened && errors[code].status === 401 && c.req.header("authorization") === undefined;
}

/**
 * Refuses a wrong credential of an address that has sent too many. The refusal takes the place of the answer, whose headers go with
 * it: a challenge would ask for another try.
 */
export async function limitFailures(c: HttpContext): Promise<void> {
  const refused = await refusedFailure(c);
  if (refused === undefined) return;
  const origins = c.res.headers.get("access-control-allow-origin");
  await c.res.body?.cancel();
  c.res = undefined;
  c.res = await answerError(c, refused, { isPage: c.get("isPage") === true });
  if (origins !== null) c.res.headers.set("access-control-allow-origin", origins);
}

function logFailure(c: HttpContext, code: ErrorCode, error: Error): void {
  const requestId = c.get("requestId");
  const level = errors[code].status >= 500 ? "error" : "info";
  log(level, "request_failed", { requestId, path: c.req.routePath, code, error: describeError(error) });
  if (error instanceof AppError && error.cause !== undefined && level === "error")
    log(level, "request_failed_because", { requestId, error: describeError(error.cause) });
}
