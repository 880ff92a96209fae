// Sessions of people who are signed in to pages. A row has the digest of the session's token, never the token.
import * as z from "zod";
import { idOfRow, readableList } from "../../control/failures-store.ts";
import type { ControlDatabase } from "../../adapters/neon.ts";
import { sha256Hex } from "../../core/keys/credentials.ts";
import type { TenantId } from "../../core/tenant/tenant.ts";
import type { PageQuery } from "../../http.ts";
import { fromMs, toIso, toMs } from "../../core/time.ts";
import { endSessionOfToken, isLive, shortId, touchSession } from "./session-rows.ts";
import { SESSION_IDLE_MS, SESSION_MS, newSessionToken } from "./sessions.ts";

const TABLE = "sessions";

/** An identity at a provider. */
export interface ProviderIdentity {
  issuer: string;
  subject: string;
}

export const Session = z.object({
  issuer: z.string(),
  subject: z.string(),
  name: z.string().nullable(),
  email: z.string().nullable(),
  signedInAtMs: z.number(),
});
export type Session = z.infer<typeof Session>;

/** A session as an admin sees it. The id is a part of the digest: it opens nothing. */
export const SessionSummary = z.object({
  id: z.string(),
  memberId: z.string(),
  name: z.string().nullable(),
  email: z.string().nullable(),
  startedAt: z.string(),
  lastSeenAt: z.string(),
  expiresAt: z.string(),
});
export type SessionSummary = z.infer<typeof SessionSummary>;

/** The live sessions of the people of tenant $1. `nowMs` and `idleMs` name the parameters with the time and the oldest last use. */
const ofTenant = (nowMs: string, idleMs: string): string =>
  `m.tenant_id = $1 AND m.issuer = s.issuer AND m.subject = s.subject AND m.removed_at IS NULL
   AND ${isLive(nowMs, idleMs)}`;

export type SessionsStore = ReturnType<typeof sessionsStore>;

export function sessionsStore(control: ControlDatabase) {
  return {
    /** Starts a session. Returns its token, which only the cookie has. */
    async start(
      person: ProviderIdentity & { name: string | null; email: string | null; nowMs: number },
    ): Promise<string> {
      const token = newSessionToken();
      const { issuer, subject, name, email, nowMs } = person;
      await control.query(
        `INSERT INTO sessions (id_hash, issuer, subject, name, email, created_at, last_seen_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, ${fromMs("$6")}, ${fromMs("$6")}, ${fromMs("$7")})`,
        [await sha256Hex(token), issuer, subject, name, email, nowMs, nowMs + SESSION_MS],
      );
      return token;
    },

    /** The session of a token, which this use prolongs; `undefined` when it has ended. */
    async find(token: string, nowMs: number): Promise<Session | undefined> {
      const row = await touchSession(control, TABLE, {
        ...{ token, nowMs, idleMs: nowMs - SESSION_IDLE_MS },
        columns: `issuer, subject, name, email, ${toMs("created_at")} AS "signedInAtMs"`,
      });
      return row === undefined ? undefined : Session.parse(row);
    },

    /** Ends the session of a token. */
    end(token: string, nowMs: number): Promise<void> {
      return endSessionOfToken(control, TABLE, { token, nowMs });
    },

    /** Ends all sessions of an identity. Returns how many there were. */
    async endOfIdentity({ issuer, subject }: ProviderIdentity, nowMs: number): Promise<number> {
      const rows = await control.query(
        `UPDATE sessions SET ended_at = ${fromMs("$3")}
         WHERE issuer = $1 AND subject = $2 AND ended_at IS NULL RETURNING id_hash`,
        [issuer, subject, nowMs],
      );
      return rows.length;
    },

    /** The sessions of a tenant's members, one more than `limit`, so that the last page is known. */
    async list(tenantId: TenantId, { after, limit }: PageQuery, nowMs: number): Promise<SessionSummary[]> {
      return readableList(control, limit + 1, SessionSummary, { part: "sessions", idOf: idOfRow }, (count) =>
        control.query(
          `SELECT ${shortId} AS id, m.id AS "memberId", s.name, s.email, ${toIso("s.created_at")} AS "startedAt",
             ${toIso("s.last_seen_at")} AS "lastSeenAt", ${toIso("s.expires_at")} AS "expiresAt"
           FROM sessions s JOIN members m ON ${ofTenant("$2", "$3")}
           WHERE ${shortId} > $4 ORDER BY ${shortId} LIMIT $5`,
          [tenantId, nowMs, nowMs - SESSION_IDLE_MS, after, count],
        ),
      );
    },

    /** Ends a session of one of the tenant's members. Returns whether there was one. */
    async endInTenant(tenantId: TenantId, id: string, nowMs: number): Promise<boolean> {
      const rows = await control.query(
        `UPDATE sessions s SET ended_at = ${fromMs("$2")} FROM members m
         WHERE ${ofTenant("$2", "$3")} AND ${shortId} = $4 RETURNING s.id_hash`,
        [tenantId, nowMs, nowMs - SESSION_IDLE_MS, id],
      );
      return rows.length > 0;
    },
  };
}
