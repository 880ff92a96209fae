// Decides what an authorization request is answered with: a page that says what is wrong, an error to the client, the sign-in
// page, or a signed-in person. Pure: the caller passes clients, people, the browser's session and the time.
// Invariants: nothing is sent to a redirect URI that the client did not register; each request needs PKCE with S256; only a
// person that the sign-in page offers can sign in.
import { type Client, type OAuthError, matchesRedirect, readParameters } from "./clients.ts";
import type { Person } from "./people.ts";
import type { Asked, Identity, Provider } from "./provider.ts";

export interface AuthorizationRequest extends Asked {
  client: Client;
  redirectUri: string;
  state: string | undefined;
  nonce: string | undefined;
  /** S256. */
  challenge: string;
  prompts: readonly string[];
  loginHint: string | undefined;
  maxAgeS: number | undefined;
  /** The API that the access token will be for. */
  grantedAudience: string | undefined;
}

/** Who is signed in at this browser. */
export interface Session {
  sub: string;
  organisation: string | undefined;
  authTimeS: number;
}

/** The button that was pressed on the sign-in page. */
export interface Choice {
  sub: string;
  organisation: string | undefined;
}

export type Answer =
  /** The redirect URI is unproven, or the provider shows this error itself. */
  | { kind: "page"; title: string; message: string }
  | { kind: "error"; location: string }
  | { kind: "sign-in"; request: AuthorizationRequest; choices: Identity[] }
  | { kind: "signed-in"; request: AuthorizationRequest; identity: Identity; authTimeS: number };

export interface Visit {
  provider: Provider;
  /** Entra's name or id of a directory; `undefined` elsewhere. */
  directory: string | undefined;
  parameters: URLSearchParams;
  findClient: (id: string) => Client | undefined;
  people: readonly Person[];
  session: Session | undefined;
  /** `undefined`: the page was opened, and no button pressed. */
  pick: Choice | undefined;
  nowS: number;
}

/** The answer to a visit of the authorization endpoint. */
export function answerVisit(visit: Visit): Answer {
  const { provider, directory, people, pick, nowS } = visit;
  const read = readRequest(visit);
  if ("kind" in read) return read;
  const { request } = read;
  const choices = provider.choices(request, people, directory);
  const denied = (identity: Identity): Answer | undefined => {
    const refusal = provider.refusal(request, identity);
    return refusal && errorAnswer(provider, request, refusal);
  };
  if (pick !== undefined) {
    const identity = choices.find(
      ({ person, organisation }) => person.sub === pick.sub && organisation === pick.organisation,
    );
    if (identity === undefined)
      return page("Sign-in failed", "This person cannot sign in here. Go back and choose one.");
    return denied(identity) ?? { kind: "signed-in", request, identity, authTimeS: nowS };
  }
  const current = currentIdentity(visit, request, choices);
  if (current !== undefined) return denied(current.identity) ?? { kind: "signed-in", request, ...current };
  if (request.prompts.includes("none"))
    return errorAnswer(provider, request, {
      error: "login_required",
      description: "prompt=none, and no person is signed in",
    });
  return { kind: "sign-in", request, choices: hintedFirst(choices, request.loginHint) };
}

/** The redirect that gives the client its code. */
export function successLocation(
  provider: Provider,
  request: AuthorizationRequest,
  code: string,
  issuer: string,
): string {
  return location(request, { code, ...(provider.sendsIssuer && { iss: issuer }) });
}

/** Checks the request in the order in which trust grows: the client, its redirect URI, then the rest. */
function readRequest({
  provider,
  directory,
  parameters,
  findClient,
  people,
}: Visit): { request: AuthorizationRequest } | Answer {
  const { values, twice } = readParameters(parameters);
  if (!provider.hasDirectory(directory, people))
    return page("Unknown directory", `AADSTS90002: Tenant '${directory}' not found.`);
  // A second value could be the one that was checked, or the one that is used.
  const unsafe = twice.find((name) => name === "client_id" || name === "redirect_uri");
  if (unsafe !== undefined) return page("Malformed request", `${unsafe} is there twice.`);
  const clientId = values.get("client_id");
  const client = clientId === undefined ? undefined : findClient(clientId);
  if (client === undefined) {
    const reason = clientId === undefined ? "client_id is missing." : `No client has the id ${clientId}.`;
    return page("Unknown client", reason);
  }
  const redirectUri = values.get("redirect_uri");
  if (redirectUri === undefined) return page("Malformed request", "redirect_uri is missing.");
  if (!client.redirectUris.some((registered) => matchesRedirect(registered, redirectUri)))
    return page("Redirect refused", `${client.name} has not registered ${redirectUri}.`);

  const state = values.get("state");
  const refuse = (error: string, description: string): Answer =>
    errorAnswer(provider, { redirectUri, state }, { error, description });
  if (twice.length > 0) return refuse("invalid_request", `${twice.join(" and ")} is there twice`);
  for (const name of ["request", "request_uri"]) {
    if (values.has(name)) return refuse(`${name}_not_supported`, "request objects are not supported");
  }
  const responseType = values.get("response_type");
  if (responseType === undefined) return refuse("invalid_request", "response_type is missing");
  if (responseType !== "code") return refuse("unsupported_response_type", "only response_type=code is supported");
  if ((values.get("response_mode") ?? "query") !== "query")
    return refuse("invalid_request", "only response_mode=query is supported");
  const challenge = values.get("code_challenge");
  if (challenge === undefined || values.get("code_challenge_method") !== "S256")
    return refuse("invalid_request", "PKCE with code_challenge_method=S256 is required");
  if (!/^[\w-]{43}$/.test(challenge)) return refuse("invalid_request", "code_challenge is not a SHA-256 in base64url");
  const prompts = words(values.get("prompt")) ?? [];
  const unknown = prompts.find((prompt) => !["none", "login", "select_account", "consent"].includes(prompt));
  if (unknown !== undefined) return refuse("invalid_request", `prompt=${unknown} is unknown`);
  if (prompts.includes("none") && prompts.length > 1)
    return refuse("invalid_request", "prompt=none excludes other values");
  const maxAge = values.get("max_age");
  if (maxAge !== undefined && !/^\d{1,9}$/.test(maxAge))
    return refuse("invalid_request", "max_age is not a number of seconds");

  const asked: Asked = {
    scopes: words(values.get("scope")),
    audience: values.get("audience"),
    resources: parameters.getAll("resource").filter((resource) => resource !== ""),
    organization: values.get("organization"),
  };
  const granted = provider.audience(asked);
  if ("refused" in granted) return errorAnswer(provider, { redirectUri, state }, granted.refused);
  return {
    request: {
      ...asked,
      ...{ client, redirectUri, state, challenge, prompts },
      nonce: values.get("nonce"),
      loginHint: values.get("login_hint"),
      maxAgeS: maxAge === undefined ? undefined : Number(maxAge),
      grantedAudience: granted.audience,
    },
  };
}

/** The session's person, when the request allows to continue without the page. */
function currentIdentity(
  { session, nowS }: Visit,
  { prompts, loginHint, maxAgeS }: AuthorizationRequest,
  choices: readonly Identity[],
): { identity: Identity; authTimeS: number } | undefined {
  if (session === undefined || prompts.some((prompt) => prompt !== "none")) return undefined;
  if (maxAgeS !== undefined && nowS - session.authTimeS >= maxAgeS) return undefined;
  const own = choices.filter(({ person }) => person.sub === session.sub);
  const identity =
    own.find(({ organisation }) => organisation === session.organisation) ?? (own.length === 1 ? own[0] : undefined);
  if (identity === undefined || (loginHint !== undefined && !isHinted(identity, loginHint))) return undefined;
  return { identity, authTimeS: session.authTimeS };
}

/** Whether `login_hint` means this person: by e-mail address or `sub`. */
export function isHinted({ person }: Identity, hint: string): boolean {
  return person.email.toLowerCase() === hint.toLowerCase() || person.sub === hint;
}

function hintedFirst(choices: Identity[], hint: string | undefined): Identity[] {
  if (hint === undefined) return choices;
  return [...choices.filter((each) => isHinted(each, hint)), ...choices.filter((each) => !isHinted(each, hint))];
}

function errorAnswer(
  provider: Provider,
  request: Pick<AuthorizationRequest, "redirectUri" | "state">,
  { error, description }: OAuthError,
): Answer {
  const issuer = provider.sendsIssuer ? { iss: provider.issuer(undefined) } : {};
  return { kind: "error", location: location(request, { error, error_description: description, ...issuer }) };
}

function location(
  { redirectUri, state }: Pick<AuthorizationRequest, "redirectUri" | "state">,
  parameters: Record<string, string>,
): string {
  const url = new URL(redirectUri);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  if (state !== undefined) url.searchParams.set("state", state);
  return url.href;
}

function page(title: string, message: string): Answer {
  return { kind: "page", title, message };
}

function words(text: string | undefined): string[] | undefined {
  return text?.split(" ").filter((word) => word !== "");
}
