// Invitations in the control tables. A tenant has one open invitation for an address: a new one replaces it. Each is accepted once,
// in one statement with the change of the member.
import * as z from "zod";
import { idOfRow, readableRows } from "../../control/failures-store.ts";
import type { ControlDatabase, Statement } from "../../adapters/neon.ts";
import { tenantRoles } from "../../core/actor.ts";
import { TenantId, tenantStates } from "../../core/tenant/tenant.ts";
import { fromMs, toIso, toMs } from "../../core/time.ts";
import { speaksNow } from "../providers/providers.ts";
import {
  type Acceptance,
  MAX_IDENTITIES,
  MAX_INVITATIONS_A_DAY,
  MAX_MEMBERS,
  MAX_OPEN_INVITATIONS,
  acceptanceOf,
} from "./members.ts";

export const InvitationSummary = z.object({
  id: z.string(),
  email: z.string(),
  role: z.enum(tenantRoles),
  /** A member's id, `buyer` or `operator`. */
  invitedBy: z.string(),
  state: z.enum(["open", "accepted", "revoked", "expired"]),
  createdAt: z.string(),
  expiresAt: z.string(),
});
export type InvitationSummary = z.infer<typeof InvitationSummary>;

const Invitation = z.object({
  id: z.string(),
  tenantId: TenantId,
  tenantName: z.string(),
  tenantState: z.enum(tenantStates),
  email: z.string(),
  role: z.enum(tenantRoles),
  isOpen: z.boolean(),
  expiresAtMs: z.number(),
});
export type Invitation = z.infer<typeof Invitation>;

export interface NewInvitation {
  id: string;
  email: string;
  role: string;
  tokenHash: string;
  invitedBy: string;
  expiresAtMs: number;
}

/** Who accepts. */
export interface Acceptor {
  issuer: string;
  subject: string;
  name: string | null;
  /** The id of the member, if the acceptance makes one. */
  newMemberId: string;
  nowMs: number;
}

const MemberFacts = z.object({
  id: z.string(),
  role: z.enum(tenantRoles),
  isBound: z.boolean(),
  isOwn: z.boolean(),
  isSame: z.boolean(),
});
const AcceptedBy = z.object({ memberId: z.string() });
const Added = z.object({ isStored: z.boolean(), isMember: z.boolean() });

const isOpen = (now: string): string =>
  `i.accepted_at IS NULL AND i.revoked_at IS NULL AND i.expires_at > ${fromMs(now)}`;
/** The newest invitations that a list shows. A tenant may make MAX_INVITATIONS_A_DAY. */
const LISTED = 1_000;

export function invitationsStore(control: ControlDatabase) {
  return {
    /**
     * Adds an invitation and revokes the open one for its address. Repeatable with the same id. full: the tenant has as many as it
     * may have. is_member: the address belongs to a member who has signed in.
     */
    async add(
      tenantId: TenantId,
      invitation: NewInvitation,
      nowMs: number,
    ): Promise<"added" | "full" | "is_member" | "no_tenant"> {
      const { id, email, role, tokenHash, invitedBy, expiresAtMs } = invitation;
      const member = `SELECT FROM members m WHERE m.tenant_id = $1 AND m.email = $2 AND m.removed_at IS NULL AND m.issuer IS NOT NULL`;
      const isAllowed = `EXISTS (SELECT FROM tenants t WHERE t.id = $1 AND t.state <> 'gone') AND NOT EXISTS (${member})
        AND (SELECT count(*) FROM invitations i WHERE i.tenant_id = $1 AND i.created_at > ${fromMs("$3")} - interval '1 day') < $4
        AND (SELECT count(*) FROM invitations i WHERE i.tenant_id = $1 AND i.email <> $2 AND ${isOpen("$3")}) < $5`;
      const limits = [tenantId, email, nowMs, MAX_INVITATIONS_A_DAY, MAX_OPEN_INVITATIONS];
      const [tenant = [], , , rows = []] = await control.batch([
        lockTenant(tenantId),
        {
          text: `UPDATE invitations SET revoked_at = ${fromMs("$3")}
                 WHERE tenant_id = $1 AND email = $2 AND accepted_at IS NULL AND revoked_at IS NULL AND id <> $6 AND ${isAllowed}`,
          params: [...limits, id],
        },
        {
          text: `INSERT INTO invitations (tenant_id, email, created_at, id, role, token_hash, invited_by, expires_at)
                 SELECT $1, $2, ${fromMs("$3")}, $6, $7, $8, $9, ${fromMs("$10")} WHERE ${isAllowed} ON CONFLICT DO NOTHING`,
          params: [...limits, id, role, tokenHash, invitedBy, expiresAtMs],
        },
        {
          text: `SELECT EXISTS (SELECT FROM invitations i WHERE i.id = $3 AND i.token_hash = $4) AS "isStored",
                        EXISTS (${member}) AS "isMember"`,
          params: [tenantId, email, id, tokenHash],
        },
      ]);
      const { isStored, isMember } = Added.parse(rows[0]);
      if (isStored) return "added";
      if (tenant.length === 0) return "no_tenant";
      return isMember ? "is_member" : "full";
    },

    /** The tenant's newest invitations, the newest first. */
    async list(tenantId: TenantId, nowMs: number): Promise<InvitationSummary[]> {
      const rows = await control.query(
        `SELECT i.id, i.email, i.role, i.invited_by AS "invitedBy", ${toIso("i.created_at")} AS "createdAt",
                ${toIso("i.expires_at")} AS "expiresAt",
                CASE WHEN i.accepted_at IS NOT NULL THEN 'accepted' WHEN i.revoked_at IS NOT NULL THEN 'revoked'
                     WHEN i.expires_at <= ${fromMs("$2")} THEN 'expired' ELSE 'open' END AS state
         FROM invitations i WHERE i.tenant_id = $1 ORDER BY i.created_at DESC, i.id LIMIT ${LISTED}`,
        [tenantId, nowMs],
      );
      return readableRows(control, rows, InvitationSummary, { part: "invitations", idOf: idOfRow });
    },

    /** Revokes an invitation. `undefined`: the tenant has none with this id. false: it was accepted. Repeatable. */
    async revoke(tenantId: TenantId, id: string): Promise<boolean | undefined> {
      const [, rows = []] = await control.batch([
        {
          text: `UPDATE invitations SET revoked_at = now()
                 WHERE tenant_id = $1 AND id = $2 AND accepted_at IS NULL AND revoked_at IS NULL`,
          params: [tenantId, id],
        },
        {
          text: `SELECT accepted_at IS NULL AS ended FROM invitations WHERE tenant_id = $1 AND id = $2`,
          params: [tenantId, id],
        },
      ]);
      return rows[0] === undefined ? undefined : rows[0]["ended"] === true;
    },

    /** The invitation with this id, if the token is its token. */
    async find(tenantId: TenantId, id: string, tokenHash: string, nowMs: number): Promise<Invitation | undefined> {
      const [row] = await control.query(
        `SELECT i.id, i.tenant_id AS "tenantId", t.name AS "tenantName", t.state AS "tenantState", i.email, i.role,
                ${isOpen("$4")} AS "isOpen", ${toMs("i.expires_at")} AS "expiresAtMs"
         FROM invitations i JOIN tenants t ON t.id = i.tenant_id
         WHERE i.tenant_id = $1 AND i.id = $2 AND i.token_hash = $3`,
        [tenantId, id, tokenHash, nowMs],
      );
      return row === undefined ? undefined : Invitation.parse(row);
    },

    /** The id of the member that the acceptance of the invitation made or changed. */
    async acceptedBy(tenantId: TenantId, id: string): Promise<string | undefined> {
      const [row] = await control.query(
        `SELECT accepted_by AS "memberId" FROM invitations WHERE tenant_id = $1 AND id = $2 AND accepted_at IS NOT NULL`,
        [tenantId, id],
      );
      return row === undefined ? undefined : AcceptedBy.parse(row).memberId;
    },

    /**
     * Makes the person a member by an open invitation, and uses it up. taken: the address belongs to another identity. full: the
     * tenant has as many members as it may have. ended: the invitation is not open any more, or the member has changed
     * meanwhile.
     */
    async accept(
      { id, tenantId, email, role }: Pick<Invitation, "id" | "tenantId" | "email" | "role">,
      acceptor: Acceptor,
    ): Promise<"accepted" | "taken" | "full" | "ended"> {
      const { issuer, subject, nowMs } = acceptor;
      const open = {
        text: `SELECT FROM invitations i WHERE i.tenant_id = $1 AND i.id = $2 AND ${isOpen("$3")}`,
        params: [tenantId, id, nowMs],
      };
      // Whether it is open is read last: a member who has just accepted it must not look like another one with the address.
      const [rows = [], before = []] = await control.batch([
        {
          text: `SELECT m.id, m.role, m.issuer IS NOT NULL AS "isBound", coalesce(m.email = $4, false) AS "isSame",
                        coalesce(m.issuer = $2 AND m.subject = $3, false) AS "isOwn"
                 FROM members m WHERE m.tenant_id = $1 AND m.removed_at IS NULL
                   AND (m.email = $4 OR (m.issuer = $2 AND m.subject = $3))`,
          params: [tenantId, issuer, subject, email],
        },
        open,
      ]);
      if (before.length === 0) return "ended";
      const facts = rows.map((row) => MemberFacts.parse(row));
      const acceptance = acceptanceOf(role, {
        own: facts.find(({ isOwn }) => isOwn),
        same: facts.find(({ isSame }) => isSame),
      });
      if (acceptance.kind === "taken") return "taken";
      const [, written = [], left = []] = await control.batch([
        lockTenant(tenantId),
        acceptStatement(id, tenantId, acceptance, acceptor),
        open,
      ]);
      if (written.length > 0) return "accepted";
      return left.length > 0 && acceptance.kind === "new" ? "full" : "ended";
    },
  };
}

/** Later statements of the batch see what others have committed, and others wait. */
export function lockTenant(tenantId: TenantId): Statement {
  return { text: `SELECT FROM tenants WHERE id = $1 AND state <> 'gone' FOR UPDATE`, params: [tenantId] };
}

/** SQL that is true while a tenant `$1` may have one more member. */
export const hasRoom = `(SELECT count(*) FILTER (WHERE c.removed_at IS NULL) < ${MAX_MEMBERS}
   AND count(*) FILTER (WHERE c.issuer IS NOT NULL) < ${MAX_IDENTITIES} FROM members c WHERE c.tenant_id = $1)`;

/** Uses the invitation up, changes or makes the member, and raises the version: all of it or nothing. */
function acceptStatement(
  id: string,
  tenantId: TenantId,
  acceptance: Exclude<Acceptance, { kind: "taken" }>,
  { issuer, subject, name, newMemberId, nowMs }: Acceptor,
): Statement {
  const params: unknown[] = [tenantId, id, nowMs, issuer, subject, name];
  const isNew = acceptance.kind === "new";
  params.push(isNew ? newMemberId : acceptance.memberId);
  const known = `m.tenant_id = $1 AND m.removed_at IS NULL`;
  const own = `m.issuer = $4 AND m.subject = $5`;
  let target: string;
  let change: string;
  if (isNew) {
    target = `${hasRoom} AND NOT EXISTS (SELECT FROM members m WHERE ${known} AND (m.email = i.email OR (${own})))`;
    change = `INSERT INTO members (tenant_id, id, email, name, role, issuer, subject, created_at, last_sign_in_at)
      SELECT $1, $7, u.email, $6, u.role, $4, $5, ${fromMs("$3")}, ${fromMs("$3")} FROM used u RETURNING tenant_id`;
  } else {
    params.push(acceptance.expectedRole, acceptance.role, acceptance.superseded);
    target = `EXISTS (SELECT FROM members m WHERE ${known} AND m.id = $7 AND m.role = $8 AND (m.issuer IS NULL OR (${own})))`;
    change = `UPDATE members m SET issuer = $4, subject = $5, name = coalesce(m.name, $6), role = $9, last_sign_in_at = ${fromMs("$3")}
      FROM used u WHERE ${known} AND m.id = $7 RETURNING m.tenant_id`;
  }
  const superseded = isNew
    ? ""
    : `, superseded AS (UPDATE members m SET removed_at = ${fromMs("$3")} FROM used u WHERE ${known} AND m.id = $10 AND m.issuer IS NULL)`;
  return {
    text: `WITH used AS (
        UPDATE invitations i SET accepted_at = ${fromMs("$3")}, accepted_by = $7
        WHERE i.tenant_id = $1 AND i.id = $2 AND ${isOpen("$3")} AND EXISTS (SELECT FROM tenants t WHERE t.id = $1 AND t.state <> 'gone')
          AND ${target} AND ${speaksNow("$4", "$1")}
        RETURNING i.email, i.role),
      changed AS (${change})${superseded},
      forgotten AS (UPDATE members m SET issuer = NULL, subject = NULL FROM used u
        WHERE m.tenant_id = $1 AND m.removed_at IS NOT NULL AND ${own})
      UPDATE tenants SET version = version + 1 WHERE id IN (SELECT tenant_id FROM changed) RETURNING id`,
    params,
  };
}
