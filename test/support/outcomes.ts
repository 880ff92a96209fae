// What a request came to, as one short text: `401 invalid_token`, `400 page`, `client: code`. For tables of tests.
import type { Page } from "./plain-browser.ts";

/** An answer, a page, where a browser went, or several of them in order. */
export type Came = Response | Page | URL | string | readonly (Response | Page | URL | string)[];

/** The origin at which a test's client waits; a browser that goes to another one has been led away. */
export async function outcomeOf(came: Came, clientOrigins: readonly string[]): Promise<string> {
  if (typeof came === "string") return came;
  if (came instanceof URL) {
    const where = clientOrigins.includes(came.origin) ? "client" : `away to ${came.origin}`;
    return `${where}: ${came.searchParams.get("error") ?? (came.searchParams.has("code") ? "code" : "nothing")}`;
  }
  if ("html" in came) return `${came.status} page`;
  // The class of a test's own world is another one than that of `fetch`.
  if ("headers" in came) return `${came.status}${codeOf(await came.text())}`;
  const each: string[] = [];
  for (const one of came) each.push(await outcomeOf(one, clientOrigins));
  return each.join(", then ");
}

interface Body {
  code?: unknown;
  error?: unknown;
  result?: { isError?: boolean; _meta?: Record<string, { code?: string } | undefined> };
}

/** The code of a refusal in any of the forms in which Tollgate answers, with a space before it. */
function codeOf(text: string): string {
  let body: Body | null;
  try {
    body = JSON.parse(text) as Body | null;
  } catch {
    return "";
  }
  const refusal = body?.result?.isError === true ? body.result._meta?.["tollgate/refusal"]?.code : undefined;
  const error = body?.error;
  const inError =
    typeof error === "object" && error !== null ? (error as { data?: { code?: string } }).data?.code : error;
  const code = refusal ?? body?.code ?? inError;
  return typeof code === "string" ? ` ${code}` : "";
}
