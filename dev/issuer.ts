// A stand-in of an identity provider: signs whatever claims it is asked to. Its key is kept, so that tokens outlive a
// restart. Local only: whoever reaches it can be anybody.
import { randomUUID } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { type ServerType, serve } from "@hono/node-server";
import { Hono } from "hono";
import { SignJWT, exportJWK, generateKeyPair, importJWK, type JWK } from "jose";
import * as z from "zod";

const Claims = z.record(z.string(), z.unknown());

const DEFAULT_LIFE_SECONDS = 3_600;

export interface Issuer {
  url: string;
  jwksUrl: string;
  tokenUrl: string;
  /** Signs claims with the conveniences of `POST /token`. */
  sign(claims: Record<string, unknown>): Promise<string>;
  close(): Promise<void>;
}

/** Starts on 127.0.0.1. `audience` is the `aud` of tokens that name none. */
export async function startIssuer({ port, keyFile, audience }: { port: number; keyFile: string; audience: string }): Promise<Issuer> {
  const { privateJwk, publicJwk } = await loadKey(keyFile);
  const key = await importJWK(privateJwk, "RS256");
  let url = "";

  const sign = (claims: Record<string, unknown>): Promise<string> => {
    const { tenant, user, scopes, expiresIn, expiry, ...rest } = claims;
    const now = Math.floor(Date.now() / 1000);
    const life = typeof expiresIn === "number" ? expiresIn : DEFAULT_LIFE_SECONDS;
    const organisation = tenant ?? rest["tenant_id"] ?? rest["org_id"];
    return new SignJWT({
      iss: url,
      aud: audience,
      iat: now,
      exp: typeof expiry === "number" ? expiry : now + life,
      sub: typeof user === "string" ? user : "user",
      // A token that asks for nothing in particular may use every tool.
      scope: Array.isArray(scopes) ? scopes.join(" ") : "tools:read tools:write",
      ...(organisation === undefined ? {} : { tenant_id: organisation }),
      ...rest,
    })
      .setProtectedHeader({ alg: "RS256", kid: String(publicJwk.kid), typ: "JWT" })
      .sign(key);
  };

  const app = new Hono();
  app.get("/.well-known/openid-configuration", (c) =>
    c.json({ issuer: url, jwks_uri: `${url}/.well-known/jwks.json`, token_endpoint: `${url}/token`, id_token_signing_alg_values_supported: ["RS256"] }),
  );
  app.get("/.well-known/jwks.json", (c) => c.json({ keys: [publicJwk] }));
  app.post("/token", async (c) => {
    const claims = Claims.safeParse(await c.req.json().catch(() => undefined));
    if (!claims.success) return c.json({ error: "invalid_request", error_description: "Send the claims as a JSON object." }, 400);
    return c.json({ access_token: await sign(claims.data), token_type: "Bearer", expires_in: DEFAULT_LIFE_SECONDS });
  });

  const server = await listen(app, port);
  const address = server.address();
  url = `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : port}`;
  return { url, jwksUrl: `${url}/.well-known/jwks.json`, tokenUrl: `${url}/token`, sign, close: () => close(server) };
}

async function loadKey(keyFile: string): Promise<{ privateJwk: JWK; publicJwk: JWK }> {
  if (existsSync(keyFile)) return JSON.parse(readFileSync(keyFile, "utf8")) as { privateJwk: JWK; publicJwk: JWK };
  const { privateKey, publicKey } = await generateKeyPair("RS256", { extractable: true });
  const shared = { kid: randomUUID(), alg: "RS256", use: "sig" };
  const pair = { privateJwk: { ...(await exportJWK(privateKey)), ...shared }, publicJwk: { ...(await exportJWK(publicKey)), ...shared } };
  writeFileSync(keyFile, JSON.stringify(pair), { mode: 0o600 });
  return pair;
}

function listen(app: Hono, port: number): Promise<ServerType> {
  return new Promise((resolve, reject) => {
    const server = serve({ fetch: app.fetch, port, hostname: "127.0.0.1" }, () => resolve(server));
    server.once("error", reject);
  });
}

function close(server: ServerType): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    if ("closeAllConnections" in server) server.closeAllConnections();
  });
}
