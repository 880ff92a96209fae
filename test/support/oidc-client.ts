// The whole way of a web application that signs people in at an OpenID provider on this machine: discovery, request, the
// sign-in page, callback, code, tokens and refresh, with oauth4webapi and a browser without script.
import * as oauth from "oauth4webapi";

/** Registered for any loopback port. */
export const REDIRECT = "http://127.0.0.1:41234/callback";
/** Providers on this machine have no TLS. */
export const http = { [oauth.allowInsecureRequests]: true };
/** The application. Its secret has characters that each encoding treats differently. */
export const web = {
  id: "web",
  name: "Web & <Co>",
  secret: "a secret: with +/ é",
  redirectUris: ["http://127.0.0.1/callback"],
};

/** A browser without script: it follows no redirect, keeps cookies, and presses one button. */
export class Browser {
  readonly cookies = new Map<string, string>();

  async fetch(url: string, init: RequestInit = {}): Promise<Response> {
    const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const response = await fetch(url, { ...init, redirect: "manual", headers: { cookie } });
    for (const each of response.headers.getSetCookie()) {
      const { name = "", value = "" } = /^(?<name>[^=]+)=(?<value>[^;]*)/.exec(each)?.groups ?? {};
      this.cookies.set(name, value);
    }
    return response;
  }

  /** Opens the URL. On the sign-in page, presses the first button of the person (for the organisation). */
  async signIn(url: string, pick: { sub: string; organisation?: string }): Promise<URL> {
    const opened = await this.fetch(url);
    if (opened.status !== 200) return locationOf(opened);
    const page = await opened.text();
    const forms = [...page.matchAll(/<form method="post" action="(?<action>[^"]*)">(?<fields>.*?)<\/form>/gs)];
    const fieldsOf = (html = ""): URLSearchParams =>
      new URLSearchParams(
        [...html.matchAll(/name="(?<name>\w+)" value="(?<value>[^"]*)"/g)].map(({ groups }) => [
          groups?.["name"] ?? "",
          groups?.["value"] ?? "",
        ]),
      );
    const form = forms.find(({ groups }) => {
      const fields = fieldsOf(groups?.["fields"]);
      const organisation = pick.organisation ?? fields.get("organisation");
      return fields.get("sub") === pick.sub && fields.get("organisation") === organisation;
    });
    if (form === undefined) throw new Error(`no button for ${JSON.stringify(pick)}`);
    const action = new URL((form.groups?.["action"] ?? "").replaceAll("&amp;", "&"), url);
    return locationOf(await this.fetch(action.href, { method: "POST", body: fieldsOf(form.groups?.["fields"]) }));
  }
}

export function locationOf(response: Response): URL {
  const location = response.headers.get("location");
  if (location === null) throw new Error(`answered ${response.status} without a redirect`);
  return new URL(location);
}

export async function discover(url: string, algorithm: "oidc" | "oauth2" = "oidc"): Promise<oauth.AuthorizationServer> {
  const identifier = new URL(url);
  const response = await oauth.discoveryRequest(identifier, { algorithm, ...http });
  return await oauth.processDiscoveryResponse(identifier, response);
}

export interface Flow {
  server: oauth.AuthorizationServer;
  client: oauth.Client;
  authentication: oauth.ClientAuth;
  verifier: string;
  nonce: string;
  state: string;
  url: URL;
}

/** An authorization request, as oauth4webapi's documentation builds it. */
export async function begin(
  server: oauth.AuthorizationServer,
  parameters: Record<string, string> = {},
  {
    client = { client_id: web.id },
    authentication = oauth.ClientSecretBasic(web.secret),
  }: {
    client?: oauth.Client;
    authentication?: oauth.ClientAuth;
  } = {},
): Promise<Flow> {
  const [verifier, nonce, state] = [
    oauth.generateRandomCodeVerifier(),
    oauth.generateRandomNonce(),
    oauth.generateRandomState(),
  ];
  const url = new URL(server.authorization_endpoint ?? "");
  const all = {
    client_id: client.client_id,
    redirect_uri: REDIRECT,
    response_type: "code",
    scope: "openid profile email",
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
    ...{ nonce, state },
    ...parameters,
  };
  for (const [name, value] of Object.entries(all)) url.searchParams.set(name, value);
  return { server, client, authentication, verifier, nonce, state, url };
}

/** Exchanges the code of a callback, and validates the answer and the ID token with its signature. */
export async function exchange(flow: Flow, callback: URL): Promise<oauth.TokenEndpointResponse> {
  const parameters = oauth.validateAuthResponse(flow.server, flow.client, callback, flow.state);
  const response = await oauth.authorizationCodeGrantRequest(
    flow.server,
    flow.client,
    flow.authentication,
    parameters,
    REDIRECT,
    flow.verifier,
    http,
  );
  const tokens = await oauth.processAuthorizationCodeResponse(flow.server, flow.client, response, {
    expectedNonce: flow.nonce,
    requireIdToken: true,
  });
  await oauth.validateApplicationLevelSignature(flow.server, response, http);
  return tokens;
}

export async function refresh(
  flow: Flow,
  token = "",
  parameters: Record<string, string> = {},
): Promise<oauth.TokenEndpointResponse> {
  const { server, client, authentication } = flow;
  const response = await oauth.refreshTokenGrantRequest(server, client, authentication, token, {
    additionalParameters: parameters,
    ...http,
  });
  return await oauth.processRefreshTokenResponse(server, client, response);
}

/** The whole way at once. */
export async function signIn(
  server: oauth.AuthorizationServer,
  pick: { sub: string; organisation?: string },
  parameters: Record<string, string> = {},
): Promise<{ flow: Flow; tokens: oauth.TokenEndpointResponse }> {
  const flow = await begin(server, parameters);
  return { flow, tokens: await exchange(flow, await new Browser().signIn(flow.url.href, pick)) };
}

/** The claims of the ID token, which is validated. */
export function idClaims(tokens: oauth.TokenEndpointResponse): oauth.IDToken | undefined {
  return oauth.getValidatedIdTokenClaims(tokens);
}
