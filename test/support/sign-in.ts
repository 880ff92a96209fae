// A person with a browser without script, and MCP clients that send them to it.
import { createHash } from "node:crypto";
import { StreamableHTTPClientTransport as Transport1 } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { Client as Client1 } from "@modelcontextprotocol/sdk/client/index.js";
import type { OAuthClientProvider } from "@modelcontextprotocol/sdk/client/auth.js";
import { system } from "./flow.ts";
import { textOf } from "./html.ts";
import { PlainBrowser } from "./plain-browser.ts";

/** The browser of a test. */
export class Browser extends PlainBrowser {
  constructor() {
    super({ publicUrl: system.publicUrl, issuerUrl: system.issuerUrl });
  }

  /** The token of the browser's session at Tollgate. */
  get session(): string {
    return this.cookies(system.publicUrl).get("__Host-tollgate-session") ?? "";
  }

  /** The whole way of a person who lets a client in. Returns the URL at which the client waits. */
  async letIn(url: string, person: { sub: string; organisation?: string }, tenant?: string): Promise<URL> {
    const consent = await this.signIn(url, person);
    const to = await this.submit(consent, { decision: "allow", ...(tenant !== undefined && { tenant }) });
    if (!(to instanceof URL)) throw new Error(`no way back to the client: ${to.status} ${textOf(to.html)}`);
    return to;
  }
}

/** Whether a session's cookie opens Tollgate's pages. */
export async function isSignedIn(session: string): Promise<boolean> {
  const headers = { cookie: `__Host-tollgate-session=${session}` };
  return (await fetch(`${system.publicUrl}/sign-in`, { headers, redirect: "manual" })).status === 200;
}

/** A person at the local provider. */
export async function aPerson(organisations: readonly string[], more: Record<string, unknown> = {}): Promise<string> {
  const sub = `person-${crypto.randomUUID()}`;
  const response = await fetch(`${system.issuerUrl}/people/${sub}`, {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      ...{
        name: "A person",
        email: `${sub}@example.com`,
        organisations: organisations.map((id) => ({ id, name: id })),
      },
      ...more,
    }),
  });
  if (!response.ok) throw new Error(`the person was not made: ${response.status} ${await response.text()}`);
  return sub;
}

/** Where the tests' clients wait. Nothing listens there: the browser stops. */
export const REDIRECT = "http://127.0.0.1:45678/callback";

/** What an MCP client keeps of its authorization, in memory. The same object serves both SDKs. */
export class ClientMemory {
  clientInformationNow: unknown;
  tokensNow: { access_token: string; refresh_token?: string } | undefined;
  verifier = "";
  opened: URL | undefined;
  readonly redirectUrl = REDIRECT;
  readonly clientMetadata = {
    client_name: "A flow test",
    redirect_uris: [REDIRECT],
    token_endpoint_auth_method: "none",
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
  };
  readonly clientMetadataUrl?: string;

  constructor(documentUrl?: string) {
    if (documentUrl !== undefined) this.clientMetadataUrl = documentUrl;
  }

  state(): string {
    return "the state of the client";
  }
  clientInformation(): unknown {
    return this.clientInformationNow;
  }
  saveClientInformation(information: unknown): void {
    this.clientInformationNow = information;
  }
  tokens(): unknown {
    return this.tokensNow;
  }
  saveTokens(tokens: { access_token: string; refresh_token?: string }): void {
    this.tokensNow = tokens;
  }
  invalidateCredentials(which: string): void {
    if (which === "tokens" || which === "all") this.tokensNow = undefined;
    if (which === "client" || which === "all") this.clientInformationNow = undefined;
  }
  redirectToAuthorization(url: URL): void {
    this.opened = url;
  }
  saveCodeVerifier(verifier: string): void {
    this.verifier = verifier;
  }
  codeVerifier(): string {
    return this.verifier;
  }
}

/** A client of the first SDK that has signed in, after its first connection was refused. */
export async function signedInClient(
  person: { sub: string; organisation?: string },
  tenant?: string,
  browser = new Browser(),
): Promise<{ memory: ClientMemory; client: Client1 & AsyncDisposable }> {
  const memory = new ClientMemory();
  const provider = memory as unknown as OAuthClientProvider;
  const url = new URL(`${system.publicUrl}/mcp`);
  const refused = new Transport1(url, { authProvider: provider });
  const first = new Client1({ name: "flow-test", version: "1" });
  await first.connect(refused).then(
    () => {
      throw new Error("connected without a sign-in");
    },
    () => undefined,
  );
  if (memory.opened === undefined) throw new Error("the client opened no browser");
  const back = await browser.letIn(memory.opened.href, person, tenant);
  await refused.finishAuth(back.searchParams.get("code") ?? "");
  const client = new Client1({ name: "flow-test", version: "1" });
  await client.connect(new Transport1(url, { authProvider: provider }));
  return { memory, client: Object.assign(client, { [Symbol.asyncDispose]: () => client.close() }) };
}

export interface Asked {
  clientId: string;
  verifier: string;
  url: string;
}

/** Registers a client and makes its authorization request, without an SDK. */
export async function anAuthorization(redirectUri = REDIRECT, name = "A <client>"): Promise<Asked> {
  const registered = await fetch(`${system.publicUrl}/oauth/register`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      client_name: name,
      redirect_uris: [redirectUri],
      token_endpoint_auth_method: "none",
    }),
  });
  if (registered.status !== 201) throw new Error(`registration: ${registered.status} ${await registered.text()}`);
  const { client_id: clientId } = (await registered.json()) as { client_id: string };
  return authorizationOf(clientId, redirectUri);
}

/** Publishes a client's own document. Returns its URL, which is the client's id. */
export async function aPublishedClient(redirectUri: string, name: string): Promise<string> {
  const clientId = `https://agent.example/${crypto.randomUUID()}.json`;
  const published = await fetch(`${system.publicUrl}/test/document?url=${clientId}`, {
    method: "POST",
    body: JSON.stringify({
      ...{ client_id: clientId, client_name: name, redirect_uris: [redirectUri] },
      token_endpoint_auth_method: "none",
    }),
  });
  if (!published.ok) throw new Error(`the document was not published: ${published.status}`);
  return clientId;
}

/** The authorization request of a client with a document of its own. */
export async function aPublishedAuthorization(redirectUri: string, name: string): Promise<Asked> {
  return authorizationOf(await aPublishedClient(redirectUri, name), redirectUri);
}

function authorizationOf(clientId: string, redirectUri: string): Asked {
  const verifier = `${crypto.randomUUID()}${crypto.randomUUID()}`;
  const query = new URLSearchParams({
    ...{ response_type: "code", client_id: clientId, redirect_uri: redirectUri, state: "s1" },
    ...{ code_challenge: createHash("sha256").update(verifier).digest("base64url"), code_challenge_method: "S256" },
    ...{ scope: "tools:read", resource: `${system.publicUrl}/mcp` },
  });
  return { clientId, verifier, url: `${system.publicUrl}/oauth/authorize?${query.toString()}` };
}

/** A request to the token endpoint. */
export function token(fields: Record<string, string>): Promise<Response> {
  return fetch(`${system.publicUrl}/oauth/token`, { method: "POST", body: new URLSearchParams(fields) });
}

/** Exchanges the code with which the browser came back. */
export async function redeem(
  { clientId, verifier }: { clientId: string; verifier: string },
  back: URL,
): Promise<{ access_token: string; refresh_token: string; scope: string }> {
  const response = await token({
    ...{ grant_type: "authorization_code", client_id: clientId, code_verifier: verifier },
    ...{ code: back.searchParams.get("code") ?? "", redirect_uri: back.origin + back.pathname },
  });
  if (response.status !== 200) throw new Error(`tokens: ${response.status} ${await response.text()}`);
  return (await response.json()) as Awaited<ReturnType<typeof redeem>>;
}
