// Reads along what a test gets from the product. Credentials that it issues are written down, so that the search at the end of
// the run knows them. A refusal that shows a secret fails the test that received it, with the request's name.
import { appendFileSync } from "node:fs";
import { issuedIn, leaksIn } from "./leaks.ts";

export interface Watched {
  publicUrl: string;
  /** The deployment's own secrets, by name. */
  secrets: Readonly<Record<string, string>>;
  /** Where issued credentials are written down: lines of JSON, `[secret, what it is]`. */
  issuedFile: string;
}

/** Larger bodies are exports and pages of rows. */
const MAX_READ_BYTES = 200_000;

/** Replaces `fetch` of this process for the rest of it. */
export function watchFetch({ publicUrl, secrets, issuedFile }: Watched): void {
  const original = globalThis.fetch;
  const issued = new Map<string, string>();
  const note = (text: string): void => {
    const found = [...issuedIn(text)].filter(([secret]) => !issued.has(secret));
    if (found.length === 0) return;
    for (const [secret, kind] of found) issued.set(secret, kind);
    appendFileSync(issuedFile, found.map((pair) => `${JSON.stringify(pair)}\n`).join(""));
  };
  globalThis.fetch = async (input, init) => {
    const response = await original(input, init);
    const url = new URL(input instanceof Request ? input.url : input);
    // Routes below /test are the tests' own.
    if (url.origin !== publicUrl || url.pathname.startsWith("/test/")) return response;
    note([...response.headers].map(([, value]) => value).join("\n"));
    if (response.status >= 400) {
      const what = `${init?.method ?? "GET"} ${url.pathname}`;
      refuseLeaks(what, await response.clone().text(), { named: secrets, issued });
    } else if (isShort(response))
      // Not awaited: a test may read the answer while it is still being made.
      void response
        .clone()
        .text()
        .then(note)
        .catch(() => undefined);
    return response;
  };
}

function isShort({ headers }: Response): boolean {
  const isText = /^(application\/json|text\/html)/.test(headers.get("content-type") ?? "");
  return isText && Number(headers.get("content-length") ?? 0) < MAX_READ_BYTES;
}

/** Throws when a refusal shows a secret. */
export function refuseLeaks(what: string, text: string, secrets: Parameters<typeof leaksIn>[1]): void {
  const [leak] = leaksIn(text, secrets);
  if (leak !== undefined) throw new Error(`The refusal of ${what} shows ${leak}`);
}
