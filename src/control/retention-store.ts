// How long rows of the control tables that grow with use are kept, and their deletion. The sweep deletes them in small
// statements. Tables that are not here are pruned where they are written, or keep their rows: docs/storage.md lists each.
// Invariant: a row that anything still depends on is never deleted.
import type { ControlDatabase } from "../adapters/neon.ts";

/** What of a table can go. `ended`: SQL that is true for a row whose retention is over. */
interface Retention {
  kept: string;
  ended: string;
}

/** Rows that one sweep deletes from each table: more than begin in a minute. */
const MOST = 1_000;

/** By table. The audit log keeps what happened for 400 days; these rows are the working copies. */
export const retentions = {
  // Sign-ins need live rows alone. The expiry is absolute, at most half a day after the start.
  sessions: { kept: "until they end", ended: "ended_at IS NOT NULL OR expires_at <= now()" },
  operator_sessions: { kept: "until they end", ended: "ended_at IS NOT NULL OR expires_at <= now()" },
  // An open one can be accepted. A list shows the state of the others for a while.
  invitations: {
    kept: "90 days after they were accepted, withdrawn or expired",
    ended: "coalesce(accepted_at, revoked_at, expires_at) < now() - interval '90 days'",
  },
  providers: { kept: "90 days after their removal", ended: "removed_at < now() - interval '90 days'" },
  impersonations: { kept: "90 days after their end", ended: "expires_at < now() - interval '90 days'" },
  // The row stops a second alert about the same thing, which is at most two months old.
  alerts: { kept: "90 days", ended: "raised_at < now() - interval '90 days'" },
  operator_token_uses: { kept: "400 days, as the audit log", ended: "hour < now() - interval '400 days'" },
  // A year and the month before, to compare with.
  metrics_hourly: { kept: "400 days", ended: "hour < now() - interval '400 days'" },
  cross_tenant_attempts: { kept: "400 days, as the audit log", ended: "day < (now() - interval '400 days')::date" },
} as const satisfies Readonly<Record<string, Retention>>;

export type PrunedTable = keyof typeof retentions;

export function retentionStore(control: ControlDatabase) {
  return {
    /** Deletes up to `most` rows of a table whose retention has ended. */
    async prune(table: PrunedTable, most = MOST): Promise<void> {
      await control.query(
        `DELETE FROM ${table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM ${table} WHERE ${retentions[table].ended} LIMIT $1))`,
        [most],
      );
    },
  };
}

export const prunedTables = Object.keys(retentions) as PrunedTable[];
