// The list of a tenant's API keys. It shows the beginning of each, never the key.
import type { FC } from "hono/jsx";
import type { HttpContext, PageQuery } from "../../../../http.ts";
import { pageOfKeys } from "../../../../identity/keys/api.ts";
import { refusedActor } from "../../../../identity/keys/keys.ts";
import { Instant } from "../../../parts/figures.tsx";
import { Empty, Notice } from "../../../parts/notice.tsx";
import { NextPage, Table } from "../../../parts/table.tsx";
import { accountPage, accountPath } from "../../account-page.tsx";
import { Budget, KeyState, Scopes } from "./key-parts.tsx";

/** GET /app/:tenantId/keys */
export async function showKeys(c: HttpContext, { query }: { query: PageQuery }): Promise<Response> {
  const { keys, next, usageKnown } = await pageOfKeys(c, query);
  const mayMake = refusedActor(c.get("actor"), "make") === undefined;
  return accountPage(
    c,
    {
      ...{ title: "API keys", section: "/keys" },
      lead: "For programs and clients that send a header. People sign in from their client instead.",
      ...(mayMake && { actions: <NewKey path={accountPath(c, "/keys/new")} /> }),
    },
    <>
      {!usageKnown && <Notice tone="warn">What the keys have used cannot be read at the moment.</Notice>}
      <Table
        caption="API keys, the newest first"
        hidesCaption
        rows={keys}
        columns={[
          {
            head: "Name",
            isHead: true,
            cell: ({ id, name, prefix }) => (
              <>
                <a href={accountPath(c, `/keys/${id}`)}>{name}</a>
                <div class="small muted nowrap">
                  <code>{prefix}…</code>
                </div>
              </>
            ),
          },
          { head: "State", cell: (key) => <KeyState of={key} nowMs={Date.now()} /> },
          { head: "May", cell: ({ scopes }) => <Scopes scopes={scopes} /> },
          {
            head: "Tools",
            cell: ({ tools }) => (tools === null ? "All" : <span class="small">{tools.join(", ")}</span>),
          },
          { head: "Units this month", cell: (key) => <Budget of={key} /> },
          {
            head: "Last use",
            cell: ({ lastUsedAt }) =>
              lastUsedAt === null ? (
                <span class="muted">{usageKnown ? "Never" : "Not known"}</span>
              ) : (
                <Instant at={lastUsedAt} />
              ),
          },
        ]}
        empty={
          <Empty title="No keys yet">
            <p>A key lets a program call the tools. Make one for each program, so that you can end them one by one.</p>
            {mayMake && <NewKey path={accountPath(c, "/keys/new")} />}
          </Empty>
        }
      />
      <NextPage url={accountPath(c, "/keys")} next={next} />
    </>,
  );
}

const NewKey: FC<{ path: string }> = ({ path }) => (
  <a class="button main" href={path}>
    New key
  </a>
);
