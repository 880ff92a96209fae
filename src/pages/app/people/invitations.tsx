// Invitations: the form for a new one, the page with the link where no mail brings it, and the list.
import type { FC } from "hono/jsx";
import * as z from "zod";
import { newTenantId } from "../../../adapters/ids.ts";
import { type TenantRole, permissionsOf, tenantRoles } from "../../../core/actor.ts";
import { type HttpContext, noteAct } from "../../../http.ts";
import { InvitationRequest, inviteByMember } from "../../../identity/members/api.ts";
import type { InvitationSummary } from "../../../identity/members/invitations-store.ts";
import { mayGive } from "../../../identity/members/members.ts";
import type { MemberSummary } from "../../../identity/members/members-store.ts";
import type { Invited } from "../../../identity/members/membership.ts";
import { type RefusedForm, answerOf, attempt, doneAt, readForm } from "../../layout/form-body.ts";
import { Copyable } from "../../parts/code.tsx";
import { Instant } from "../../parts/figures.tsx";
import { Action, Field, Refusal, Select } from "../../parts/form.tsx";
import { Badge, Notice } from "../../parts/notice.tsx";
import { Table } from "../../parts/table.tsx";
import { accountPage, accountPath } from "../account-page.tsx";
import { creationOf } from "./keys/new-key.tsx";
import { memberNames } from "./member-name.ts";

/** What a role may do, in one line. */
const roleWords: Readonly<Record<TenantRole, string>> = {
  owner: "everything, also closing the account",
  admin: "everything but closing the account and choosing the sign-in provider",
  developer: "sees usage, makes keys, uses the tools",
  member: "sees usage, uses the tools",
  billing: "sees usage, changes the plan and pays",
};

const InviteForm = z.object({ form: z.string(), ...InvitationRequest.shape });

/** GET /app/:tenantId/members/invite */
export function showInvite(c: HttpContext): Promise<Response> {
  return invitePage(c);
}

/** POST /app/:tenantId/invitations. A form that is sent twice shows the same link. */
export async function submitInvite(c: HttpContext): Promise<Response> {
  const form = await readForm(c, InviteForm);
  if ("refused" in form) return invitePage(c, form.refused);
  const { form: seed, ...request } = form.data;
  c.set("creation", creationOf(seed));
  const done = await attempt(c, () => inviteByMember(c, request), form.sent);
  if ("refused" in done) return invitePage(c, done.refused);
  const { id, email, url } = done.done;
  noteAct(c, { target: id });
  if (url === undefined) return doneAt(c, accountPath(c, "/members"), `An invitation is on its way to ${email}.`);
  return linkPage(c, { ...done.done, url });
}

function linkPage(c: HttpContext, { email, role, url, mail, expiresAt }: Invited & { url: string }): Promise<Response> {
  return accountPage(
    c,
    { title: "Pass on the invitation", section: "/members", lead: "Copy the link now: it is shown once." },
    <>
      {mail === "failed" && <Notice tone="warn">The mail service did not take the mail.</Notice>}
      <p>
        Send this link to <strong>{email}</strong>. Who opens it becomes {role}, so send it in private. It works once,
        until <Instant at={expiresAt} /> UTC.
      </p>
      <Copyable text={url} caption="Invitation" />
      <p class="actions">
        <a class="button" href={accountPath(c, "/members")}>
          All members
        </a>
      </p>
    </>,
  );
}

function invitePage(c: HttpContext, refused?: RefusedForm): Promise<Response> {
  const { entered = {}, errors = {} } = refused ?? {};
  const own = permissionsOf(c.get("actor"));
  const roles = tenantRoles.filter((role) => mayGive(own, role));
  return accountPage(
    c,
    { title: "Invite a member", section: "/members", ...answerOf(refused) },
    <form method="post" action={accountPath(c, "/invitations")} class="sheet">
      <Refusal refused={refused} />
      <input type="hidden" name="form" value={newTenantId()} />
      <Field
        label="E-mail address"
        name="email"
        type="email"
        value={entered["email"]}
        error={errors["email"]}
        placeholder="ada@example.com"
        isRequired
      />
      <Select
        label="Role"
        name="role"
        value={entered["role"] ?? "member"}
        error={errors["role"]}
        options={roles.map((role) => ({ value: role, text: `${role}: ${roleWords[role]}` }))}
      />
      <div class="actions">
        <button class="main">Invite</button>
        <a class="button" href={accountPath(c, "/members")}>
          Cancel
        </a>
      </div>
    </form>,
  );
}

const tones = { open: "accent", accepted: "good", revoked: "neutral", expired: "warn" } as const;

interface InvitationsProps {
  all: readonly InvitationSummary[];
  members: readonly MemberSummary[];
  /** Of the invitations, for who may revoke them. */
  path: string | undefined;
}

/** The invitations of a tenant. */
export const Invitations: FC<InvitationsProps> = ({ all, members, path }) => {
  const nameOf = memberNames(members);
  const inviter = ({ invitedBy }: InvitationSummary): string =>
    invitedBy === "buyer" || invitedBy === "operator" ? `the ${invitedBy}` : (nameOf(invitedBy) ?? "a former member");
  return (
    <Table
      caption="Invitations, the newest first"
      hidesCaption
      rows={all}
      columns={[
        { head: "Address", isHead: true, cell: ({ email }) => email },
        { head: "Role", cell: ({ role }) => role },
        { head: "State", cell: ({ state }) => <Badge tone={tones[state]}>{state}</Badge> },
        { head: "Invited by", cell: inviter },
        { head: "Until", cell: ({ expiresAt }) => <Instant at={expiresAt} /> },
        ...(path === undefined
          ? []
          : [
              {
                head: "",
                cell: ({ id, email, state }: InvitationSummary) =>
                  state === "open" && (
                    <Action
                      action={`${path}/${id}/revoke`}
                      label="Revoke"
                      tone="bad"
                      isTiny
                      confirm={`Revoke the invitation of ${email}?`}
                    />
                  ),
              },
            ]),
      ]}
    />
  );
};
