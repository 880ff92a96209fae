// Remembers which tokens were verified, so that a client's next request costs no signature check. A token is cached under its
// digest: a dump of the cache holds no token.
// Invariant: a cached token works for a minute at most, and never after its expiry. Refusals are not cached.
import { BoundedMap } from "../../core/concurrency/bounded-map.ts";
import { sha256Hex } from "../../core/keys/credentials.ts";
import type { ErrorCode } from "../../core/errors.ts";

/** A token that its issuer revokes works for this long at most. */
const VERIFIED_FOR_MS = 60_000;

/** Why a token is refused. `detail`: for the client, where the code's own advice says too little. */
export interface RefusedToken {
  refused: ErrorCode;
  detail?: string;
}

export interface VerifiedToken<Value> {
  value: Value;
  /** `Infinity`: the token itself does not expire. */
  expiresAtMs: number;
}

export class VerifiedTokens<Value> {
  readonly #verified: BoundedMap<string, { value: Value; untilMs: number }>;

  /** Each entry has a few hundred bytes. */
  constructor(maxTokens: number) {
    this.#verified = new BoundedMap(maxTokens);
  }

  /** What the token stands for, from the cache or from `verify`. `digest`: SHA-256 of the token in hex. */
  async read(
    token: string,
    nowMs: number,
    verify: (digest: string) => Promise<VerifiedToken<Value> | RefusedToken>,
  ): Promise<{ value: Value } | RefusedToken> {
    const digest = await sha256Hex(token);
    const known = this.#verified.get(digest);
    if (known !== undefined && nowMs < known.untilMs) return known;
    const verified = await verify(digest);
    if ("refused" in verified) return verified;
    const { value, expiresAtMs } = verified;
    const entry = { value, untilMs: Math.min(expiresAtMs, nowMs + VERIFIED_FOR_MS) };
    this.#verified.set(digest, entry);
    return entry;
  }
}
