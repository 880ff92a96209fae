// Who has access now: the operators who are signed in to pages, and those who act as a tenant's administrator.
import { joinBatches } from "../../adapters/neon.ts";
import { type HttpContext, PageQuery } from "../../http.ts";
import { endImpersonation, endOperatorSession } from "../../identity/operators/api.ts";
import { OPERATOR_IDLE_MS } from "../../identity/operators/operator-sessions.ts";
import { operatorSessionsStore } from "../../identity/operators/operator-sessions-store.ts";
import { operatorsStore } from "../../identity/operators/operators-store.ts";
import { doneAt } from "../layout/form-body.ts";
import { Instant } from "../parts/figures.tsx";
import { Action } from "../parts/form.tsx";
import { Badge, Empty } from "../parts/notice.tsx";
import { Table } from "../parts/table.tsx";
import { operatorPage, permits } from "./operator-page.tsx";

const PATH = "/admin/access";
const MOST = PageQuery.parse({});

const through: Readonly<Record<string, string>> = {
  oidc: "the operator's issuer",
  access: "Cloudflare Access",
  token: "the operator token",
};

/** GET /admin/access */
export async function showAccess(c: HttpContext): Promise<Response> {
  const nowMs = Date.now();
  const control = joinBatches(c.get("context").control);
  const [sessions, impersonations] = await Promise.all([
    operatorSessionsStore(control).list(MOST, nowMs, nowMs - OPERATOR_IDLE_MS),
    operatorsStore(control).runningImpersonations({ tenantId: undefined, before: undefined, limit: MOST.limit }),
  ]);
  return operatorPage(
    c,
    { title: "Operators", section: PATH, lead: "Who has access to these pages and to customers' accounts now." },
    <>
      <h2>Signed in</h2>
      <Table
        caption="Sessions of operators in browsers. Times in UTC."
        rows={sessions}
        empty={<Empty title="No session in a browser">You came with a token or through Cloudflare Access.</Empty>}
        columns={[
          { head: "Operator", cell: ({ operator }) => operator.name, isHead: true },
          { head: "Role", cell: ({ operator }) => <Badge>{operator.role}</Badge> },
          { head: "Through", cell: ({ operator }) => through[operator.through] ?? operator.through },
          { head: "Since", cell: ({ startedAt }) => <Instant at={startedAt} /> },
          { head: "Last seen", cell: ({ lastSeenAt }) => <Instant at={lastSeenAt} /> },
          { head: "Ends", cell: ({ expiresAt }) => <Instant at={expiresAt} /> },
          ...(permits(c, "admin")
            ? [
                {
                  head: "",
                  cell: ({ id, operator }: (typeof sessions)[number]) => (
                    <Action
                      action={`${PATH}/sessions/${id}/end`}
                      label="End"
                      isTiny
                      confirm={`End the session of ${operator.name}?`}
                    />
                  ),
                },
              ]
            : []),
        ]}
      />
      <h2>Acting as a customer</h2>
      <Table
        caption="Impersonations that run. Times in UTC."
        rows={impersonations}
        empty={<Empty title="No impersonation runs">A tenant's page starts one, with a reason.</Empty>}
        columns={[
          {
            head: "Tenant",
            cell: ({ tenantId }) => <a href={`/admin/tenants/${tenantId}`}>{tenantId}</a>,
            isHead: true,
          },
          { head: "Operator", cell: ({ operator }) => operator.name },
          { head: "Reason", cell: ({ reason }) => reason },
          { head: "Since", cell: ({ createdAt }) => <Instant at={createdAt} /> },
          { head: "Ends", cell: ({ expiresAt }) => <Instant at={expiresAt} /> },
          ...(permits(c, "support")
            ? [
                {
                  head: "",
                  cell: ({ id, tenantId }: (typeof impersonations)[number]) => (
                    <Action action={`/admin/tenants/${tenantId}/impersonations/${id}/end`} label="End" isTiny />
                  ),
                },
              ]
            : []),
        ]}
      />
    </>,
  );
}

/** POST /admin/access/sessions/:sessionId/end */
export async function submitSessionEnd(c: HttpContext): Promise<Response> {
  await endOperatorSession(c);
  return doneAt(c, PATH, "The session has ended.");
}

/** POST /admin/tenants/:tenantId/impersonations/:impersonationId/end */
export async function submitImpersonationEnd(c: HttpContext): Promise<Response> {
  await endImpersonation(c);
  return doneAt(c, PATH, "The impersonation has ended.");
}
