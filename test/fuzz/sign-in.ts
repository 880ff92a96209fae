// How the fuzzer's attacker gets a session and tokens of the OAuth server: the whole way of a person and a client, over HTTP.
import { createHash, randomUUID } from "node:crypto";

export interface Site {
  baseUrl: string;
  issuerUrl: string;
}

export const REDIRECT = "https://client.example/callback";

/** What a person with a client holds after a sign-in. */
export interface SignedIn {
  session: string;
  clientId: string;
  access: string;
  refresh: string;
  /** A code that was redeemed. Used again, it would end its grant, so it belongs to a grant of its own. */
  usedCode: string;
}

type Cookies = Map<string, string>;

/** One request of a browser. */
async function visit(url: URL | string, cookies: Cookies, form?: Record<string, string>): Promise<Response> {
  const response = await fetch(url, {
    redirect: "manual",
    headers: {
      cookie: [...cookies].map((pair) => pair.join("=")).join("; "),
      ...(form !== undefined && { origin: new URL(url).origin }),
    },
    ...(form !== undefined && { method: "POST", body: new URLSearchParams(form) }),
  });
  for (const each of response.headers.getSetCookie()) {
    const [name = "", value = ""] = each.split(";", 1)[0]?.split(/=(.*)/s) ?? [];
    cookies.set(name, value);
  }
  return response;
}

function locationOf(response: Response, from: string): URL {
  const location = response.headers.get("location");
  if (location === null) throw new Error(`${response.status} and no way on from ${from}`);
  return new URL(location, from);
}

const hiddenField = (html: string, name: string): string =>
  new RegExp(`name="${name}" value="(?<value>[^"]*)"`).exec(html)?.groups?.["value"] ?? "";

/** Signs a person in at the local provider, who lets a new client in twice. */
export async function signIn({ baseUrl, issuerUrl }: Site, sub: string, tenant: string): Promise<SignedIn> {
  const [cookies, atProvider]: [Cookies, Cookies] = [new Map(), new Map()];
  const toProvider = locationOf(await visit(`${baseUrl}/sign-in`, cookies), baseUrl);
  const callback = locationOf(await visit(toProvider, atProvider, { sub }), issuerUrl);
  await visit(callback, cookies);
  const session = cookies.get("__Host-tollgate-session");
  if (session === undefined) throw new Error("no session after the sign-in");
  const used = await letIn(baseUrl, cookies, tenant);
  const kept = await letIn(baseUrl, cookies, tenant);
  return { ...kept, session, usedCode: used.usedCode };
}

async function letIn(baseUrl: string, cookies: Cookies, tenant: string): Promise<Omit<SignedIn, "session">> {
  const client = { client_name: "Fuzz", redirect_uris: [REDIRECT], token_endpoint_auth_method: "none" };
  const headers = { "content-type": "application/json" };
  const registered = await fetch(`${baseUrl}/oauth/register`, {
    method: "POST",
    headers,
    body: JSON.stringify(client),
  });
  const { client_id: clientId } = (await registered.json()) as { client_id: string };
  const verifier = randomUUID() + randomUUID();
  const query = new URLSearchParams({
    ...{ response_type: "code", client_id: clientId, redirect_uri: REDIRECT, resource: `${baseUrl}/mcp` },
    ...{ code_challenge: createHash("sha256").update(verifier).digest("base64url"), code_challenge_method: "S256" },
  });
  const html = await (await visit(`${baseUrl}/oauth/authorize?${query.toString()}`, cookies)).text();
  const [handle, binding] = [hiddenField(html, "handle"), hiddenField(html, "binding")];
  const granted = await visit(`${baseUrl}/oauth/consent`, cookies, { handle, binding, tenant, decision: "allow" });
  const usedCode = decodeURIComponent(/[?;&]code=(?<code>[^&"]+)/.exec(await granted.text())?.groups?.["code"] ?? "");
  const fields = { grant_type: "authorization_code", client_id: clientId, code: usedCode, redirect_uri: REDIRECT };
  const body = new URLSearchParams({ ...fields, code_verifier: verifier });
  const tokens = await fetch(`${baseUrl}/oauth/token`, { method: "POST", body });
  if (tokens.status !== 200) throw new Error(`no tokens: ${tokens.status} ${await tokens.text()}`);
  const issued = (await tokens.json()) as { access_token: string; refresh_token: string };
  return { clientId, access: issued.access_token, refresh: issued.refresh_token, usedCode };
}
