// Items of background work that keep failing while the others continue, and the alarms of this moment.
import type * as z from "zod";
import { joinBatches } from "../../../adapters/neon.ts";
import { failuresStore } from "../../../control/failures-store.ts";
import { type HttpContext, decodeCursor, encodeCursor, pageOf, pageQuery } from "../../../http.ts";
import { AcknowledgeRequest, acknowledgeFailures, currentIndicators } from "../../../operations/api.ts";
import { Instant, count } from "../../parts/figures.tsx";
import { Empty, Notice } from "../../parts/notice.tsx";
import { NextPage, Table } from "../../parts/table.tsx";
import { ItemButton, itemAct } from "../item-act.tsx";
import { Runbook } from "../money/pipeline.tsx";
import { operatorPage } from "../operator-page.tsx";

const PATH = "/admin/failures";
export const FailuresPageQuery = pageQuery(100);

export const acknowledgeFailure = itemAct({
  ...{ path: `${PATH}/acknowledge`, action: "acknowledgeFailures", role: "support", label: "Acknowledge", back: PATH },
  schema: AcknowledgeRequest,
  run: (c, body) => acknowledgeFailures(c, { body }),
  done: "The failure is acknowledged. It comes back if it fails again.",
});

/** GET /admin/failures */
export async function showFailures(
  c: HttpContext,
  { query: { after, limit } }: { query: z.infer<typeof FailuresPageQuery> },
): Promise<Response> {
  const context = c.get("context");
  const control = joinBatches(context.control);
  const cursor = decodeCursor(after, 3);
  const [lastAt = "", part = "", item = ""] = cursor ?? [];
  const [rows, { indicators }] = await Promise.all([
    failuresStore(control).list(limit + 1, cursor && { lastAt, part, item }),
    currentIndicators({ ...context, control }, Date.now()),
  ]);
  const { failures, next } = pageOf("failures", rows, limit, (each) =>
    encodeCursor([each.lastAt, each.part, each.item]),
  );
  const alarms = indicators.filter(({ level }) => level !== "ok");
  return operatorPage(
    c,
    { title: "Alarms and failures", section: PATH, lead: "What a person must look at now. Times in UTC." },
    <>
      <h2>Alarms</h2>
      {alarms.length === 0 ? (
        <Notice tone="good">Every indicator is within its bounds.</Notice>
      ) : (
        alarms.map((alarm) => <Runbook shown={alarm} isOpen />)
      )}
      <h2>Failures</h2>
      <Table
        caption="Items of background work that failed, the latest first"
        hidesCaption
        rows={failures}
        empty={<Empty title="No failure">Every item of background work is done or runs.</Empty>}
        columns={[
          {
            head: "Item",
            isHead: true,
            cell: (each) => (
              <span class="entry">
                <strong>{each.part.replaceAll("_", " ")}</strong>
                <small>{each.item}</small>
              </span>
            ),
          },
          { head: "Why", cell: ({ error }) => error },
          { head: "Times", isNumber: true, cell: ({ times }) => count(times) },
          { head: "First", cell: ({ firstAt }) => <Instant at={firstAt} /> },
          { head: "Last", cell: (each) => <Instant at={each.lastAt} /> },
          {
            head: "",
            cell: (each) => <ItemButton c={c} to={acknowledgeFailure} item={{ part: each.part, item: each.item }} />,
          },
        ]}
      />
      <NextPage url={PATH} next={next} />
    </>,
  );
}
