// Calls that reached the ledger with two different payloads. The ledger keeps the first one.
import * as z from "zod";
import { ledgerStore } from "../../../control/ledger-store.ts";
import { type HttpContext, decodeCursor, encodeCursor, pageOf, pageQuery } from "../../../http.ts";
import { acknowledgeConflicts } from "../../../metering/api.ts";
import { Instant } from "../../parts/figures.tsx";
import { Empty } from "../../parts/notice.tsx";
import { NextPage, Table } from "../../parts/table.tsx";
import { ItemButton, itemAct } from "../item-act.tsx";
import { operatorPage } from "../operator-page.tsx";

const PATH = "/admin/conflicts";
export const ConflictsPageQuery = pageQuery(100);

export const acknowledgeConflict = itemAct({
  ...{ path: `${PATH}/acknowledge`, action: "acknowledgeConflicts", role: "support", label: "Acknowledge", back: PATH },
  schema: z.strictObject({ callId: z.string().min(1).max(200) }),
  run: (c, { callId }) => acknowledgeConflicts(c, { body: { callIds: [callId] } }),
  done: "The conflict is acknowledged.",
});

/** GET /admin/conflicts */
export async function showConflicts(
  c: HttpContext,
  { query: { after, limit } }: { query: z.infer<typeof ConflictsPageQuery> },
): Promise<Response> {
  const cursor = decodeCursor(after, 3);
  const [seenAt = "", callId = "", digest = ""] = cursor ?? [];
  const rows = await ledgerStore(c.get("context").control).conflicts(limit + 1, cursor && { seenAt, callId, digest });
  const page = pageOf("conflicts", rows, limit, (each) => encodeCursor([each.seenAt, each.callId, each.digest]));
  return operatorPage(
    c,
    {
      ...{ title: "Usage conflicts", section: PATH },
      lead: "One call with two payloads is a bug in Tollgate. Report it, then acknowledge it. Times in UTC.",
    },
    <>
      <Table
        caption="Usage conflicts"
        hidesCaption
        rows={page.conflicts}
        empty={<Empty title="No conflict">Each call reached the ledger with one payload.</Empty>}
        columns={[
          { head: "Call", isHead: true, cell: (each) => <code>{each.callId}</code> },
          { head: "The later payload", cell: ({ incoming }) => <code>{JSON.stringify(incoming)}</code> },
          { head: "Seen", cell: (each) => <Instant at={each.seenAt} /> },
          { head: "", cell: (each) => <ItemButton c={c} to={acknowledgeConflict} item={{ callId: each.callId }} /> },
        ]}
      />
      <NextPage url={PATH} next={page.next} />
    </>,
  );
}
