// Clients of the local issuer: registered at start or by RFC 7591. Decides which redirect URIs and which credentials a client
// may use. Invariants: a redirect URI matches character by character, except for the port of a loopback address; a client
// with a secret must send it. Pure.
import * as z from "zod";

export interface Client {
  id: string;
  /** The sign-in page shows it. */
  name: string;
  /** `undefined`: a public client, which authenticates with PKCE alone. */
  secret: string | undefined;
  redirectUris: readonly string[];
  /** Whether the client may refresh. */
  refreshes: boolean;
  /** The client's id at the other server, for ID-JAG assertions: what a real provider has in its configuration. */
  idElsewhere?: string;
}

/** An error of RFC 6749, RFC 7591 or RFC 8707, with a description for developers. */
export interface OAuthError {
  error: string;
  description: string;
}

/** Schemes that run code or read files where a browser follows them. */
const DANGEROUS_SCHEMES = /^(javascript|data|vbscript|file|blob|about):/i;
const LOOPBACK = /^http:\/\/(?<host>127\.0\.0\.1|\[::1\]|localhost)(?::\d{1,5})?(?<rest>[/?].*)?$/;

/** Whether a client that registered `registered` may use `given` as its redirect URI. */
export function matchesRedirect(registered: string, given: string): boolean {
  if (registered === given) return true;
  const [ours, theirs] = [LOOPBACK.exec(registered)?.groups, LOOPBACK.exec(given)?.groups];
  // RFC 8252, section 7.3: a native app gets its port from the operating system.
  return ours !== undefined && ours["host"] === theirs?.["host"] && ours["rest"] === theirs?.["rest"];
}

/** Why a client cannot register this redirect URI; `undefined`: it can. Private schemes such as `cursor:` are fine. */
export function redirectProblem(uri: string): string | undefined {
  if (!URL.canParse(uri)) return `${uri} is not an absolute URL`;
  if (uri.includes("#")) return `${uri} has a fragment`;
  const { protocol, username, password } = new URL(uri);
  if (username !== "" || password !== "") return `${uri} has a user name or a password`;
  if (DANGEROUS_SCHEMES.test(uri)) return `${protocol} is not allowed`;
  if (protocol === "http:" && !LOOPBACK.test(uri)) return `${uri} is neither https: nor a loopback address`;
  return undefined;
}

/** Parts of RFC 7591 that the issuer reads. Clients may send others, which it ignores. */
export const Registration = z.looseObject({
  redirect_uris: z.array(z.string().max(2_000)).min(1).max(20),
  client_name: z.string().trim().min(1).max(200).optional(),
  token_endpoint_auth_method: z
    .enum(["none", "client_secret_basic", "client_secret_post"])
    .default("client_secret_basic"),
  grant_types: z.array(z.string()).max(10).default(["authorization_code"]),
  response_types: z.array(z.string()).max(10).default(["code"]),
  /** The local issuer's own: see `Client`. */
  audience_client_id: z.string().max(300).optional(),
});
export type Registration = z.output<typeof Registration>;

/** The error of a registration that cannot be accepted, or `undefined`. */
export function registrationProblem({ redirect_uris, response_types }: Registration): OAuthError | undefined {
  const problem = redirect_uris.map(redirectProblem).find((each) => each !== undefined);
  if (problem !== undefined) return { error: "invalid_redirect_uri", description: problem };
  if (!response_types.includes("code"))
    return { error: "invalid_client_metadata", description: "response_types must include code" };
  return undefined;
}

/** The values of a form or a query. RFC 6749, section 3.1: a parameter must not come twice. `resource` may (RFC 8707). */
export function readParameters(parameters: URLSearchParams): {
  values: Map<string, string>;
  twice: readonly string[];
} {
  const values = new Map<string, string>();
  const seen = new Set<string>();
  const twice: string[] = [];
  for (const [name, value] of parameters) {
    if (seen.has(name) && name !== "resource") twice.push(name);
    seen.add(name);
    // RFC 6749, section 3.1: an empty parameter counts as absent.
    if (value !== "" && !values.has(name)) values.set(name, value);
  }
  return { values, twice };
}

export type Authenticated = { client: Client } | { refused: OAuthError; usedHeader: boolean };

/** The client that sends a token request, by its `Authorization` header or its form. */
export function authenticateClient(
  authorization: string | undefined,
  form: ReadonlyMap<string, string>,
  findClient: (id: string) => Client | undefined,
): Authenticated {
  const usedHeader = authorization !== undefined;
  const refuse = (error: string, description: string): Authenticated => ({
    refused: { error, description },
    usedHeader,
  });
  const inHeader = authorization === undefined ? undefined : basicCredentials(authorization);
  if (usedHeader && inHeader === undefined) return refuse("invalid_client", "the Authorization header is not Basic");
  if (inHeader !== undefined && form.has("client_secret"))
    return refuse("invalid_request", "the client authenticates in two ways");
  if (inHeader !== undefined && (form.get("client_id") ?? inHeader.id) !== inHeader.id)
    return refuse("invalid_request", "client_id differs from the Authorization header");
  const id = inHeader?.id ?? form.get("client_id");
  const secret = inHeader?.secret ?? form.get("client_secret");
  if (id === undefined) return refuse("invalid_client", "client_id is missing");
  const client = findClient(id);
  if (client === undefined) return refuse("invalid_client", "this client is not registered");
  if (client.secret !== secret)
    return refuse("invalid_client", secret === undefined ? "the client's secret is missing" : "the secret is wrong");
  return { client };
}

/** RFC 6749, section 2.3.1: both parts are form-encoded before they are joined. */
function basicCredentials(authorization: string): { id: string; secret: string } | undefined {
  const encoded = /^Basic (?<credentials>[A-Za-z0-9+/]+=*)$/i.exec(authorization)?.groups?.["credentials"];
  if (encoded === undefined) return undefined;
  const [id, ...secret] = Buffer.from(encoded, "base64").toString("utf8").split(":");
  if (id === undefined || id === "" || secret.length === 0) return undefined;
  try {
    return { id: formDecoded(id), secret: formDecoded(secret.join(":")) };
  } catch {
    return undefined;
  }
}

function formDecoded(text: string): string {
  return decodeURIComponent(text.replaceAll("+", " "));
}
