// Members in the control tables. Every change raises the tenant's version in the same transaction, and the tenant's object reads
// its members with its configuration: a removed member is refused on the next request.
import * as z from "zod";
import { idOfRow, readableRows } from "../../control/failures-store.ts";
import { newMemberId } from "../../adapters/ids.ts";
import type { ControlDatabase } from "../../adapters/neon.ts";
import { type TenantRole, tenantRoles } from "../../core/actor.ts";
import { TenantId, tenantStates } from "../../core/tenant/tenant.ts";
import { fromMs, toIso } from "../../core/time.ts";
import { hasRoom, invitationsStore, lockTenant } from "./invitations-store.ts";
import { speaksNow } from "../providers/providers.ts";
import { type SignInRules, signInActions } from "./members.ts";

export const Membership = z.object({
  tenantId: TenantId,
  tenantName: z.string(),
  memberId: z.string(),
  role: z.enum(tenantRoles),
  email: z.string().nullable(),
  name: z.string().nullable(),
  tenantState: z.enum(tenantStates),
  /** Of the tenant's pages; `null`: the product's. */
  tenantColour: z.string().nullable(),
});
export type Membership = z.infer<typeof Membership>;

export const MemberSummary = z.object({
  id: z.string(),
  email: z.string().nullable(),
  name: z.string().nullable(),
  role: z.enum(tenantRoles),
  /** Whether the person has signed in. */
  isBound: z.boolean(),
  createdAt: z.string(),
  lastSignInAt: z.string().nullable(),
});
export type MemberSummary = z.infer<typeof MemberSummary>;

export interface SignIn extends Partial<SignInRules> {
  issuer: string;
  subject: string;
  /** In any case. */
  email: string | null;
  emailVerified: boolean;
  name: string | null;
  /** The person's organisation at the issuer. */
  organisation: string | null | undefined;
  nowMs: number;
}

const membershipColumns = `m.tenant_id AS "tenantId", t.name AS "tenantName", m.id AS "memberId", m.role, m.email, m.name,
  t.state AS "tenantState", t.settings #>> '{branding,colour}' AS "tenantColour"`;
const summaryColumns = `m.id, m.email, m.name, m.role, m.issuer IS NOT NULL AS "isBound",
  ${toIso("m.created_at")} AS "createdAt", ${toIso("m.last_sign_in_at")} AS "lastSignInAt"`;

const InTenant = z.object({ tenantId: TenantId });
const Identity = z.object({ tenantId: TenantId, isRemoved: z.boolean() });
const Named = z.object({ name: z.string() });
const Unbound = z.object({ tenantId: TenantId, memberId: z.string() });
const OpenInvitation = z.object({ tenantId: TenantId, id: z.string(), email: z.string(), role: z.enum(tenantRoles) });

export function membersStore(control: ControlDatabase) {
  return {
    /** The live memberships of an identity, in the order of the tenants' names. */
    async ofIdentity({ issuer, subject }: { issuer: string; subject: string }): Promise<Membership[]> {
      const rows = await control.query(
        `SELECT ${membershipColumns} FROM members m JOIN tenants t ON t.id = m.tenant_id
         WHERE m.issuer = $1 AND m.subject = $2 AND m.removed_at IS NULL AND t.state <> 'gone' ORDER BY t.name, t.id`,
        [issuer, subject],
      );
      return rows.map((row) => Membership.parse(row));
    },

    /** The names of the tenants that have removed an identity and not taken it back. */
    async removedFrom({ issuer, subject }: { issuer: string; subject: string }): Promise<string[]> {
      const rows = await control.query(
        `SELECT t.name FROM tenants t WHERE t.state <> 'gone' AND t.id IN (
           SELECT tenant_id FROM members WHERE issuer = $1 AND subject = $2
           GROUP BY tenant_id HAVING bool_and(removed_at IS NOT NULL)) ORDER BY t.name, t.id`,
        [issuer, subject],
      );
      return rows.map((row) => Named.parse(row).name);
    },

    /**
     * Records a sign-in: binds the members that were added under the person's address, accepts open invitations for it, and joins
     * the tenant that the person's organisation is linked to. `signInActions` decides. Returns the person's memberships;
     * `changed`: the tenants whose objects must read their members again, which membership.ts sees to.
     */
    async signIn(signIn: SignIn): Promise<Membership[]> {
      return (await this.recordSignIn(signIn)).memberships;
    },

    async recordSignIn(signIn: SignIn): Promise<{ memberships: Membership[]; changed: TenantId[] }> {
      const { issuer, subject, name, nowMs, rules = { linksMembers: true, verifiesEmails: false } } = signIn;
      const email = signIn.email?.toLowerCase() ?? null;
      const identity = [issuer, subject];
      // A tenant's provider is asked about that tenant alone, and its tenant is linked to it.
      const only = signIn.speaksFor ?? null;
      const [linked = [], own = [], unbound = [], open = []] = await control.batch([
        {
          text: `SELECT l.tenant_id AS "tenantId" FROM tenant_links l JOIN tenants t ON t.id = l.tenant_id
                 WHERE l.issuer = $1 AND l.organisation = $2 AND t.state <> 'gone'
                 UNION SELECT t.id FROM tenants t WHERE t.id = $3 AND t.state <> 'gone'`,
          params: [issuer, signIn.organisation ?? null, only],
        },
        {
          // A removed person has the same address under another identity of the tenant's provider.
          text: `SELECT tenant_id AS "tenantId", removed_at IS NOT NULL AS "isRemoved" FROM members
                 WHERE (issuer = $1 AND subject = $2) OR (tenant_id = $3 AND email = $4 AND removed_at IS NOT NULL)`,
          params: [...identity, only, email],
        },
        {
          // The tenant's provider says who has an address of the tenant, also of a member who has signed in elsewhere before.
          text: `SELECT tenant_id AS "tenantId", id AS "memberId" FROM members
                 WHERE email = $1 AND removed_at IS NULL AND ($2::text IS NULL OR tenant_id = $2)
                   AND (issuer IS NULL OR tenant_id = $2)`,
          params: [email, only],
        },
        {
          text: `SELECT tenant_id AS "tenantId", id, email, role FROM invitations
                 WHERE email = $1 AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > ${fromMs("$2")}
                   AND ($3::text IS NULL OR tenant_id = $3)`,
          params: [email, nowMs, only],
        },
      ]);
      const identities = own.map((row) => Identity.parse(row));
      const live = identities.filter(({ isRemoved }) => !isRemoved).map(({ tenantId }) => tenantId);
      const invitations = open.map((row) => OpenInvitation.parse(row));
      const actions = signInActions(
        {
          linked: linked[0] === undefined ? null : InTenant.parse(linked[0]).tenantId,
          own: live,
          removed: identities.map(({ tenantId }) => tenantId).filter((tenantId) => !live.includes(tenantId)),
          unbound: unbound.map((row) => Unbound.parse(row)),
          invitations,
        },
        { emailVerified: signIn.emailVerified, ...rules },
      );
      const changed: TenantId[] = [];
      for (const action of actions) {
        const { tenantId } = action;
        let isChanged: boolean;
        if (action.kind === "accept") {
          const invitation = invitations.find(({ id }) => id === action.invitationId);
          const acceptor = { issuer, subject, name, newMemberId: newMemberId(), nowMs };
          isChanged =
            invitation !== undefined && (await invitationsStore(control).accept(invitation, acceptor)) === "accepted";
        } else if (action.kind === "bind") {
          isChanged = await this.bind(tenantId, action.memberId, {
            ...{ issuer, subject, name, nowMs, takesOver: only !== null },
          });
        } else {
          // An address that nothing has proved must not stand in the way of its owner.
          const proved = signIn.emailVerified ? email : null;
          isChanged = await this.join(tenantId, { issuer, subject, name, email: proved, nowMs });
        }
        if (isChanged) changed.push(tenantId);
      }
      await control.query(
        `UPDATE members SET last_sign_in_at = ${fromMs("$3")}, name = coalesce($4, name)
         WHERE issuer = $1 AND subject = $2 AND removed_at IS NULL`,
        [...identity, nowMs, name],
      );
      return { memberships: await this.ofIdentity({ issuer, subject }), changed };
    },

    /**
     * Gives a member without identity one; with `takesOver`, also in place of another one. Returns false when the member has one now,
     * the identity is another member, or its issuer does not speak for the tenant any more.
     */
    async bind(
      tenantId: TenantId,
      memberId: string,
      who: { issuer: string; subject: string; name: string | null; nowMs: number; takesOver?: boolean },
    ): Promise<boolean> {
      const { issuer, subject, name, nowMs, takesOver = false } = who;
      const [, rows = []] = await control.batch([
        lockTenant(tenantId),
        {
          text: `WITH bound AS (
                   UPDATE members m SET issuer = $3, subject = $4, name = coalesce(m.name, $5), last_sign_in_at = ${fromMs("$6")}
                   WHERE m.tenant_id = $1 AND m.id = $2 AND (m.issuer IS NULL OR $7) AND m.removed_at IS NULL AND ${speaksNow("$3", "$1")}
                     AND NOT EXISTS (SELECT FROM members o WHERE o.tenant_id = $1 AND o.issuer = $3 AND o.subject = $4 AND o.removed_at IS NULL)
                   RETURNING m.tenant_id),
                 forgotten AS (UPDATE members m SET issuer = NULL, subject = NULL FROM bound b
                   WHERE m.tenant_id = b.tenant_id AND m.removed_at IS NOT NULL AND m.issuer = $3 AND m.subject = $4)
                 UPDATE tenants SET version = version + 1 WHERE id IN (SELECT tenant_id FROM bound) RETURNING id`,
          params: [tenantId, memberId, issuer, subject, name, nowMs, takesOver],
        },
      ]);
      return rows.length > 0;
    },

    /** Adds a person of a linked organisation with the role `member`, unless the tenant has or has removed the identity. */
    async join(
      tenantId: TenantId,
      person: { issuer: string; subject: string; name: string | null; email: string | null; nowMs: number },
    ): Promise<boolean> {
      const [, rows = []] = await control.batch([
        lockTenant(tenantId),
        {
          text: `WITH joined AS (
                   INSERT INTO members (tenant_id, id, email, name, role, issuer, subject, created_at)
                   SELECT $1, $2, (SELECT $3::text WHERE NOT EXISTS (
                            SELECT FROM members m WHERE m.tenant_id = $1 AND m.email = $3 AND m.removed_at IS NULL)),
                          $4, 'member', $5, $6, ${fromMs("$7")}
                   WHERE ${hasRoom} AND NOT EXISTS (SELECT FROM members m WHERE m.tenant_id = $1 AND m.issuer = $5 AND m.subject = $6)
                     AND ${speaksNow("$5", "$1")}
                     AND EXISTS (SELECT FROM tenants t WHERE t.id = $1 AND t.state <> 'gone')
                   RETURNING tenant_id)
                 UPDATE tenants SET version = version + 1 WHERE id IN (SELECT tenant_id FROM joined) RETURNING id`,
          params: [tenantId, newMemberId(), person.email, person.name, person.issuer, person.subject, person.nowMs],
        },
      ]);
      return rows.length > 0;
    },

    /** A live member. */
    async member(tenantId: TenantId, memberId: string): Promise<Membership | undefined> {
      const [row] = await control.query(
        `SELECT ${membershipColumns} FROM members m JOIN tenants t ON t.id = m.tenant_id
         WHERE m.tenant_id = $1 AND m.id = $2 AND m.removed_at IS NULL`,
        [tenantId, memberId],
      );
      return row === undefined ? undefined : Membership.parse(row);
    },

    /** The live members, the oldest first. */
    async list(tenantId: TenantId): Promise<MemberSummary[]> {
      const rows = await control.query(
        `SELECT ${summaryColumns} FROM members m WHERE m.tenant_id = $1 AND m.removed_at IS NULL ORDER BY m.created_at, m.id`,
        [tenantId],
      );
      return readableRows(control, rows, MemberSummary, { part: "members", idOf: idOfRow });
    },

    /**
     * Adds a member who has not signed in. Repeatable with the same id. `undefined`: the tenant has as many members as it may have, has a
     * member with this address, or does not exist.
     */
    async add(
      tenantId: TenantId,
      member: { id: string; email: string; name: string | null; role: TenantRole },
    ): Promise<MemberSummary | undefined> {
      const [, , rows = []] = await control.batch([
        lockTenant(tenantId),
        {
          text: `WITH added AS (
                   INSERT INTO members (tenant_id, id, email, name, role)
                   SELECT $1, $2, $3, $4, $5 WHERE ${hasRoom} AND EXISTS (SELECT FROM tenants t WHERE t.id = $1 AND t.state <> 'gone')
                   ON CONFLICT DO NOTHING RETURNING tenant_id)
                 UPDATE tenants SET version = version + 1 WHERE id IN (SELECT tenant_id FROM added)`,
          params: [tenantId, member.id, member.email, member.name, member.role],
        },
        {
          text: `SELECT ${summaryColumns} FROM members m WHERE m.tenant_id = $1 AND m.id = $2 AND m.removed_at IS NULL`,
          params: [tenantId, member.id],
        },
      ]);
      return rows[0] === undefined ? undefined : MemberSummary.parse(rows[0]);
    },

    /**
     * Gives a member another role, or removes it (`null`). Ends the invitations that the member has made for other roles than
     * `givable`, and with a removal those for the member's address and the member's API keys. Returns false when the member has not `from` any more, or
     * is the last owner who has signed in.
     */
    async change(
      tenantId: TenantId,
      memberId: string,
      { from, to, givable }: { from: TenantRole; to: TenantRole | null; givable: readonly TenantRole[] },
    ): Promise<boolean> {
      const [, rows = []] = await control.batch([
        lockTenant(tenantId),
        {
          text: `WITH changed AS (
                   UPDATE members m SET role = coalesce($4, m.role), removed_at = CASE WHEN $4::text IS NULL THEN now() END
                   WHERE m.tenant_id = $1 AND m.id = $2 AND m.role = $3 AND m.removed_at IS NULL
                     AND (m.role <> 'owner' OR coalesce($4, '') = 'owner' OR m.issuer IS NULL OR EXISTS (
                       SELECT FROM members o WHERE o.tenant_id = $1 AND o.id <> $2 AND o.role = 'owner' AND o.issuer IS NOT NULL
                         AND o.removed_at IS NULL))
                   RETURNING m.tenant_id, m.email),
                 ended AS (
                   UPDATE invitations i SET revoked_at = now() FROM changed c
                   WHERE i.tenant_id = c.tenant_id AND i.accepted_at IS NULL AND i.revoked_at IS NULL
                     AND ((i.invited_by = $2 AND i.role <> ALL ($5::text[])) OR ($4::text IS NULL AND i.email = c.email))),
                 keys AS (
                   UPDATE api_keys k SET revoked_at = now() FROM changed c
                   WHERE k.tenant_id = c.tenant_id AND k.created_by_kind = 'member' AND k.created_by_id = $2
                     AND $4::text IS NULL AND k.revoked_at IS NULL)
                 UPDATE tenants SET version = version + 1 WHERE id IN (SELECT tenant_id FROM changed) RETURNING id`,
          params: [tenantId, memberId, from, to, [...givable]],
        },
      ]);
      return rows.length > 0;
    },
  };
}

export type MembersStore = ReturnType<typeof membersStore>;
