// The organisations of a person. With one, it leads there at once.
import { type HttpContext } from "../../http.ts";
import { membersStore } from "../../identity/members/members-store.ts";
import { errorPage } from "../layout/error-page.tsx";
import { personalPage } from "../layout/layout.tsx";
import { nameOf } from "../sign-in/sign-in.tsx";

/** GET /app */
export async function showOrganisations(c: HttpContext): Promise<Response> {
  const person = c.get("person");
  const memberships = person === undefined ? [] : await membersStore(c.get("context").control).ofIdentity(person);
  const [only, ...others] = memberships;
  if (only === undefined)
    return errorPage(c, {
      ...{ title: "No organisation for this account", status: 403 },
      text: `You are signed in as ${person === undefined ? "a stranger" : nameOf(person)}, who is a member of no organisation here. Open the invitation that you got, or sign in with another account.`,
      link: { url: "/sign-in?prompt=select_account&return=/app", text: "Use another account" },
    });
  if (others.length === 0) return c.redirect(`/app/${only.tenantId}`, 303);
  return personalPage(
    c,
    { title: "Your organisations" },
    <ul class="choices">
      {memberships.map(({ tenantId, tenantName, role }) => (
        <li>
          <a href={`/app/${tenantId}`}>
            <strong>{tenantName}</strong> <span class="muted">{role}</span>
          </a>
        </li>
      ))}
    </ul>,
  );
}
