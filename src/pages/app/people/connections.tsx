// Who is connected: the clients that members have let in, and the browsers in which members are signed in. Admins end both.
import type { FC } from "hono/jsx";
import type * as z from "zod";
import { joinBatches } from "../../../adapters/neon.ts";
import { sha256Hex } from "../../../core/keys/credentials.ts";
import { type HttpContext, type PageQuery, tenantOf } from "../../../http.ts";
import { membersStore } from "../../../identity/members/members-store.ts";
import { type Grant, pageOfGrants, revokeGrant } from "../../../identity/oauth/api.ts";
import { endSession, pageOfSessions } from "../../../identity/sessions/api.ts";
import type { SessionSummary } from "../../../identity/sessions/sessions-store.ts";
import { sessionTokenOf } from "../../../identity/sessions/sessions.ts";
import { type RefusedForm, answerOf, attempt, doneAt, noFields } from "../../layout/form-body.ts";
import { ClientSetup } from "../../parts/client-setup.tsx";
import { Instant } from "../../parts/figures.tsx";
import { Action, Refusal } from "../../parts/form.tsx";
import { Badge, Empty, Notice } from "../../parts/notice.tsx";
import { NextPage, Table } from "../../parts/table.tsx";
import { accountPage, accountPath, may } from "../account-page.tsx";
import { memberNames } from "./member-name.ts";
import { Scopes } from "./keys/key-parts.tsx";

/** A page of each list. More sessions are on further pages, and more clients than this are ended through the API. */
const SHOWN = 100;

/** GET /app/:tenantId/agents */
export function showAgents(c: HttpContext, { query }: { query: PageQuery }): Promise<Response> {
  return agentsPage(c, query);
}

/** POST /app/:tenantId/agents/:grantId/revoke */
export async function submitGrantEnd(c: HttpContext): Promise<Response> {
  const done = await attempt(c, () => revokeGrant(c), noFields);
  if ("refused" in done) return agentsPage(c, firstPage, done.refused);
  return doneAt(c, accountPath(c, "/agents"), "The agent is refused from its next request on.");
}

/** GET /app/:tenantId/sessions */
export function showSessions(c: HttpContext, { query }: { query: PageQuery }): Promise<Response> {
  return sessionsPage(c, query);
}

/** POST /app/:tenantId/sessions/:sessionId/end */
export async function submitSessionEnd(c: HttpContext): Promise<Response> {
  const done = await attempt(c, () => endSession(c), noFields);
  if ("refused" in done) return sessionsPage(c, firstPage, done.refused);
  return doneAt(c, accountPath(c, "/sessions"), "The session has ended.");
}

const firstPage: PageQuery = { after: "", limit: SHOWN };

type Grant = z.infer<typeof Grant>;

async function agentsPage(c: HttpContext, query: PageQuery, refused?: RefusedForm): Promise<Response> {
  const [{ grants, next }, members] = await Promise.all([
    pageOfGrants(c, query),
    membersStore(c.get("context").control).list(tenantOf(c)),
  ]);
  const nameOf = memberNames(members);
  const manages = may(c, "members:manage");
  const path = accountPath(c, "/agents");
  return accountPage(
    c,
    {
      ...{ title: "Connected agents", section: "/agents", ...answerOf(refused) },
      lead: "Clients such as Claude, ChatGPT or Cursor that a member has let in by signing in.",
    },
    <>
      <Refusal refused={refused} />
      <Table
        caption="Connected agents"
        hidesCaption
        rows={grants}
        empty={
          <Empty title="No agent is connected">
            <p>A member adds this server to a client and signs in. It then appears here.</p>
          </Empty>
        }
        columns={[
          { head: "Agent", isHead: true, cell: (grant) => <Client of={grant} /> },
          { head: "Member", cell: ({ memberId }) => nameOf(memberId) ?? "a former member" },
          { head: "May", cell: ({ scopes }) => <Scopes scopes={scopes} /> },
          { head: "Since", cell: ({ createdAt }) => <Instant at={createdAt} /> },
          {
            head: "Last use",
            cell: ({ lastUsedAt }) =>
              lastUsedAt === null ? <span class="muted">Never</span> : <Instant at={lastUsedAt} />,
          },
          ...(manages
            ? [
                {
                  head: "",
                  cell: ({ id, clientName }: Grant) => (
                    <Action
                      action={`${path}/${id}/revoke`}
                      label="Disconnect"
                      tone="bad"
                      isTiny
                      confirm={`Disconnect ${clientName ?? "this agent"}? It is refused at once.`}
                    />
                  ),
                },
              ]
            : []),
        ]}
      />
      <NextPage url={path} next={next} />
      <h2>Connect another one</h2>
      <ClientSetup mcpUrl={`${c.env.PUBLIC_URL}/mcp`} />
    </>,
  );
}

/** The name is the client's own word for itself, and the id says where it comes from. */
const Client: FC<{ of: Grant }> = ({ of: { clientName, clientId } }) => (
  <>
    {clientName ?? "A client without a name"}
    {URL.canParse(clientId) && <div class="small muted">{new URL(clientId).host}</div>}
  </>
);

async function sessionsPage(c: HttpContext, query: PageQuery, refused?: RefusedForm): Promise<Response> {
  const control = joinBatches(c.get("context").control);
  const tenantId = tenantOf(c);
  const [{ sessions, next }, members] = await Promise.all([
    pageOfSessions(control, tenantId, query),
    membersStore(control).list(tenantId),
  ]);
  const nameOf = memberNames(members);
  const token = sessionTokenOf(c.req.header("cookie"));
  const ownId = token === undefined ? undefined : await sha256Hex(token);
  const manages = may(c, "members:manage");
  const path = accountPath(c, "/sessions");
  return accountPage(
    c,
    {
      ...{ title: "Sessions", section: "/sessions", ...answerOf(refused) },
      lead: "Browsers in which a member is signed in. A session serves all organisations of its person.",
    },
    <>
      <Refusal refused={refused} />
      <Table
        caption="Sessions"
        hidesCaption
        rows={sessions}
        empty={<Notice>No member is signed in with a browser.</Notice>}
        columns={[
          {
            head: "Member",
            isHead: true,
            cell: ({ id, memberId, email, name }) => (
              <>
                {nameOf(memberId) ?? email ?? name}{" "}
                {ownId?.startsWith(id) === true && <Badge tone="accent">this browser</Badge>}
              </>
            ),
          },
          { head: "Signed in", cell: ({ startedAt }) => <Instant at={startedAt} /> },
          { head: "Last seen", cell: ({ lastSeenAt }) => <Instant at={lastSeenAt} /> },
          { head: "Ends", cell: ({ expiresAt }) => <Instant at={expiresAt} /> },
          ...(manages
            ? [
                {
                  head: "",
                  cell: ({ id }: SessionSummary) => (
                    <Action action={`${path}/${id}/end`} label="End" tone="bad" isTiny confirm="End this session?" />
                  ),
                },
              ]
            : []),
        ]}
      />
      <NextPage url={path} next={next} />
    </>,
  );
}
