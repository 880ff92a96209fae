// Acts on who may use a tenant: its API keys, members, clients, sessions and linked organisations.
import * as z from "zod";
import { tenantRoles } from "../../../../core/actor.ts";
import type { HttpContext } from "../../../../http.ts";
import { LinkRequest, linkOrganisation, unlinkOrganisation } from "../../../../identity/api.ts";
import { keyAfter, makeKey, oneKey, revokeKey, successorOf } from "../../../../identity/keys/api.ts";
import { KeyRequest } from "../../../../identity/keys/keys.ts";
import { addInvited, removeMember } from "../../../../identity/members/api.ts";
import { revokeGrant } from "../../../../identity/oauth/api.ts";
import { endSession } from "../../../../identity/sessions/api.ts";
import { ChangeForm, ChangeInputs, keyChangeOf } from "../../../app/people/keys/key-change.tsx";
import { Field, Select } from "../../../parts/form.tsx";
import { type Act, Seed, SeedField, act, creationOf, secretPage } from "./act.tsx";

const nothing = z.object({});
const next = "/people";

const shownKey = (c: HttpContext, { apiKey, delivered }: { apiKey: string; delivered: boolean }): Promise<Response> =>
  secretPage(c, next, {
    ...{ title: "New API key", text: apiKey, caption: "API key" },
    notice: delivered ? undefined : "The key works within about a minute.",
  });

export const newKey = act({
  ...{ path: "keys/new", action: "createKey", role: "admin", title: "Create an API key" },
  text: "Makes a key with the scopes of all tools. Send it to the tenant over a safe channel. It is safer to invite the owner, who can make keys.",
  label: "Create",
  schema: z.object({ name: KeyRequest.shape.name, form: Seed }),
  fields: ({ entered, errors }) => (
    <>
      <SeedField />
      <Field label="Name" name="name" value={entered["name"]} placeholder="default" error={errors["name"]} />
    </>
  ),
  run: (c, { name, form }) => makeKey(c, KeyRequest.parse({ name }), creationOf(form)),
  done: "",
  next,
  answer: shownKey,
});

export const changeOne = act({
  ...{ path: "keys/:keyId/change", action: "changeKey", role: "admin", title: "Change the key" },
  text: "The key's next call uses the change. An expiry can only come earlier.",
  label: "Save",
  schema: ChangeForm,
  load: oneKey,
  fields: (refused, _, key) => <ChangeInputs of={key} refused={refused} />,
  run: (c, fields) => keyAfter(c, keyChangeOf(fields)),
  done: "The key is changed.",
  next,
});

export const rotateKey = act({
  ...{ path: "keys/:keyId/rotate", action: "rotateKey", role: "admin", title: "Rotate the key" },
  text: "Makes a new key with the same rights. The old key works for one more day.",
  label: "Rotate",
  schema: z.object({ form: Seed }),
  fields: () => <SeedField />,
  run: (c, { form }) => successorOf(c, { overlapHours: 24 }, creationOf(form)),
  done: "",
  next,
  answer: shownKey,
});

export const revoke = act({
  ...{ path: "keys/:keyId/revoke", action: "revokeKey", role: "support", title: "Revoke the key", tone: "bad" },
  text: "Tollgate refuses the next request with this key. You cannot undo this.",
  schema: nothing,
  run: (c) => revokeKey(c),
  done: "The key is revoked.",
  next,
});

export const newMember = act({
  ...{ path: "members/new", action: "addMember", role: "admin", title: "Invite a member" },
  text: "For a tenant without an order, which has no owner's address. Tollgate invites the person by mail.",
  label: "Invite",
  schema: z.object({ email: z.email().max(320), role: z.enum(tenantRoles) }),
  fields: ({ entered, errors }, tenant) => (
    <>
      <Field
        label="E-mail"
        name="email"
        type="email"
        value={entered["email"] ?? tenant.email ?? ""}
        isRequired
        error={errors["email"]}
      />
      <Select
        label="Role"
        name="role"
        value={entered["role"] ?? "owner"}
        options={tenantRoles.map((role) => ({ value: role, text: role }))}
      />
    </>
  ),
  run: (c, { email, role }) => addInvited(c, { email: email.toLowerCase(), role }),
  done: "The invitation is on its way.",
  next,
  answer: invitationAnswer,
});

/** Without mail, the operator passes the link on. */
function invitationAnswer(
  c: HttpContext,
  { invitation }: Awaited<ReturnType<typeof addInvited>>,
): Promise<Response> | undefined {
  if (invitation.url === undefined) return undefined;
  return secretPage(c, next, { title: "Invitation", text: invitation.url, caption: `Link for ${invitation.email}` });
}

export const removeOne = act({
  ...{
    path: "members/:memberId/remove",
    action: "removeMember",
    role: "support",
    title: "Remove the member",
    tone: "bad",
  },
  text: "Tollgate refuses the next request of the person's sessions, clients and keys.",
  schema: nothing,
  run: (c) => removeMember(c),
  done: "The member is removed.",
  next,
});

export const endGrant = act({
  ...{
    path: "grants/:grantId/revoke",
    action: "revokeGrant",
    role: "support",
    title: "Revoke the client",
    tone: "bad",
  },
  text: "Tollgate refuses the client's next request. The member can let the client in again.",
  schema: nothing,
  run: (c) => revokeGrant(c),
  done: "The client's access is revoked.",
  next,
});

export const endOne = act({
  ...{ path: "sessions/:sessionId/end", action: "endSession", role: "support", title: "End the session", tone: "bad" },
  text: "Tollgate refuses the browser's next request. The person's clients keep their access.",
  schema: nothing,
  run: (c) => endSession(c),
  done: "The session has ended.",
  next,
});

export const link = act({
  ...{ path: "links/new", action: "linkOrganisation", role: "admin", title: "Link an organisation" },
  text: "From the next request on, Tollgate accepts this issuer's tokens for the organisation as the tenant's.",
  label: "Link",
  schema: LinkRequest,
  fields: ({ entered, errors }, tenant) => (
    <>
      <Field label="Issuer" name="issuer" type="url" value={entered["issuer"]} isRequired error={errors["issuer"]} />
      <Field
        label="Organisation"
        name="organisation"
        value={entered["organisation"] ?? tenant.id}
        isRequired
        error={errors["organisation"]}
        hint="As the issuer's tokens name it."
      />
    </>
  ),
  run: (c, body) => linkOrganisation(c, { body }),
  done: "The organisation is linked.",
  next,
});

export const unlink = act({
  ...{ path: "links/end", action: "unlinkOrganisation", role: "admin", title: "End a link", tone: "bad" },
  text: "From the next request on, Tollgate refuses the issuer's tokens for this organisation. Type both as the list shows them.",
  schema: LinkRequest,
  fields: ({ entered, errors }) => (
    <>
      <Field label="Issuer" name="issuer" type="url" value={entered["issuer"]} isRequired error={errors["issuer"]} />
      <Field
        label="Organisation"
        name="organisation"
        value={entered["organisation"]}
        isRequired
        error={errors["organisation"]}
      />
    </>
  ),
  run: (c, query) => unlinkOrganisation(c, { query }),
  done: "The link has ended.",
  next,
});

export const peopleActs: readonly Act[] = [
  ...[newKey, changeOne, rotateKey, revoke, newMember, removeOne, endGrant, endOne, link, unlink],
];
