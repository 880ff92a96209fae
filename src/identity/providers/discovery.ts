// Reads a provider's discovery document and key set before the provider is saved, so that a mistake shows while its author looks,
// and not at the first sign-in. A sign-in checks the document again.
import { OutsideFailure } from "../../core/errors.ts";
import { fetchFromProvider } from "../../adapters/provider-http.ts";
import { describeError, log } from "../../log.ts";
import { Discovered, type ProviderRequest, documentProblem, keySetProblem, requestProblem } from "./providers.ts";

/** OpenID Connect Discovery, section 4.1: the path comes behind the issuer, without the issuer's last slash. */
export function documentUrl(issuer: string): string {
  return `${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`;
}

/** The address of the provider's keys, or what is wrong with the provider, for the person who saves it. */
export async function checkProvider(
  request: Pick<ProviderRequest, "kind" | "issuer" | "subjectClaim" | "idJag">,
  publicUrl: string,
): Promise<{ jwksUrl: string } | { problem: string }> {
  const wrong = requestProblem(request, publicUrl);
  if (wrong !== undefined) return { problem: wrong };
  const url = documentUrl(request.issuer);
  const document = await readJson(url);
  if ("problem" in document) return { problem: `issuer: ${url} ${document.problem}` };
  const discovered = Discovered.safeParse(document.json);
  if (!discovered.success) return { problem: `issuer: ${url} is not a discovery document.` };
  const problem = documentProblem(discovered.data, request, publicUrl);
  if (problem !== undefined) return { problem: `issuer: ${problem}` };
  const jwksUrl = String(discovered.data.jwks_uri);
  const keys = await readJson(jwksUrl);
  if ("problem" in keys) return { problem: `issuer: Its key set ${jwksUrl} ${keys.problem}` };
  const unusable = keySetProblem(keys.json);
  return unusable === undefined ? { jwksUrl } : { problem: `issuer: ${unusable}` };
}

async function readJson(url: string): Promise<{ json: unknown } | { problem: string }> {
  try {
    const response = await fetchFromProvider(url);
    if (!response.ok) return { problem: `answers ${response.status}.` };
    return { json: await response.json() };
  } catch (error) {
    log("info", "provider_not_read", { host: new URL(url).host, error: describeError(error) });
    if (error instanceof OutsideFailure) return { problem: "answers with a redirect, or with too much." };
    return { problem: error instanceof SyntaxError ? "is not JSON." : "cannot be reached." };
  }
}
