// What the person who is signed in may do in the organisation, and the way out of it.
import { type Permission, permissionsOf } from "../../../core/actor.ts";
import type { HttpContext } from "../../../http.ts";
import { leaveTenant } from "../../../identity/members/api.ts";
import { type RefusedForm, answerOf, attempt, doneAt, noFields } from "../../layout/form-body.ts";
import { Action, Refusal } from "../../parts/form.tsx";
import { accountPage, accountPath, tenantFor } from "../account-page.tsx";

/** What each permission lets a member do, in words. */
const permissionWords: Readonly<Record<Permission, string>> = {
  "account:read": "See the account, its plan and its limits",
  "account:write": "Change the name, the address, alerts and branding",
  "account:remove": "Close the account, and bring it back",
  "usage:read": "See usage, calls and invoices",
  "billing:manage": "Change the plan and pay",
  "documents:read": "See and download documents",
  "documents:write": "Upload, replace and delete documents",
  "data:export": "Export the account's data",
  "keys:manage": "Make and revoke API keys",
  "secrets:manage": "Set the secrets that tools use",
  "members:read": "See members, connected agents and sessions",
  "members:manage": "Invite, change and remove members, agents and sessions",
  "membership:leave": "Leave the organisation",
  "provider:manage": "Choose the provider at which people sign in",
  "audit:read": "Read the audit log",
  "tools:use": "Use the tools: through an agent, or on the playground",
};

/** GET /app/:tenantId/access */
export function showAccess(c: HttpContext): Promise<Response> {
  return accessPage(c);
}

async function accessPage(c: HttpContext, refused?: RefusedForm): Promise<Response> {
  const actor = c.get("actor");
  const own = permissionsOf(actor);
  const { members } = await tenantFor(c);
  const isOther = ({ id, role, issuer }: (typeof members)[number]): boolean =>
    role === "owner" && issuer !== null && actor.kind === "member" && id !== actor.id;
  const isLastOwner = actor.kind === "member" && actor.role === "owner" && !members.some(isOther);
  return accountPage(
    c,
    { title: "Your access", section: "/access", ...answerOf(refused) },
    <>
      <Refusal refused={refused} />
      <div class="split">
        <div class="card">
          <h3>You are {actor.kind === "member" ? actor.role : "a guest"} of this organisation</h3>
          <ul class="ticks">
            {own.map((permission) => (
              <li>{permissionWords[permission]}</li>
            ))}
          </ul>
          <p class="muted">An owner or an admin can give you another role.</p>
        </div>
        <div class={isLastOwner ? "card" : "card danger"}>
          <h3>Leave</h3>
          {isLastOwner ? (
            <p>
              You are the last owner. Make another member an owner first, or{" "}
              <a href={accountPath(c, "/data")}>close the account</a>.
            </p>
          ) : (
            <>
              <p>
                Your session and the agents that you have connected are refused at once. You need an invitation to
                return.
              </p>
              <Action
                action={accountPath(c, "/leave")}
                label="Leave the organisation"
                tone="bad"
                confirm="Leave the organisation? You need an invitation to return."
              />
            </>
          )}
        </div>
      </div>
    </>,
  );
}

/** POST /app/:tenantId/leave: the person who is signed in leaves. */
export async function submitLeave(c: HttpContext): Promise<Response> {
  const done = await attempt(c, () => leaveTenant(c), noFields);
  if ("refused" in done) return accessPage(c, done.refused);
  return doneAt(c, "/app", "You have left the organisation.");
}
