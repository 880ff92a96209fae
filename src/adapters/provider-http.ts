// Requests to the providers at which people sign in. Tenants name some of them, so an answer is bounded in time and size, and no
// redirect is followed: a provider's document names its endpoints, and a redirect could lead to any other host. Cloudflare's
// network reaches public addresses only, also where a name resolves to a private one.
import { OutsideFailure } from "../core/errors.ts";

/** A person waits for it. Providers answer within a second. */
export const PROVIDER_TIMEOUT_MS = 10_000;
/** Discovery documents have some 5 KB, and key sets of Microsoft's some 20 KB. */
const MAX_ANSWER_BYTES = 262_144;

interface ProviderRequestInit {
  headers?: HeadersInit;
  method?: string;
  body?: BodyInit | null | undefined;
  signal?: AbortSignal | null | undefined;
}

/** As `fetch`. Throws `OutsideFailure` for a redirect, and for an answer that is too large. */
export async function fetchFromProvider(
  url: string,
  { headers, method, body, signal }: ProviderRequestInit = {},
): Promise<Response> {
  const response = await fetch(url, {
    headers: headers ?? { accept: "application/json" },
    method: method ?? "GET",
    ...(body !== undefined && { body }),
    redirect: "manual",
    signal: signal ?? AbortSignal.timeout(PROVIDER_TIMEOUT_MS),
  });
  if (response.status >= 300 && response.status < 400) {
    await response.body?.cancel();
    throw new OutsideFailure("internal", "a provider answers with a redirect", "permanent");
  }
  const type = response.headers.get("content-type");
  return new Response(await bounded(response), {
    status: response.status,
    ...(type !== null && { headers: { "content-type": type } }),
  });
}

/** The body, if it is not too large. */
async function bounded(response: Response): Promise<Uint8Array<ArrayBuffer> | null> {
  if (response.body === null) return null;
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of response.body) {
    size += part.byteLength;
    // Leaving the loop cancels the rest.
    if (size > MAX_ANSWER_BYTES) throw new OutsideFailure("internal", "a provider's answer is too large", "permanent");
    parts.push(part);
  }
  const whole = new Uint8Array(size);
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.byteLength;
  }
  return whole;
}
