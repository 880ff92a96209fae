// The members of a tenant and the invitations that are open. A person sees only the buttons that would be accepted.
import type { FC } from "hono/jsx";
import { joinBatches } from "../../../adapters/neon.ts";
import { type Permission, type TenantRole, permissionsOf, tenantRoles } from "../../../core/actor.ts";
import { type HttpContext, tenantOf } from "../../../http.ts";
import { RoleRequest, changeRole, removeMember, revokeInvitation } from "../../../identity/members/api.ts";
import { invitationsStore } from "../../../identity/members/invitations-store.ts";
import { refusedChange } from "../../../identity/members/members.ts";
import { type MemberSummary, membersStore } from "../../../identity/members/members-store.ts";
import { type RefusedForm, answerOf, attempt, doneAt, noFields, readForm } from "../../layout/form-body.ts";
import { Instant } from "../../parts/figures.tsx";
import { Action, Refusal, Select } from "../../parts/form.tsx";
import { Badge } from "../../parts/notice.tsx";
import { Table } from "../../parts/table.tsx";
import { accountPage, accountPath, may } from "../account-page.tsx";
import { Invitations } from "./invitations.tsx";
import { memberName } from "./member-name.ts";

/** GET /app/:tenantId/members */
export function showMembers(c: HttpContext): Promise<Response> {
  return membersPage(c);
}

/** POST /app/:tenantId/members/:memberId: gives the member another role. */
export async function submitRole(c: HttpContext): Promise<Response> {
  const form = await readForm(c, RoleRequest);
  if ("refused" in form) return membersPage(c, form.refused);
  const done = await attempt(c, () => changeRole(c, { body: form.data }), form.sent);
  if ("refused" in done) return membersPage(c, done.refused);
  return doneAt(c, accountPath(c, "/members"), `The member has the role ${form.data.role} now.`);
}

/** POST /app/:tenantId/members/:memberId/remove */
export async function submitRemoval(c: HttpContext): Promise<Response> {
  const done = await attempt(c, () => removeMember(c), noFields);
  if ("refused" in done) return membersPage(c, done.refused);
  return doneAt(c, accountPath(c, "/members"), "The member is removed, and is refused from the next request on.");
}

/** POST /app/:tenantId/invitations/:invitationId/revoke */
export async function submitInvitationEnd(c: HttpContext): Promise<Response> {
  const done = await attempt(c, () => revokeInvitation(c), noFields);
  if ("refused" in done) return membersPage(c, done.refused);
  return doneAt(c, accountPath(c, "/members"), "The invitation is revoked. Its link does not work any more.");
}

async function membersPage(c: HttpContext, refused?: RefusedForm): Promise<Response> {
  const control = joinBatches(c.get("context").control);
  const tenantId = tenantOf(c);
  const [members, invitations] = await Promise.all([
    membersStore(control).list(tenantId),
    invitationsStore(control).list(tenantId, Date.now()),
  ]);
  const actor = c.get("actor");
  const viewer = { id: actor.kind === "member" ? actor.id : "", own: permissionsOf(actor) };
  const manages = may(c, "members:manage");
  const path = accountPath(c, "/members");
  const invite = (
    <a class="button main" href={`${path}/invite`}>
      Invite a member
    </a>
  );
  return accountPage(
    c,
    {
      ...{ title: "Members", section: "/members", ...answerOf(refused) },
      lead: "The people of the organisation, and what each may do.",
      ...(manages && { actions: invite }),
    },
    <>
      <Refusal refused={refused} />
      <Table
        caption="Members"
        hidesCaption
        rows={members}
        idOf={({ id }) => id}
        columns={[
          { head: "Person", isHead: true, cell: (member) => <Person of={member} isSelf={member.id === viewer.id} /> },
          { head: "Role", cell: (member) => <Role of={member} all={members} {...{ viewer, manages, path }} /> },
          { head: "Last sign-in", cell: (member) => <LastSignIn of={member} /> },
          ...(manages
            ? [
                {
                  head: "",
                  cell: (member: MemberSummary) => <Remove of={member} all={members} {...{ viewer, path }} />,
                },
              ]
            : []),
        ]}
      />
      {invitations.length > 0 && (
        <>
          <h2>Invitations</h2>
          <Invitations
            all={invitations}
            members={members}
            path={manages ? accountPath(c, "/invitations") : undefined}
          />
        </>
      )}
    </>,
  );
}

const Person: FC<{ of: MemberSummary; isSelf: boolean }> = ({ of: member, isSelf }) => (
  <>
    {memberName(member)} {isSelf && <Badge tone="accent">you</Badge>}
    {member.email !== null && member.name !== null && <div class="small muted">{member.name}</div>}
  </>
);

interface Viewer {
  id: string;
  own: readonly Permission[];
}

/** The roles that the viewer may give to the member. */
function rolesFor(member: MemberSummary, all: readonly MemberSummary[], { own }: Viewer): TenantRole[] {
  const others = all.filter(({ id }) => id !== member.id);
  return tenantRoles.filter((role) => refusedChange({ own, member, others, role }) === undefined);
}

interface MemberProps {
  of: MemberSummary;
  all: readonly MemberSummary[];
  viewer: Viewer;
  path: string;
}

const Role: FC<MemberProps & { manages: boolean }> = ({ of: member, all, viewer, manages, path }) => {
  const roles = manages ? rolesFor(member, all, viewer) : [];
  if (!roles.some((role) => role !== member.role)) return <>{member.role}</>;
  return (
    <form method="post" action={`${path}/${member.id}`} class="inline">
      <Select
        label={`Role of ${memberName(member)}`}
        hidesLabel
        name="role"
        options={roles.map((role) => ({ value: role, text: role }))}
        value={member.role}
      />
      <button class="tiny">Save</button>
    </form>
  );
};

const LastSignIn: FC<{ of: MemberSummary }> = ({ of: { isBound, lastSignInAt } }) => {
  if (!isBound) return <Badge tone="warn">has not signed in</Badge>;
  return lastSignInAt === null ? <span class="muted">–</span> : <Instant at={lastSignInAt} />;
};

const Remove: FC<MemberProps> = ({ of: member, all, viewer, path }) => {
  const others = all.filter(({ id }) => id !== member.id);
  // Who looks at the page leaves at another place, so that it does not happen by mistake.
  if (member.id === viewer.id || refusedChange({ own: viewer.own, member, others, role: null }) !== undefined)
    return null;
  const name = memberName(member);
  return (
    <Action
      action={`${path}/${member.id}/remove`}
      label="Remove"
      tone="bad"
      isTiny
      confirm={`Remove ${name}? Their sessions and clients are refused at once.`}
    />
  );
};
