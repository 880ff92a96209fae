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
  { headers, method, body, signal: given }: ProviderRequestInit = {},
): Promise<Response> {
  const signal = given ?? AbortSignal.timeout(PROVIDER_TIMEOUT_MS);
  const response = await fetch(url, {
    headers: headers ?? { accept: "application/json" },
    method: method ?? "GET",
    ...(body !== undefined && { body }),
    redirect: "manual",
    signal,
  });
  if (response.status >= 300 && response.status < 400) {
    await response.body?.cancel();
    throw new OutsideFailure("internal", "a provider answers with a redirect", "permanent");
  }
  const type = response.headers.get("content-type");
  const tooLarge = new OutsideFailure("internal", "a provider's answer is too large", "permanent");
  const whole = response.body && (await wholeBody(response.body, { maxBytes: MAX_ANSWER_BYTES, tooLarge, signal }));
  return new Response(whole, {
    status: response.status,
    ...(type !== null && { headers: { "content-type": type } }),
  });
}

/**
 * The body in memory. Stops to read, and throws `tooLarge`, as soon as it has more than `maxBytes`. Throws when `signal` fires, also
 * while the next part does not come.
 */
export async function wholeBody(
  body: ReadableStream<Uint8Array>,
  { maxBytes, tooLarge, signal }: { maxBytes: number; tooLarge: Error; signal: AbortSignal },
): Promise<Uint8Array<ArrayBuffer>> {
  const reader = body.getReader();
  const { promise: ended, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(new Error("the answer was aborted"));
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await Promise.race([reader.read(), ended]);
      if (done) break;
      size += value.byteLength;
      if (size > maxBytes) throw tooLarge;
      parts.push(value);
    }
  } catch (error) {
    reader.cancel().catch(() => undefined);
    throw error;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
  const whole = new Uint8Array(size);
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.byteLength;
  }
  return whole;
}
