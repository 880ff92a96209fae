// A JWT issuer for local runs. It signs any claims that a request asks for, and publishes its public key as OIDC does.
// Decides how short names become claims. Invariants: `iss` is exactly the URL; tokens stay valid over restarts, because the
// key is stored; only the owner of the file can read the private key.
import { Hono } from "hono";
import type { Context } from "hono";
import { bodyLimit } from "hono/body-limit";
import { calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, SignJWT } from "jose";
import type { CryptoKey, JWK } from "jose";
import { readFile, rename, writeFile } from "node:fs/promises";
import { z } from "zod";
import { serveOnLoopback } from "./loopback.ts";

const ALGORITHM = "RS256";
const DEFAULT_LIFETIME_S = 3_600;
/** A larger token would not fit into a header. */
const MAX_BODY_BYTES = 64 * 1024;

/** Every claim passes through. Those listed here have a meaning of their own. */
const ClaimsRequest = z.looseObject({
  /** The first of these three becomes the claim `tenant_id`. */
  tenant_id: z.string().optional(),
  tenant: z.string().optional(),
  org_id: z.string().optional(),
  /** Becomes `sub`, and replaces a given `sub`. */
  user: z.string().optional(),
  sub: z.string().optional(),
  /** Each of these two becomes `scope`, separated by spaces. */
  scopes: z.array(z.string()).optional(),
  scope: z.string().optional(),
  /** Seconds from now. Negative for an expired token. */
  expiresIn: z.number().optional(),
  /** Seconds since 1970. */
  expiry: z.number().optional(),
  exp: z.number().optional(),
});
export type ClaimsRequest = z.input<typeof ClaimsRequest>;

export interface Issuer {
  url: string;
  jwksUrl: string;
  tokenUrl: string;
  /** The token that `POST /token` would give for these claims. Throws a ZodError when a claim has the wrong type. */
  sign(claims: ClaimsRequest): Promise<string>;
  close(): Promise<void>;
}

/**
 * Starts the issuer on 127.0.0.1. Port 0 takes a free one. Creates `keyFile` if it does not exist. `audience` is the default
 * `aud`.
 */
export async function startIssuer(options: {
  port: number;
  keyFile: string;
  audience: string;
  log?: (line: string) => void;
}): Promise<Issuer> {
  const key = await keepKey(options.keyFile);
  const app = new Hono();
  let url = "";

  async function issue(request: unknown): Promise<{ token: string; expiresInS: number }> {
    const { user, scopes, expiresIn, expiry, ...claims } = ClaimsRequest.parse(request);
    const nowS = Math.floor(Date.now() / 1_000);
    const tenant = claims.tenant_id ?? claims.tenant ?? claims.org_id;
    const scope = scopes?.join(" ") ?? claims.scope;
    const exp = Math.floor(claims.exp ?? expiry ?? nowS + (expiresIn ?? DEFAULT_LIFETIME_S));
    const payload = {
      iss: url,
      aud: options.audience,
      iat: nowS,
      ...claims,
      sub: user ?? claims.sub ?? "user",
      exp,
      ...(tenant !== undefined && { tenant_id: tenant }),
      ...(scope !== undefined && { scope }),
    };
    const header = { alg: ALGORITHM, kid: key.kid, typ: "JWT" };
    const token = await new SignJWT(payload).setProtectedHeader(header).sign(key.privateKey);
    return { token, expiresInS: exp - nowS };
  }

  app.get("/.well-known/openid-configuration", (c) =>
    c.json({
      issuer: url,
      jwks_uri: `${url}/.well-known/jwks.json`,
      token_endpoint: `${url}/token`,
      id_token_signing_alg_values_supported: [ALGORITHM],
      subject_types_supported: ["public"],
      response_types_supported: ["token"],
    }),
  );
  app.get("/.well-known/jwks.json", (c) => c.json({ keys: [key.publicJwk] }));
  app.post("/token", bodyLimit({ maxSize: MAX_BODY_BYTES, onError: tooLarge }), async (c) => {
    const request: unknown = await c.req.json();
    const { token, expiresInS } = await issue(request);
    return c.json({ access_token: token, token_type: "Bearer", expires_in: expiresInS });
  });
  app.notFound((c) => c.json({ error: "not_found", error_description: `${c.req.method} ${c.req.path}` }, 404));
  app.onError((error, c) => {
    const isMalformed = error instanceof SyntaxError || error instanceof z.ZodError;
    if (!isMalformed) options.log?.(`issuer: ${error.message}`);
    const [code, status] = isMalformed ? (["invalid_request", 400] as const) : (["server_error", 500] as const);
    const reason = error instanceof z.ZodError ? z.prettifyError(error) : error.message;
    return c.json({ error: code, error_description: reason }, status);
  });

  const listening = await serveOnLoopback(app.fetch, options.port);
  url = listening.url;
  return {
    url,
    jwksUrl: `${url}/.well-known/jwks.json`,
    tokenUrl: `${url}/token`,
    sign: async (claims) => (await issue(claims)).token,
    close: () => listening.close(),
  };
}

function tooLarge(c: Context): Response {
  return c.json({ error: "invalid_request", error_description: `more than ${MAX_BODY_BYTES} bytes` }, 413);
}

const PrivateJwk = z.looseObject({ kty: z.literal("RSA"), n: z.string(), e: z.string(), d: z.string() });

async function keepKey(file: string): Promise<{ kid: string; privateKey: CryptoKey | Uint8Array; publicJwk: JWK }> {
  const kept = await readFile(file, "utf8").catch(() => undefined);
  const text =
    kept ?? JSON.stringify(await exportJWK((await generateKeyPair(ALGORITHM, { extractable: true })).privateKey));
  if (kept === undefined) {
    // Replace the file in one step: after a kill, half a key would break every later start.
    await writeFile(`${file}.new`, text, { mode: 0o600, flush: true });
    await rename(`${file}.new`, file);
  }
  const jwk = PrivateJwk.parse(JSON.parse(text));
  const kid = await calculateJwkThumbprint(jwk);
  const publicJwk: JWK = { kty: jwk.kty, n: jwk.n, e: jwk.e, use: "sig", alg: ALGORITHM, kid };
  return { kid, privateKey: await importJWK(jwk, ALGORITHM), publicJwk };
}
