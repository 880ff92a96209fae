// Changes a tenant's people: invites, accepts, signs in, changes roles, removes. Each change is in the control tables first, then
// the tenant's object reads it, and only then the answer says that it is done.
import { newMemberId } from "../../adapters/ids.ts";
import { sendMail, sendsMail } from "../../adapters/mail.ts";
import { AnswerLost } from "../../adapters/neon.ts";
import type { Context } from "../../control/context.ts";
import type { Creation } from "../../control/idempotent-requests-store.ts";
import { notifyObject } from "../../control/notify-object.ts";
import type { Permission, Person, TenantRole } from "../../core/actor.ts";
import { config } from "../../core/app-config.ts";
import { mintCredential, sha256Hex, toBase64Url, verifyCredential } from "../../core/keys/credentials.ts";
import { AppError } from "../../core/errors.ts";
import type { TenantId } from "../../core/tenant/tenant.ts";
import { describeError, log } from "../../log.ts";
import { speaksFor } from "../providers/providers.ts";
import { invitationMail } from "./invitation-mail.ts";
import { type Invitation, invitationsStore } from "./invitations-store.ts";
import { INVITATION_LIFE_MS, givableBy, refusedChange } from "./members.ts";
import { type MemberSummary, type Membership, type SignIn, membersStore } from "./members-store.ts";

/** Path of the page that an invitation's link opens. */
export const INVITATION_PATH = "/invitation";

export interface Invited {
  id: string;
  email: string;
  role: TenantRole;
  expiresAt: string;
  /** sent: the person has a mail. failed: the mail service did not take it. off: this deployment sends no mail. */
  mail: "sent" | "failed" | "off";
  /** The link for the person, where no mail brings it. It works once, for who opens it: pass it on with care. */
  url?: string;
}

/** Parts of a new member or invitation. The same for every run of one request with an `Idempotency-Key`. */
export async function newParts(
  { env }: Context,
  tenantId: TenantId,
  creation: Creation | undefined,
): Promise<{ memberId: string; invitationId: string; secret: string }> {
  if (creation === undefined) {
    const secret = toBase64Url(crypto.getRandomValues(new Uint8Array(24)));
    return { memberId: newMemberId(), invitationId: newMemberId(), secret };
  }
  // Only the holder of CREDENTIAL_KEY can derive them.
  const fields = ["of-a-request", creation.seed];
  const digest = await sha256Hex(await mintCredential(env.CREDENTIAL_KEY, { kind: "invitation", tenantId, fields }));
  return { memberId: digest.slice(0, 12), invitationId: digest.slice(12, 24), secret: digest.slice(24) };
}

/**
 * Invites a person, and replaces the open invitation for the same address. The inviter gets the link only when no mail brings it:
 * the mail proves that the person who accepts reads the address. Returns why not, otherwise the invitation.
 */
export async function invite(
  context: Context,
  tenant: { id: TenantId; name: string },
  request: { email: string; role: TenantRole; invitedBy: string; creation?: Creation | undefined },
): Promise<Invited | "full" | "is_member" | "no_tenant"> {
  const { env } = context;
  const { email, role, invitedBy, creation } = request;
  const nowMs = creation?.atMs ?? Date.now();
  const { invitationId: id, secret } = await newParts(context, tenant.id, creation);
  const token = await mintCredential(env.CREDENTIAL_KEY, {
    kind: "invitation",
    tenantId: tenant.id,
    fields: [id, secret],
  });
  const expiresAtMs = nowMs + INVITATION_LIFE_MS;
  const row = { id, email, role, tokenHash: await sha256Hex(token), invitedBy, expiresAtMs };
  const added = await repeated(() => invitationsStore(context.control).add(tenant.id, row, nowMs));
  if (added !== "added") return added;
  const url = `${env.PUBLIC_URL}${INVITATION_PATH}?token=${token}`;
  const mail = await mailed(context, tenant, { to: email, role, url, expiresAtMs });
  const expiresAt = new Date(expiresAtMs).toISOString();
  return { id, email, role, expiresAt, mail, ...(mail !== "sent" && { url }) };
}

async function mailed(
  { env }: Context,
  tenant: { id: TenantId; name: string },
  invitation: { to: string; role: TenantRole; url: string; expiresAtMs: number },
): Promise<Invited["mail"]> {
  if (!sendsMail(env)) return "off";
  try {
    await sendMail(env, invitationMail({ ...invitation, product: config.product.name, tenantName: tenant.name }));
    return "sent";
  } catch (error) {
    log("error", "mail_not_sent", { tenantId: tenant.id, error: describeError(error) });
    return "failed";
  }
}

/** The open or ended invitation of a token; `undefined` for a token that is none of ours. A forged one costs no look into the database. */
export async function invitationOf(context: Context, token: string, nowMs: number): Promise<Invitation | undefined> {
  const credential = await verifyCredential(context.env.CREDENTIAL_KEY, token);
  if (credential?.kind !== "invitation") return undefined;
  const [id = ""] = credential.fields;
  return invitationsStore(context.control).find(credential.tenantId, id, await sha256Hex(token), nowMs);
}

/**
 * Makes a signed-in person a member by an invitation. The token is the proof: the person's address at the issuer may be another
 * one. The person who accepted it before gets the membership again; an invitation changes nothing twice. other_provider: the
 * person has signed in at the provider of another tenant.
 */
export async function acceptInvitation(
  context: Context,
  invitation: Invitation,
  person: Person,
  nowMs: number,
): Promise<(Membership & { delivered: boolean }) | "ended" | "taken" | "full" | "other_provider"> {
  const { issuer, subject, name } = person;
  const { control } = context;
  const { tenantId } = invitation;
  if (!speaksFor(issuer, tenantId)) return "other_provider";
  const acceptor = { issuer, subject, name, newMemberId: newMemberId(), nowMs };
  const accepted = invitation.isOpen ? await invitationsStore(control).accept(invitation, acceptor) : "ended";
  if (accepted === "ended") {
    // People press a button twice: the second request may come while the first one runs.
    const membership = await acceptedMembership(context, invitation, person);
    return membership === undefined ? "ended" : { ...membership, delivered: true };
  }
  if (accepted !== "accepted") return accepted;
  const { delivered } = await notifyObject(context, tenantId);
  const membership = await acceptedMembership(context, invitation, person);
  if (membership === undefined) throw new AppError("conflict", "the member was removed at once");
  return { ...membership, delivered };
}

/** The membership that an identity has by this invitation; `undefined` when it has not accepted it, or is no member any more. */
export async function acceptedMembership(
  { control }: Context,
  { id, tenantId }: Pick<Invitation, "id" | "tenantId">,
  identity: { issuer: string; subject: string },
): Promise<Membership | undefined> {
  const [memberships, acceptedBy] = await Promise.all([
    membersStore(control).ofIdentity(identity),
    invitationsStore(control).acceptedBy(tenantId, id),
  ]);
  return memberships.find((each) => each.tenantId === tenantId && each.memberId === acceptedBy);
}

/** Records a sign-in and makes the objects of the tenants that it changed read their members. Returns the person's memberships. */
export async function signInMember(context: Context, signIn: SignIn): Promise<Membership[]> {
  const { memberships, changed } = await membersStore(context.control).recordSignIn(signIn);
  await Promise.all(changed.map((tenantId) => notifyObject(context, tenantId)));
  return memberships;
}

/** Adds a member who has not signed in. Returns `undefined` when the tenant has the address already, is full, or does not exist. */
export async function addMember(
  context: Context,
  tenantId: TenantId,
  member: { id: string; email: string; name: string | null; role: TenantRole },
): Promise<MemberSummary | undefined> {
  const added = await repeated(() => membersStore(context.control).add(tenantId, member));
  if (added !== undefined) await notifyObject(context, tenantId);
  return added;
}

/**
 * Gives a member another role, or removes it (`null`), for an actor with the permissions `own`. In force on the member's next
 * request. Returns why not, otherwise whether the tenant's object has confirmed it.
 */
export async function changeMember(
  context: Context,
  tenantId: TenantId,
  memberId: string,
  { role, own }: { role: TenantRole | null; own: readonly Permission[] },
): Promise<{ delivered: boolean } | "not_found" | "role_missing" | "last_owner" | "changed_meanwhile"> {
  const store = membersStore(context.control);
  const all = await store.list(tenantId);
  const member = all.find(({ id }) => id === memberId);
  if (member === undefined) return "not_found";
  const others = all.filter(({ id }) => id !== memberId);
  const refused = refusedChange({ own, member, others, role });
  if (refused !== undefined) return refused;
  // An invitation that the member has made must not give more than the member has left.
  const givable = role === null ? [] : givableBy(role);
  const isChanged = await store.change(tenantId, memberId, { from: member.role, to: role, givable });
  if (!isChanged) return "changed_meanwhile";
  return { delivered: await enforceChange(context, tenantId, role === null ? [memberId] : []) };
}

/**
 * Makes the tenant's object follow its members, and revokes the grants of those whose access has ended. Returns whether the object
 * has confirmed it.
 */
export async function enforceChange(context: Context, tenantId: TenantId, ended: readonly string[]): Promise<boolean> {
  const { delivered } = await notifyObject(context, tenantId);
  // The configuration refuses these members' clients already. This also ends what admins see of them.
  if (ended.length > 0)
    await context
      .tenantObject(tenantId)
      .revokeGrants({ memberIds: ended })
      .catch((error: unknown) =>
        log("warn", "grants_not_revoked", { tenantId, members: ended.join(" "), error: describeError(error) }),
      );
  return delivered;
}

/** Runs a repeatable write again when its answer was lost: only this request knows what it has made. */
async function repeated<Result>(write: () => Promise<Result>): Promise<Result> {
  return write().catch((error: unknown) => {
    if (error instanceof AnswerLost) return write();
    throw error;
  });
}
