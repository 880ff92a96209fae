// The page on which a person decides whether a client may act for them. It names the client, where the answer goes, the
// organisation and what the client may do. Each text of the client is a claim of its own, and the page says so.
import type { FC } from "hono/jsx";
import type { AccountScope } from "../../core/actor.ts";
import type { AskingClient } from "../../identity/oauth/authorize.ts";
import { oauthPaths } from "../../identity/oauth/server.ts";

/** The value of a ticked box, whose name is the scope. */
export const TICKED = "allow";

const wordsOf: Readonly<Record<AccountScope, string>> = {
  "account:read": "See usage, invoices, members and the audit log",
  "account:manage": "Change settings and plan",
};

/** A tenant that the person can choose. */
export interface TenantChoice {
  id: string;
  name: string;
  role: string;
}

export interface ConsentProps {
  client: AskingClient;
  /** The signed-in person, as they know themselves. */
  person: string;
  /** At least one. */
  tenants: readonly TenantChoice[];
  /** What the client may do, in words. */
  abilities: readonly string[];
  /** What the person can allow besides. */
  offers: readonly AccountScope[];
  handle: string;
  /** Binds the form to the session. */
  binding: string;
  /** Starts the sign-in again, and lets the person choose another account. */
  switchUrl: string;
  /** Names of organisations that have removed the person, who may look for one of them. */
  left: readonly string[];
}

export const ConsentContent: FC<ConsentProps> = ({
  client,
  person,
  tenants,
  abilities,
  offers,
  handle,
  binding,
  switchUrl,
  left,
}) => {
  const [only] = tenants;
  return (
    <div class="narrow">
      <p>
        <strong>
          <bdi>{client.name}</bdi>
        </strong>{" "}
        wants to use the tools of {tenants.length === 1 ? only?.name : "an organisation"} for you.
      </p>
      <dl class="facts">
        <dt>Client</dt>
        <dd>
          <bdi>{client.name}</bdi>
          {client.domain === undefined
            ? " (unverified: the client chose this name itself)"
            : ` (published by ${client.domain})`}
        </dd>
        <dt>Access goes to</dt>
        <dd>{client.redirectHost}</dd>
        <dt>Signed in as</dt>
        <dd>
          {person} (<a href={switchUrl}>use another account</a>)
        </dd>
      </dl>
      {left.length > 0 && (
        <p class="warning">
          You are no longer a member of {left.join(", ")}. Ask an administrator there for an invitation.
        </p>
      )}
      {client.isLocal && (
        <p class="warning">
          Access goes to a program on this computer. Continue only if you have just started the sign-in there: any
          program on this computer can ask under this name.
        </p>
      )}
      <form method="post" action={oauthPaths.consent}>
        <input type="hidden" name="handle" value={handle} />
        <input type="hidden" name="binding" value={binding} />
        {tenants.length === 1 ? (
          <p>
            Organisation: <strong>{only?.name}</strong>
            <input type="hidden" name="tenant" value={only?.id} />
          </p>
        ) : (
          <fieldset>
            <legend>Organisation</legend>
            {tenants.map(({ id, name, role }) => (
              <label>
                <input type="radio" name="tenant" value={id} required /> {name} ({role})
              </label>
            ))}
          </fieldset>
        )}
        {abilities.length > 0 && (
          <>
            <p>The client will be able to:</p>
            <ul>
              {abilities.map((ability) => (
                <li>{ability}</li>
              ))}
            </ul>
          </>
        )}
        {offers.length > 0 && (
          <fieldset>
            <legend>Also let it do this with the organisation's account, as far as your role permits</legend>
            {offers.map((scope) => (
              <label>
                <input type="checkbox" name={scope} value={TICKED} /> {wordsOf[scope]}
              </label>
            ))}
          </fieldset>
        )}
        <p>It keeps this access while it uses it, until an administrator of the organisation ends it.</p>
        <p class="actions">
          <button class="main" name="decision" value="allow">
            Allow
          </button>
          <button name="decision" value="deny" formnovalidate>
            Refuse
          </button>
        </p>
      </form>
    </div>
  );
};
