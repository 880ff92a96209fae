// The page that an invitation's link opens: who invites, to what, until when, and how to accept. Opening it changes nothing, because
// mail scanners open links, too.
import type { FC } from "hono/jsx";
import * as z from "zod";
import { type HttpContext, Problem, noStore } from "../http.ts";
import type { Invitation } from "../identity/invitations-store.ts";
import { invitationOf } from "../identity/membership.ts";
import { ownPage } from "./layout.tsx";

export const InvitationQuery = z.strictObject({ token: z.string().min(1).max(512) });

export async function showInvitation(
  c: HttpContext,
  { query: { token } }: { query: z.infer<typeof InvitationQuery> },
): Promise<Response> {
  const invitation = await invitationOf(c.get("context"), token, Date.now());
  if (invitation === undefined || invitation.tenantState === "gone")
    throw new Problem("not_found", "There is no such invitation.");
  const content = <InvitationPage invitation={invitation} publicUrl={c.env.PUBLIC_URL} token={token} />;
  return ownPage(c, "Invitation", content, noStore);
}

const InvitationPage: FC<{ invitation: Invitation; publicUrl: string; token: string }> = (props) => {
  const { tenantName, email, role, isOpen, expiresAtMs } = props.invitation;
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
      <h2>Accept</h2>
      <p>Send it with the access token that your organisation's sign-in gives you:</p>
      <pre class="scroll">
        <code>
          {[
            `curl ${props.publicUrl}/api/invitations/accept \\`,
            `  -H 'authorization: Bearer ACCESS_TOKEN' -H 'content-type: application/json' \\`,
            `  -d '${JSON.stringify({ token: props.token })}'`,
          ].join("\n")}
        </code>
      </pre>
    </>
  );
};
