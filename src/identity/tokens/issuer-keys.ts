// The public keys of trusted issuers, and the check of a token's signature with them. An isolate keeps one key set for each
// issuer. A token with an unknown key makes the isolate fetch the set again, at most once in `RELOAD_MS`; a token that
// arrives between two fetches waits for the next one, so that a new key works at once and made-up key ids cost little.
import {
  type JWTPayload,
  type JWTVerifyOptions,
  base64url,
  createRemoteJWKSet,
  customFetch,
  decodeJwt,
  jwtVerify,
} from "jose";
import {
  JOSEError,
  JWKSInvalid,
  JWKSMultipleMatchingKeys,
  JWKSNoMatchingKey,
  JWKSTimeout,
  JWSSignatureVerificationFailed,
  JWTExpired,
  JWTInvalid,
} from "jose/errors";
import { fetchFromProvider } from "../../adapters/provider-http.ts";
import { BoundedMap } from "../../core/concurrency/bounded-map.ts";
import { AppError } from "../../core/errors.ts";
import { nameTwice } from "../../core/text/text.ts";
import { CLOCK_TOLERANCE_SECONDS } from "./claims.ts";
import { acceptedAlgorithms } from "./issuers.ts";

/** A person waits this long at most after their issuer has changed its keys. */
const RELOAD_MS = 1_000;

type KeySet = ReturnType<typeof createRemoteJWKSet>;

/** Tenants bring providers, too. A forgotten set is read again. */
const MAX_KEY_SETS = 500;

const keySets = new BoundedMap<string, KeySet>(MAX_KEY_SETS);
function keySetOf(jwksUrl: string): KeySet {
  let keys = keySets.get(jwksUrl);
  if (keys === undefined) {
    keys = createRemoteJWKSet(new URL(jwksUrl), { cooldownDuration: RELOAD_MS, [customFetch]: fetchFromProvider });
    keySets.set(jwksUrl, keys);
  }
  return keys;
}

/**
 * The claims of a token that the issuer has signed and that is valid at `nowMs`, or why it is refused. The caller checks for
 * whom it is. Throws `issuer_unavailable` when the issuer's keys cannot be read.
 */
export async function verifiedClaims(
  token: string,
  { issuer, jwksUrl }: { issuer: string; jwksUrl: string },
  nowMs: number,
): Promise<JWTPayload | "token_expired" | "token_invalid"> {
  try {
    return await verifyToken(token, jwksUrl, {
      issuer,
      algorithms: acceptedAlgorithms,
      requiredClaims: ["exp"],
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
      currentDate: new Date(nowMs),
    });
  } catch (error) {
    if (error instanceof JWTExpired) return "token_expired";
    // The issuer did not answer with keys. The token may be good, so the client must keep it and retry.
    const unreadable =
      !(error instanceof JOSEError) ||
      error instanceof JWKSTimeout ||
      error instanceof JWKSInvalid ||
      error.code === "ERR_JOSE_GENERIC";
    if (unreadable) throw new AppError("issuer_unavailable", undefined, { cause: error });
    return "token_invalid";
  }
}

/** The issuer that the token names. The token is not verified yet, so this only decides whose keys to try. */
export function unverifiedIssuer(token: string): string | undefined {
  try {
    return decodeJwt(token).iss;
  } catch {
    return undefined;
  }
}

/**
 * The claims of a token that one of the issuer's keys has signed. Throws the errors of jose. A token that has a claim twice is
 * refused: programs differ about which one counts, and the issuer's may have checked the other one.
 */
export async function verifyToken(token: string, jwksUrl: string, options: JWTVerifyOptions): Promise<JWTPayload> {
  if (token.split(".", 2).some(repeatsClaim)) throw new JWTInvalid("a claim is there twice");
  const keys = keySetOf(jwksUrl);
  // jose fetches the set again itself, unless it has just done so.
  const mayBeStale = keys.coolingDown;
  try {
    return await verifyWith(keys, token, options);
  } catch (error) {
    if (!(error instanceof JWKSNoMatchingKey) || !mayBeStale) throw error;
    await new Promise((resolve) => setTimeout(resolve, RELOAD_MS));
    return verifyWith(keys, token, options);
  }
}

/** Whether a part of a token has a name twice. A part that is no JSON in base64url is refused by jose. */
export function repeatsClaim(part: string): boolean {
  try {
    return nameTwice(new TextDecoder().decode(base64url.decode(part))) !== undefined;
  } catch {
    return false;
  }
}

async function verifyWith(keys: KeySet, token: string, options: JWTVerifyOptions): Promise<JWTPayload> {
  try {
    return (await jwtVerify(token, keys, options)).payload;
  } catch (error) {
    if (!(error instanceof JWKSMultipleMatchingKeys)) throw error;
    // Several keys fit: they share a key id, or the token names none.
    for await (const key of error) {
      try {
        return (await jwtVerify(token, key, options)).payload;
      } catch (failure) {
        if (!(failure instanceof JWSSignatureVerificationFailed)) throw failure;
      }
    }
    throw new JWSSignatureVerificationFailed();
  }
}
