// Routes for a tenant's people: invitations, members and their roles, for the tenant's own people, the buyer and the operator.
import * as z from "zod";
import { tenantsStore } from "../../control/tenants-store.ts";
import { type Actor, type Permission, permissions, permissionsOf, tenantRoles } from "../../core/actor.ts";
import { AppError } from "../../core/errors.ts";
import { DisplayName, type TenantId } from "../../core/tenant/tenant.ts";
import {
  type HttpContext,
  type PageQuery,
  Problem,
  noteAct,
  noStore,
  noSuchTenant,
  pageOfAll,
  pageQuery,
  tenantOf,
} from "../../http.ts";
import { once } from "../idempotency.ts";
import { invitationsStore } from "./invitations-store.ts";
import { Email, MAX_INVITATIONS_A_DAY, MAX_MEMBERS, MAX_OPEN_INVITATIONS, mayGive } from "./members.ts";
import { membersStore } from "./members-store.ts";
import {
  type Invited,
  acceptInvitation,
  addMember,
  changeMember,
  invitationOf,
  invite as invitePerson,
  newParts,
} from "./membership.ts";

const Role = z.enum(tenantRoles);

export const InvitationRequest = z.strictObject({ email: Email, role: Role.default("member") });
export const RoleRequest = z.strictObject({ role: Role });
export const AcceptanceRequest = z.strictObject({ token: z.string().min(1).max(512) });
export const MemberRequest = z.strictObject({
  email: Email,
  name: DisplayName.optional(),
  role: Role.default("owner"),
});
export const MembersQuery = pageQuery(MAX_MEMBERS);

// ---- members

export async function listMembers(c: HttpContext, { query }: { query: PageQuery }): Promise<Response> {
  const members = await membersStore(c.get("context").control).list(tenantOf(c));
  return c.json(pageOfAll("members", members, query, ({ id }) => id));
}

export function changeRole(
  c: HttpContext,
  { body: { role } }: { body: z.infer<typeof RoleRequest> },
): Promise<Response> {
  return change(c, role);
}

/** The member's tokens are refused from the next request on. */
export function removeMember(c: HttpContext): Promise<Response> {
  return change(c, null);
}

/** The member who asks is none from the next request on. */
export function leaveTenant(c: HttpContext): Promise<Response> {
  const actor = c.get("actor");
  if (actor.kind !== "member") throw new Problem("role_missing", "Only a member can leave.");
  noteAct(c, { target: actor.id });
  return change(c, null, actor.id);
}

async function change(
  c: HttpContext,
  role: z.infer<typeof Role> | null,
  memberId = c.req.param("memberId") ?? "",
): Promise<Response> {
  const done = await changeMember(c.get("context"), tenantOf(c), memberId, { role, own: powersOf(c.get("actor")) });
  switch (done) {
    case "not_found":
      throw new Problem("not_found", "The account has no such member.");
    case "role_missing":
      throw new Problem("role_missing", "You can neither give nor change a role that has more rights than yours.");
    case "last_owner":
      throw new Problem("conflict", "This is the last owner who has signed in. Make another member an owner first.");
    case "changed_meanwhile":
      throw new Problem("conflict", "The member was changed meanwhile. Look at the members, then try again.");
    default:
      return c.json(role === null ? { removed: true, ...done } : { id: memberId, role, ...done });
  }
}

/** Adds a member for the operator, and invites the person. The first owner of a tenant comes so where no order has an address. */
export async function addFirstMember(
  c: HttpContext,
  { body }: { body: z.infer<typeof MemberRequest> },
): Promise<Response> {
  return c.json(await addInvited(c, body), 201, noStore);
}

/** The member that `addFirstMember` adds, and the invitation. Without mail, it has the link to pass on. */
export async function addInvited(c: HttpContext, body: z.infer<typeof MemberRequest>) {
  const context = c.get("context");
  const tenantId = tenantOf(c);
  const creation = c.get("creation");
  const { memberId } = await newParts(context, tenantId, creation);
  const { email, role, name = null } = body;
  const member = await addMember(context, tenantId, { id: memberId, email, name, role });
  if (member === undefined) {
    await livingTenant(c, tenantId);
    throw new Problem("conflict", `The tenant has a member with this address, or ${MAX_MEMBERS} members.`);
  }
  const invitation = await invite(c, { email, role, invitedBy: "operator" });
  return { member, invitation };
}

// ---- invitations

export async function listInvitations(c: HttpContext, { query }: { query: PageQuery }): Promise<Response> {
  const invitations = await invitationsStore(c.get("context").control).list(tenantOf(c), Date.now());
  return c.json(pageOfAll("invitations", invitations, query, ({ id }) => id));
}

const createOnce = once(
  async (c: HttpContext, { body }: { body: z.infer<typeof InvitationRequest> }): Promise<Response> =>
    c.json(await inviteByMember(c, body), 201, noStore),
);

/** Sends the invitation that `createInvitation` answers with. Throws why it cannot be sent. */
export function inviteByMember(c: HttpContext, { email, role }: z.infer<typeof InvitationRequest>): Promise<Invited> {
  const actor = c.get("actor");
  requireGivable(c, role);
  return invite(c, { email, role, invitedBy: actor.kind === "member" ? actor.id : "operator" });
}

/** Throws unless the actor may give the role. */
function requireGivable(c: HttpContext, role: z.infer<typeof Role>): void {
  const own = powersOf(c.get("actor"));
  if (mayGive(own, role)) return;
  const givable = tenantRoles.filter((each) => mayGive(own, each));
  throw new Problem("role_missing", `You can give the roles ${givable.join(", ")}.`);
}

/** The role is checked before a kept answer is looked for: that answer, to a member with more rights, may hold a link. */
export const createInvitation = Object.assign(
  (c: HttpContext, input: { body: z.infer<typeof InvitationRequest> }) => {
    requireGivable(c, input.body.role);
    return createOnce(c, input);
  },
  { takesIdempotencyKey: true },
);

/** Invites the buyer to be the first owner, by the address of the order. */
export async function inviteOwner(c: HttpContext): Promise<Response> {
  return c.json(await inviteFirstOwner(c), 201, noStore);
}

/** Sends the invitation that `inviteOwner` answers with. Throws why it cannot be sent. */
export async function inviteFirstOwner(c: HttpContext): Promise<Invited> {
  const { control } = c.get("context");
  const tenantId = tenantOf(c);
  const tenant = await tenantsStore(control).summary(tenantId);
  if (tenant === undefined)
    throw new Problem("conflict", "The order is not paid yet. The owner can be invited once it is.");
  const email = Email.safeParse(tenant.email);
  if (!email.success)
    throw new Problem("conflict", "The order has no e-mail address. Add one to the account, or ask support.");
  if ((await membersStore(control).list(tenantId)).some(({ role }) => role === "owner"))
    throw new Problem("conflict", "The account has an owner, who can invite others.");
  return invite(c, { email: email.data, role: "owner", invitedBy: "buyer" });
}

async function invite(
  c: HttpContext,
  request: { email: string; role: z.infer<typeof Role>; invitedBy: string },
): Promise<Invited> {
  const tenantId = tenantOf(c);
  const { name } = await livingTenant(c, tenantId);
  const creation = c.get("creation");
  const invited = await invitePerson(c.get("context"), { id: tenantId, name }, { ...request, creation });
  switch (invited) {
    case "no_tenant":
      throw noSuchTenant();
    case "is_member":
      throw new Problem("conflict", "The account has a member with this address.");
    case "full":
      throw new Problem(
        "conflict",
        `An account has ${MAX_OPEN_INVITATIONS} open invitations, and ${MAX_INVITATIONS_A_DAY} new ones a day, at most. Revoke one, or wait a day.`,
      );
    default:
      return invited;
  }
}

export async function revokeInvitation(c: HttpContext): Promise<Response> {
  const { control } = c.get("context");
  const revoked = await invitationsStore(control).revoke(tenantOf(c), c.req.param("invitationId") ?? "");
  if (revoked === undefined) throw new Problem("not_found", "The account has no such invitation.");
  if (!revoked) throw new Problem("conflict", "The invitation was accepted. Remove the member instead.");
  return c.json({ revoked: true });
}

/** Makes the signed-in person a member by an invitation's token. */
export async function accept(
  c: HttpContext,
  { body: { token } }: { body: z.infer<typeof AcceptanceRequest> },
): Promise<Response> {
  const context = c.get("context");
  const nowMs = Date.now();
  const person = c.get("person");
  if (person === undefined) throw new AppError("token_missing");
  const invitation = await invitationOf(context, token, nowMs);
  if (invitation === undefined || invitation.tenantState === "gone")
    throw new Problem("not_found", "There is no such invitation.");
  const membership = await acceptInvitation(context, invitation, person, nowMs);
  switch (membership) {
    case "ended":
      throw new AppError("invitation_ended");
    case "taken":
      throw new Problem("conflict", "The invited address belongs to another sign-in of this account already.");
    case "full":
      throw new Problem("conflict", `The account has ${MAX_MEMBERS} members. Ask its administrator.`);
    case "other_provider":
      throw new Problem("conflict", OTHER_PROVIDER);
    default:
      return c.json(membership, 200, noStore);
  }
}

/** An organisation's own provider cannot make its people members elsewhere. */
export const OTHER_PROVIDER =
  "You have signed in at the provider of another organisation, which speaks for that organisation alone. Sign in elsewhere to accept.";

// ---- both

/** What an actor may give: the operator everything, others what they have. */
function powersOf(actor: Actor): readonly Permission[] {
  return actor.kind === "operator" ? permissions : permissionsOf(actor);
}

async function livingTenant(c: HttpContext, tenantId: TenantId): Promise<{ name: string }> {
  const tenant = await tenantsStore(c.get("context").control).summary(tenantId);
  if (tenant === undefined || tenant.state === "gone") throw noSuchTenant();
  return tenant;
}
