// The page that an invitation's link opens: who invites, to what, until when, and how to accept. Opening it changes nothing, because
// mail scanners open links, too. A signed-in person accepts with a button.
import type { FC } from "hono/jsx";
import * as z from "zod";
import { AppError } from "../../core/errors.ts";
import { type HttpContext, Problem, actAs } from "../../http.ts";
import { OTHER_PROVIDER } from "../../identity/members/api.ts";
import type { Invitation } from "../../identity/members/invitations-store.ts";
import type { Membership } from "../../identity/members/members-store.ts";
import { acceptInvitation, acceptedMembership, invitationOf } from "../../identity/members/membership.ts";
import { bindingOf, isBound } from "../../identity/oauth/consent.ts";
import { errorPage } from "../layout/error-page.tsx";
import { personalPage } from "../layout/layout.tsx";
import { foreignForm, nameOf, signedIn } from "./sign-in.tsx";
import { isOwn } from "../../identity/oauth/consent.ts";

export const InvitationQuery = z.strictObject({ token: z.string().min(1).max(512) });

export async function showInvitation(
  c: HttpContext,
  { query: { token } }: { query: z.infer<typeof InvitationQuery> },
): Promise<Response> {
  const invitation = await found(c, token);
  const who = await signedIn(c);
  // The sign-in itself accepts the invitation where the person's address is proved.
  const membership =
    invitation.isOpen || who === undefined
      ? undefined
      : await acceptedMembership(c.get("context"), invitation, who.session);
  if (membership !== undefined) return welcome(c, membership);
  const current = invitation.isOpen ? who : undefined;
  const back = encodeURIComponent(`/invitation?token=${token}`);
  return personalPage(
    c,
    { title: "Invitation", hasForm: current !== undefined },
    <InvitationPage
      invitation={invitation}
      token={token}
      person={current && nameOf(current.session)}
      binding={current && (await bindingOf(token, current.token))}
      signInUrl={`/sign-in?return=${back}${current === undefined ? "" : "&prompt=select_account"}`}
    />,
  );
}

/** POST /invitation: the signed-in person becomes a member. */
export async function submitInvitation(c: HttpContext): Promise<Response> {
  if (!isOwn(c)) return foreignForm(c);
  const form = new URLSearchParams(await c.req.text());
  const token = form.get("token") ?? "";
  const current = await signedIn(c);
  if (current === undefined || !(await isBound(form.get("binding") ?? "", token, current.token)))
    return errorPage(c, {
      ...{ title: "This page is not valid any more", status: 400 },
      text: "Your session has changed since it was shown. Open the invitation again.",
    });
  const invitation = await found(c, token);
  const { issuer, subject, email, name } = current.session;
  actAs(c, { kind: "person", issuer, subject });
  const person = { issuer, subject, email, emailVerified: false, name, organisation: null };
  const membership = await acceptInvitation(c.get("context"), invitation, person, Date.now());
  if (membership === "ended") throw new AppError("invitation_ended");
  if (membership === "taken")
    throw new Problem("conflict", "The invited address belongs to another sign-in of this account already.");
  if (membership === "full")
    throw new Problem("conflict", "The account has as many members as it may have. Ask its administrator.");
  if (membership === "other_provider") throw new Problem("conflict", OTHER_PROVIDER);
  return welcome(c, membership);
}

function welcome(c: HttpContext, membership: Membership): Promise<Response> {
  return personalPage(
    c,
    { title: "You are a member" },
    <p>
      You belong to <strong>{membership.tenantName}</strong> as <strong>{membership.role}</strong>. Add the MCP URL{" "}
      <code>{`${c.env.PUBLIC_URL}/mcp`}</code> to your client, and sign in there.
    </p>,
  );
}

async function found(c: HttpContext, token: string): Promise<Invitation> {
  const invitation = await invitationOf(c.get("context"), token, Date.now());
  if (invitation === undefined || invitation.tenantState === "gone")
    throw new Problem("not_found", "There is no such invitation.");
  return invitation;
}

interface InvitationPageProps {
  invitation: Invitation;
  token: string;
  /** The signed-in person. */
  person: string | undefined;
  binding: string | undefined;
  signInUrl: string;
}

const InvitationPage: FC<InvitationPageProps> = ({ invitation, token, person, binding, signInUrl }) => {
  const { tenantName, email, role, isOpen, expiresAtMs } = invitation;
  if (!isOpen)
    return (
      <p>
        This invitation to <strong>{tenantName}</strong> was used or withdrawn, or it has expired. Ask the account's
        administrator for a new one.
      </p>
    );
  return (
    <>
      <p>
        You are invited to the account <strong>{tenantName}</strong> as <strong>{role}</strong>. The invitation is for{" "}
        {email} and can be accepted once, until {new Date(expiresAtMs).toISOString().slice(0, 10)}.
      </p>
      {person === undefined ? (
        <p class="actions">
          <a class="button" href={signInUrl}>
            Sign in to accept
          </a>
        </p>
      ) : (
        <form method="post" action="/invitation">
          <input type="hidden" name="token" value={token} />
          <input type="hidden" name="binding" value={binding} />
          <p>
            You are signed in as <strong>{person}</strong> (<a href={signInUrl}>use another account</a>).
          </p>
          <p class="actions">
            <button class="main">Accept</button>
          </p>
        </form>
      )}
    </>
  );
};
