// Requests with an `Idempotency-Key`: one row for each key of a route, with the answer once there is one.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import { TenantId } from "../core/tenant/tenant.ts";
import { toMs } from "../core/time.ts";

/** How long a key is known. Clients repeat a request within minutes; Stripe keeps its keys as long. */
const KEPT = "interval '1 day'";
/**
 * Longer than a handler takes. A request that died holds its key for this long. Only the upload of a large import takes longer:
 * a repetition then uploads the same file under the same name, and one of both opens the job.
 */
const LEASE = "interval '1 minute'";

/** What a creating handler uses in place of a random id and the clock. The same in every run of one request. */
export interface Creation {
  /** 80 random bits. A tenant id. */
  seed: TenantId;
  atMs: number;
  /** An earlier run of this request may have made it. */
  isRepeat: boolean;
}

const Claim = z.object({
  scope: z.string(),
  key: z.string(),
  token: z.string(),
  fingerprint: z.string(),
  seed: TenantId,
  atMs: z.number(),
  answer: z.string().nullable(),
  /** Whether this request runs. Otherwise another one runs or has run. */
  isOurs: z.boolean(),
  isRepeat: z.boolean(),
});
export type Claim = z.infer<typeof Claim>;

export function idempotentRequestsStore(control: ControlDatabase) {
  return {
    /** Claims a key for a request, unless it has an answer, another body, or a request that is running. */
    async claim(request: {
      scope: string;
      key: string;
      fingerprint: string;
      seed: TenantId;
      token: string;
    }): Promise<Claim> {
      const free = `r.answer IS NULL AND r.locked_until < now() AND r.fingerprint = excluded.fingerprint`;
      const [, rows = []] = await control.batch([
        { text: `DELETE FROM idempotent_requests WHERE created_at < now() - ${KEPT}` },
        {
          text: `INSERT INTO idempotent_requests AS r (scope, key, fingerprint, seed, token, locked_until)
                 VALUES ($1, $2, $3, $4, $5, now() + ${LEASE})
                 ON CONFLICT (scope, key) DO UPDATE SET
                   token = CASE WHEN ${free} THEN excluded.token ELSE r.token END,
                   runs = CASE WHEN ${free} THEN r.runs + 1 ELSE r.runs END,
                   locked_until = CASE WHEN ${free} THEN excluded.locked_until ELSE r.locked_until END
                 RETURNING scope, key, token, fingerprint, seed, ${toMs("created_at")} AS "atMs", answer,
                   token = $5 AS "isOurs", runs > 1 AS "isRepeat"`,
          params: [request.scope, request.key, request.fingerprint, request.seed, request.token],
        },
      ]);
      return Claim.parse(rows[0]);
    },

    /** Keeps the answer of a claimed request. */
    async finish({ scope, key, token }: Claim, answer: string): Promise<void> {
      await control.query(`UPDATE idempotent_requests SET answer = $4 WHERE scope = $1 AND key = $2 AND token = $3`, [
        scope,
        key,
        token,
        answer,
      ]);
    },

    /** The request failed: the next one with the key runs. */
    async release({ scope, key, token }: Claim): Promise<void> {
      await control.query(
        `UPDATE idempotent_requests SET locked_until = '-infinity' WHERE scope = $1 AND key = $2 AND token = $3`,
        [scope, key, token],
      );
    },
  };
}
