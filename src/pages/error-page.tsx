// The page that says why a page cannot be shown, or why a sign-in has ended.
import type { Child } from "hono/jsx";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { config } from "../core/app-config.ts";
import { type ErrorCode, errors } from "../core/errors.ts";
import { type HttpContext, OUTAGE_RETRY_SECONDS } from "../http.ts";
import { personalPage } from "./layout.tsx";

export interface ErrorPageOptions {
  title: string;
  status: ContentfulStatusCode;
  /** What happened, and what the person can do. */
  text: Child;
  /** A link that may help. */
  link?: { url: string; text: string } | undefined;
  cookies?: readonly string[];
  /** Default: for an outage, as in other answers. */
  retryAfterSeconds?: number | undefined;
}

export async function errorPage(c: HttpContext, options: ErrorPageOptions): Promise<Response> {
  const { title, status, text, link, cookies = [] } = options;
  const { retryAfterSeconds = status === 503 ? OUTAGE_RETRY_SECONDS : undefined } = options;
  const page = await personalPage(
    c,
    { title, status, cookies },
    <div class="narrow">
      <p>{text}</p>
      {link !== undefined && (
        <p class="actions">
          <a class="button" href={link.url}>
            {link.text}
          </a>
        </p>
      )}
      <p>
        If it does not help, send <a href={config.product.supportUrl}>support</a> this number:{" "}
        <code>{c.get("requestId")}</code>
      </p>
    </div>,
  );
  if (retryAfterSeconds !== undefined) page.headers.set("retry-after", String(retryAfterSeconds));
  return page;
}

/** The page of an error code. `detail` is for the person. */
export function errorCodePage(
  c: HttpContext,
  code: ErrorCode,
  detail?: string,
  retryAfterSeconds?: number,
): Promise<Response> {
  const { status, advice } = errors[code];
  return errorPage(c, {
    title: status >= 500 ? "This does not work at the moment" : "This request cannot be answered",
    status: status as ContentfulStatusCode,
    text: detail ?? advice,
    retryAfterSeconds,
  });
}
