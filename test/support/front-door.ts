// The two tenants, people and credentials that the table of attacks on the front door uses, and an identity provider of its own,
// whose tokens can be wrong in any way.
import { createHash, createHmac, generateKeyPairSync, sign } from "node:crypto";
import { request } from "node:http";
import { type Listening, serveOnLoopback } from "../../dev/loopback.ts";
import { aJwt, aTenant, operator, system } from "./flow.ts";
import type { Page } from "./plain-browser.ts";
import { Browser, REDIRECT, aPerson, anAuthorization, token } from "./sign-in.ts";

export interface Side {
  id: string;
  apiKey: string;
  /** A browser in which the owner is signed in. */
  owner: Browser;
  /** The owner's token of the local provider. */
  ownerToken: string;
  /** A key of the owner's that manages the account. */
  adminKey: { id: string; apiKey: string };
}

/** Sends a request to the product, with any headers. */
export function send(method: string, path: string, headers: Record<string, string> = {}, body?: unknown) {
  const isText = typeof body === "string" || body instanceof URLSearchParams;
  return fetch(system.publicUrl + path, {
    method,
    redirect: "manual",
    headers: { ...(body !== undefined && !isText && { "content-type": "application/json" }), ...headers },
    ...(body !== undefined && { body: isText ? body : JSON.stringify(body) }),
  });
}

export const bearer = (credential: string): Record<string, string> => ({ authorization: `Bearer ${credential}` });

/** A browser's cookies at Tollgate, as a header. */
export const cookies = (browser: Browser): Record<string, string> => ({
  cookie: [...browser.cookies(system.publicUrl)].map((pair) => pair.join("=")).join("; "),
});

export const emailOf = (sub: string): string => `${sub}@example.com`;

/** A tenant with an owner who has signed in, in a browser and with a token. */
export async function aSide(): Promise<Side> {
  const tenant = await aTenant();
  const sub = await aPerson([]);
  await operator("POST", `/tenants/${tenant.id}/members`, { email: emailOf(sub) });
  const owner = new Browser();
  await owner.signIn(`${system.publicUrl}/sign-in`, { sub });
  const ownerToken = await aJwt({ sub, tenant_id: tenant.id, scopes: ["tools:read", "tenant:admin"] });
  const made = await send("POST", `/api/tenants/${tenant.id}/keys`, bearer(ownerToken), {
    scopes: ["tools:read", "tenant:admin"],
  });
  if (made.status !== 201) throw new Error(`no admin key: ${made.status} ${await made.text()}`);
  return { ...tenant, owner, ownerToken, adminKey: (await made.json()) as Side["adminKey"] };
}

/** The same header several times, which `fetch` would join itself. Answers with the status. */
export function sendRaw(path: string, headers: string[]): Promise<string> {
  const { hostname, port } = new URL(system.publicUrl);
  return new Promise((resolve, reject) => {
    const sent = request({ hostname, port, path, headers: ["Host", `${hostname}:${port}`, ...headers] }, (response) => {
      response.resume();
      response.on("end", () => resolve(String(response.statusCode)));
    });
    sent.on("error", reject);
    sent.end();
  });
}

const rs256 = generateKeyPairSync("rsa", { modulusLength: 2_048 });
const mallorys = generateKeyPairSync("rsa", { modulusLength: 2_048 });
const encoded = (value: unknown): string =>
  Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

export const ISSUER = "https://idp-of-attacks.example";
export const mallorysJwk = { ...mallorys.publicKey.export({ format: "jwk" }), kid: "mallory", alg: "RS256" };

/** How the signature is made: by the provider's key, by another's, by a secret, or not at all. */
const signatures = {
  own: (text: string): string => sign("sha256", Buffer.from(text), rs256.privateKey).toString("base64url"),
  mallorys: (text: string): string => sign("sha256", Buffer.from(text), mallorys.privateKey).toString("base64url"),
  /** An HMAC whose secret is the provider's public key. */
  publicKey: (text: string): string =>
    createHmac("sha256", rs256.publicKey.export({ type: "spki", format: "pem" }))
      .update(text)
      .digest("base64url"),
  none: (): string => "",
};

export interface Crafted {
  header?: Record<string, unknown>;
  claims?: Record<string, unknown>;
  /** In place of the claims. */
  payload?: string;
  by?: keyof typeof signatures;
  /** The signature is over the payload itself (RFC 7797). */
  isUnencoded?: boolean;
}

/** A provider whose tokens name the organisation of a tenant. It counts the requests for keys of others. */
export class Provider {
  readonly #organisation: string;
  readonly #listening: Listening;
  /** Paths that someone asked for, other than the provider's keys. */
  readonly asked: string[] = [];

  private constructor(organisation: string, listening: Listening, asked: string[]) {
    [this.#organisation, this.#listening, this.asked] = [organisation, listening, asked];
  }

  /** Starts the provider, which the system then trusts for this tenant. */
  static async start(tenantId: string): Promise<Provider> {
    const organisation = `org-of-${tenantId}`;
    const asked: string[] = [];
    const keys = [{ ...rs256.publicKey.export({ format: "jwk" }), kid: "k1", alg: "RS256", use: "sig" }];
    const listening = await serveOnLoopback(({ url }) => {
      const { pathname } = new URL(url);
      if (pathname === "/keys") return Response.json({ keys });
      asked.push(pathname);
      return Response.json({ keys: [mallorysJwk] });
    }, 0);
    const settings = [{ issuer: ISSUER, jwksUrl: `${listening.url}/keys`, tenantClaim: "tenant_id" }];
    await fetch(`${system.publicUrl}/test/trust?settings=${encodeURIComponent(JSON.stringify(settings))}`);
    const linked = await operator("POST", `/tenants/${tenantId}/links`, { issuer: ISSUER, organisation });
    if (linked.status !== 201) throw new Error(`not linked: ${await linked.text()}`);
    return new Provider(organisation, listening, asked);
  }

  get url(): string {
    return this.#listening.url;
  }

  /** A token that is right but for what is given. */
  token({ header = {}, claims = {}, payload, by = "own", isUnencoded = false }: Crafted = {}): string {
    const nowS = Math.floor(Date.now() / 1_000);
    const usual = {
      ...{ iss: ISSUER, sub: "ann", aud: `${system.publicUrl}/mcp`, iat: nowS, exp: nowS + 600 },
      ...{ tenant_id: this.#organisation, scope: "tools:read" },
    };
    const head = encoded({ alg: "RS256", kid: "k1", ...header });
    const text = payload ?? JSON.stringify({ ...usual, ...claims });
    return `${head}.${encoded(text)}.${signatures[by](`${head}.${isUnencoded ? text : encoded(text)}`)}`;
  }

  /** The usual claims as JSON, with more text at their end. */
  payloadWith(more: string): string {
    const claims = Buffer.from(this.token().split(".")[1] ?? "", "base64url").toString();
    return `${claims.slice(0, -1)},${more}}`;
  }

  async stop(): Promise<void> {
    await fetch(`${system.publicUrl}/test/trust`);
    await this.#listening.close();
  }
}

export type Asked = Awaited<ReturnType<typeof anAuthorization>>;

/** The client's authorization URL with other parameters. `undefined` removes one. */
export function urlWith({ url }: Asked, changes: Record<string, string | undefined>): string {
  const other = new URL(url);
  for (const [name, value] of Object.entries(changes))
    if (value === undefined) other.searchParams.delete(name);
    else other.searchParams.set(name, value);
  return other.href;
}

/** What a browser without a session sees of a client's request with these changes: a page, or where it was sent. */
export async function asks(
  changes: Record<string, string | undefined>,
  redirectUri = REDIRECT,
  browser = new Browser(),
): Promise<Page | URL> {
  return browser.open(urlWith(await anAuthorization(redirectUri), changes));
}

/** A member's browser lets a new client in. Returns the code. */
export async function aCode(browser: Browser, tenant: string, redirectUri = REDIRECT) {
  const asked = await anAuthorization(redirectUri);
  const back = await browser.submit(await browser.page(asked.url), { decision: "allow", tenant });
  if (!(back instanceof URL)) throw new Error(`no way back to the client: ${back.status}`);
  const code = back.searchParams.get("code") ?? "";
  /** Sends the code to the token endpoint, with other fields. An empty one is left out. */
  const exchange = (changes: Record<string, string> = {}): Promise<Response> => {
    const fields = {
      ...{ grant_type: "authorization_code", client_id: asked.clientId, code, redirect_uri: redirectUri },
      ...{ code_verifier: asked.verifier, ...changes },
    };
    return token(Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== "")));
  };
  return { ...asked, code, exchange };
}

export interface Granted {
  clientId: string;
  access: string;
  refresh: (refreshToken?: string, changes?: Record<string, string>) => Promise<Response>;
  refreshToken: string;
}

/** A new client with its tokens. */
export async function aGrant(browser: Browser, tenant: string): Promise<Granted> {
  const { clientId, exchange } = await aCode(browser, tenant);
  const issued = await tokensIn(await exchange());
  return {
    ...{ clientId, access: issued.access_token, refreshToken: issued.refresh_token },
    refresh: (refreshToken = issued.refresh_token, changes = {}) =>
      token({ grant_type: "refresh_token", client_id: clientId, refresh_token: refreshToken, ...changes }),
  };
}

export async function tokensIn(response: Response): Promise<{ access_token: string; refresh_token: string }> {
  if (response.status !== 200) throw new Error(`tokens: ${response.status} ${await response.text()}`);
  return (await response.json()) as { access_token: string; refresh_token: string };
}

/** The challenge of a verifier (RFC 7636). */
export const challengeOf = (verifier: string): string => createHash("sha256").update(verifier).digest("base64url");

/** A sign-in whose person is back from the provider: the callback's URL, which the browser has not opened yet. */
export async function aCallback(person: { sub: string }): Promise<{ browser: Browser; url: URL }> {
  const browser = new Browser();
  const page = await browser.page((await anAuthorization()).url);
  browser.stopsAt = "/oauth/callback";
  const url = await browser.submit(page, person);
  browser.stopsAt = undefined;
  if (!(url instanceof URL)) throw new Error(`no callback: ${url.status}`);
  return { browser, url };
}

/** The URL with other parameters. */
export function changed(url: URL, changes: Record<string, string>): string {
  const other = new URL(url);
  for (const [name, value] of Object.entries(changes)) other.searchParams.set(name, value);
  return other.href;
}
