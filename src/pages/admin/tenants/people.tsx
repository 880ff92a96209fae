// Who may use a tenant: its API keys, members, the clients that they have let in, their sessions, and linked organisations.
import { joinBatches } from "../../../adapters/neon.ts";
import { errorCode } from "../../../core/errors.ts";
import { type HttpContext, PageQuery, tenantOf } from "../../../http.ts";
import { keysStore } from "../../../identity/keys/keys-store.ts";
import { membersStore } from "../../../identity/members/members-store.ts";
import { sessionsStore } from "../../../identity/sessions/sessions-store.ts";
import { linksStore } from "../../../identity/tokens/links-store.ts";
import { describeError, log } from "../../../log.ts";
import { Instant, count } from "../../parts/figures.tsx";
import { Badge, Empty, Notice } from "../../parts/notice.tsx";
import { Table } from "../../parts/table.tsx";
import { operatorPage } from "../operator-page.tsx";
import { ActLink, TENANTS_PATH, tenantOnPage } from "./acts/act.tsx";
import {
  changeOne,
  endGrant,
  endOne,
  link,
  newKey,
  newMember,
  removeOne,
  revoke,
  rotateKey,
  unlink,
} from "./acts/people.tsx";
import { TenantTabs } from "./tenant-parts.tsx";

const SHOWN = PageQuery.parse({});

/** The clients that members have let in. `undefined`: the tenant's object does not answer. */
async function grantsOf(c: HttpContext) {
  try {
    const page = await c.get("context").tenantObject(tenantOf(c)).listGrants({ limit: SHOWN.limit });
    return page?.grants ?? [];
  } catch (error) {
    log("warn", "grants_not_read", { tenantId: tenantOf(c), code: errorCode(error), error: describeError(error) });
    return undefined;
  }
}

/** GET /admin/tenants/:tenantId/people */
export async function showTenantPeople(c: HttpContext): Promise<Response> {
  const tenantId = tenantOf(c);
  const tenant = tenantOnPage(c);
  const control = joinBatches(c.get("context").control);
  const [keys, members, sessions, links, grants] = await Promise.all([
    keysStore(control).list(tenantId),
    membersStore(control).list(tenantId),
    sessionsStore(control).list(tenantId, SHOWN, Date.now()),
    linksStore(control).list(tenantId),
    grantsOf(c),
  ]);
  const names = new Map(members.map(({ id, name, email }) => [id, name ?? email ?? id]));
  const own = { c, tenantId, isTiny: true };
  return operatorPage(
    c,
    { title: tenant.name, section: TENANTS_PATH },
    <>
      <TenantTabs tenantId={tenantId} current="/people" />
      <div class="card">
        <h2>API keys</h2>
        <Table
          caption="API keys. Times in UTC."
          hidesCaption
          rows={keys}
          empty={<Empty title="No API key">The owner can make one.</Empty>}
          columns={[
            {
              head: "Key",
              isHead: true,
              cell: ({ name, id }) => (
                <>
                  <strong>{name}</strong> <code>{id}</code>
                </>
              ),
            },
            { head: "Scopes", cell: ({ scopes }) => scopes.join(" ") },
            { head: "Created", cell: ({ createdAt }) => <Instant at={createdAt} /> },
            { head: "By", cell: ({ createdBy }) => names.get(createdBy.id ?? "") ?? createdBy.kind },
            {
              head: "Only",
              cell: ({ tools, unitsPerMonth }) =>
                [...(tools ?? []), ...(unitsPerMonth === null ? [] : [`${count(unitsPerMonth)} units a month`])].join(
                  ", ",
                ),
            },
            { head: "Ends", cell: ({ expiresAt }) => (expiresAt === null ? "never" : <Instant at={expiresAt} />) },
            {
              head: "",
              cell: ({ id, revokedAt }) =>
                revokedAt !== null ? (
                  <Badge>revoked</Badge>
                ) : (
                  <span class="row-acts">
                    <ActLink {...own} to={changeOne} params={{ keyId: id }} text="Change" />
                    <ActLink {...own} to={rotateKey} params={{ keyId: id }} text="Rotate" />
                    <ActLink {...own} to={revoke} params={{ keyId: id }} text="Revoke" />
                  </span>
                ),
            },
          ]}
        />
        <p class="actions">
          <ActLink c={c} tenantId={tenantId} to={newKey} />
        </p>
      </div>
      <div class="card">
        <h2>Members</h2>
        <Table
          caption="Members. Times in UTC."
          hidesCaption
          rows={members}
          empty={<Empty title="No member">The first owner comes with the order, or by your invitation.</Empty>}
          columns={[
            { head: "Member", isHead: true, cell: ({ name, email, id }) => name ?? email ?? id },
            { head: "E-mail", cell: ({ email }) => email ?? "" },
            { head: "Role", cell: ({ role }) => <Badge>{role}</Badge> },
            {
              head: "Last sign-in",
              cell: ({ lastSignInAt }) => (lastSignInAt === null ? "never" : <Instant at={lastSignInAt} />),
            },
            { head: "", cell: ({ id }) => <ActLink {...own} to={removeOne} params={{ memberId: id }} text="Remove" /> },
          ]}
        />
        <p class="actions">
          <ActLink c={c} tenantId={tenantId} to={newMember} />
        </p>
      </div>
      <div class="card">
        <h2>Clients</h2>
        {grants === undefined ? (
          <Notice tone="warn">The tenant's object does not answer at the moment, so its clients are not known.</Notice>
        ) : (
          <Table
            caption="Clients that members have let in. Times in UTC."
            hidesCaption
            rows={grants}
            empty={<p class="muted">No member has let a client in.</p>}
            columns={[
              { head: "Client", isHead: true, cell: ({ clientName, clientId }) => clientName ?? clientId },
              { head: "Member", cell: ({ memberId }) => names.get(memberId) ?? memberId },
              { head: "Last used", cell: ({ lastUsedAtMs: at }) => (at === null ? "never" : <Instant at={at} />) },
              { head: "", cell: ({ id }) => <ActLink {...own} to={endGrant} params={{ grantId: id }} text="Revoke" /> },
            ]}
          />
        )}
      </div>
      <div class="card">
        <h2>Sessions in browsers</h2>
        <Table
          caption="Sessions of members in browsers. Times in UTC."
          hidesCaption
          rows={sessions}
          empty={<p class="muted">No member is signed in to pages.</p>}
          columns={[
            { head: "Member", isHead: true, cell: ({ memberId, email }) => names.get(memberId) ?? email ?? memberId },
            { head: "Since", cell: ({ startedAt }) => <Instant at={startedAt} /> },
            { head: "Last seen", cell: ({ lastSeenAt }) => <Instant at={lastSeenAt} /> },
            { head: "", cell: ({ id }) => <ActLink {...own} to={endOne} params={{ sessionId: id }} text="End" /> },
          ]}
        />
      </div>
      <div class="card">
        <h2>Linked organisations</h2>
        <Table
          caption="Organisations of issuers whose tokens count as the tenant's. Times in UTC."
          hidesCaption
          rows={links}
          empty={<p class="muted">No organisation is linked.</p>}
          columns={[
            { head: "Organisation", isHead: true, cell: ({ organisation }) => organisation },
            { head: "Issuer", cell: ({ issuer }) => issuer },
            { head: "Since", cell: ({ createdAt }) => <Instant at={createdAt} /> },
          ]}
        />
        <p class="actions">
          <ActLink c={c} tenantId={tenantId} to={link} />
          {links.length > 0 && <ActLink c={c} tenantId={tenantId} to={unlink} />}
        </p>
      </div>
    </>,
  );
}
