// An agent that acts for a person by the word of the person's organisation (ID-JAG, enterprise-managed authorization). It has one client
// at the organisation's provider and one at Tollgate, and opens a browser for the sign-in at the provider alone.
import { createHash, randomUUID } from "node:crypto";
import * as z from "zod";
import type { PlainBrowser } from "../test/support/plain-browser.ts";
import { ID_JAG, ID_TOKEN, TOKEN_EXCHANGE } from "./issuer/id-jag.ts";

const JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/** Where the agent waits for the browser. Nothing listens there: the browser stops. */
const REDIRECT = "http://127.0.0.1:45678/callback";

export interface Places {
  /** Tollgate's. */
  publicUrl: string;
  /** Where the organisation's provider is served. */
  providerUrl: string;
  /** A browser of the person. */
  browser: () => PlainBrowser;
}

export interface Credentials {
  clientId: string;
  clientSecret: string;
}
const Registered = z.object({ client_id: z.string(), client_secret: z.string() });
const IdToken = z.object({ id_token: z.string() });
const Assertion = z.object({ access_token: z.string() });
const Answer = z.object({
  access_token: z.string().default(""),
  expires_in: z.number().optional(),
  scope: z.string().optional(),
  error: z.string().optional(),
});

/** Registers a client with a secret (RFC 7591). `more`: further metadata. */
export async function registerClient(
  url: string,
  name: string,
  redirectUri: string,
  more: Record<string, string> = {},
): Promise<Credentials> {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      ...{ client_name: name, redirect_uris: [redirectUri] },
      ...{ token_endpoint_auth_method: "client_secret_post", ...more },
    }),
  });
  if (response.status !== 201) throw new Error(`${url} answered ${response.status}: ${await response.text()}`);
  const { client_id: clientId, client_secret: clientSecret } = Registered.parse(await response.json());
  return { clientId, clientSecret };
}

function post(url: string, { clientId, clientSecret }: Credentials, fields: Record<string, string>): Promise<Response> {
  const body = new URLSearchParams({ ...fields, client_id: clientId, client_secret: clientSecret });
  return fetch(url, { method: "POST", body });
}

/** An agent with its two clients. */
export async function vouchedAgent({ publicUrl, providerUrl, browser: newBrowser }: Places) {
  const atProvider = await registerClient(`${providerUrl}/register`, "An agent", REDIRECT);
  const atTollgate = await registerClient(`${publicUrl}/oauth/register`, "An agent", "https://agent.example/callback");

  /** The person signs in at the provider, for the agent. */
  const idTokenOf = async (sub: string): Promise<string> => {
    const verifier = `${randomUUID()}${randomUUID()}`;
    const challenge = createHash("sha256").update(verifier).digest("base64url");
    const query = new URLSearchParams({
      ...{ response_type: "code", client_id: atProvider.clientId, redirect_uri: REDIRECT, scope: "openid email" },
      ...{ state: "s", code_challenge: challenge, code_challenge_method: "S256" },
    });
    const browser = newBrowser();
    const opened = await browser.open(`${providerUrl}/authorize?${query.toString()}`);
    // A browser that has signed in at the provider continues without its page.
    const back = opened instanceof URL ? opened : await browser.submit(opened, { sub });
    if (!(back instanceof URL)) throw new Error(`The provider answered ${back.status} to the sign-in.`);
    const answer = await post(`${providerUrl}/token`, atProvider, {
      ...{ grant_type: "authorization_code", code: back.searchParams.get("code") ?? "", redirect_uri: REDIRECT },
      code_verifier: verifier,
    });
    return IdToken.parse(await answer.json()).id_token;
  };

  return {
    clientId: atTollgate.clientId,

    /** The provider's assertion that the agent may act for the person. `more` replaces fields of the request. */
    async assertionOf(sub: string, more: Record<string, string> = {}): Promise<string> {
      const answer = await post(`${providerUrl}/token`, atProvider, {
        ...{ grant_type: TOKEN_EXCHANGE, requested_token_type: ID_JAG },
        ...{ subject_token: await idTokenOf(sub), subject_token_type: ID_TOKEN },
        ...{ audience: publicUrl, audience_client_id: atTollgate.clientId },
        ...{ resource: `${publicUrl}/mcp`, scope: "tools:read", ...more },
      });
      return Assertion.parse(await answer.json()).access_token;
    },

    /** Exchanges an assertion at Tollgate for a token. `access` is empty when it is refused. */
    async exchange(assertion: string) {
      const answer = await post(`${publicUrl}/oauth/token`, atTollgate, { grant_type: JWT_BEARER, assertion });
      const { access_token: access, expires_in: lifetimeS, ...rest } = Answer.parse(await answer.json());
      return { status: answer.status, access, lifetimeS, ...rest };
    },
  };
}
