// Usage messages that could not be written to the ledger. Replaying one is harmless: the ledger stores each call once.
import * as z from "zod";
import { Flag, type HttpContext, pageOf, pageQuery } from "../../../http.ts";
import { dismissDeadLetters, replayDeadLetters } from "../../../metering/api.ts";
import { deadLettersStore } from "../../../metering/dead-letters/dead-letters-store.ts";
import { orBlank } from "../../layout/form-body.ts";
import { Instant } from "../../parts/figures.tsx";
import { Badge, Empty } from "../../parts/notice.tsx";
import { NextPage, Table } from "../../parts/table.tsx";
import { ItemButton, RowActs, itemAct } from "../item-act.tsx";
import { operatorPage } from "../operator-page.tsx";
import { AllToggle } from "../parts.tsx";

const PATH = "/admin/dead-letters";
/** A letter may be as large as a message: the page shows its beginning. */
const SHOWN_CHARS = 2_000;
export const LettersPageQuery = pageQuery(50).extend({ all: orBlank(Flag) });
const Item = z.strictObject({ id: z.string().min(1).max(200) });

export const replayLetter = itemAct({
  ...{
    path: `${PATH}/replay`,
    action: "replayDeadLetters",
    role: "support",
    label: "Replay",
    back: PATH,
    schema: Item,
  },
  run: (c, { id }) => replayDeadLetters(c, { body: { ids: [id] } }),
  done: "The message is in the queue again.",
});

export const replayAllLetters = itemAct({
  ...{ path: `${PATH}/replay-all`, action: "replayDeadLetters", role: "support", label: "Replay all", back: PATH },
  schema: z.strictObject({}),
  run: (c) => replayDeadLetters(c, { body: { all: true } }),
  done: "The messages are in the queue again.",
});

export const dismissLetter = itemAct({
  ...{
    path: `${PATH}/dismiss`,
    action: "dismissDeadLetters",
    role: "admin",
    label: "Dismiss",
    back: PATH,
    schema: Item,
  },
  question: "Its calls are never billed, unless the tenant's object sends them again. The letter stays on record.",
  run: (c, { id }) => dismissDeadLetters(c, { body: { ids: [id] } }),
  done: "The letter is dismissed.",
});

/** GET /admin/dead-letters */
export async function showDeadLetters(
  c: HttpContext,
  { query: { all = false, after, limit } }: { query: z.infer<typeof LettersPageQuery> },
): Promise<Response> {
  const rows = await deadLettersStore(c.get("context").control).list(limit + 1, { after, all });
  const { letters, next } = pageOf("letters", rows, limit, ({ id }) => id);
  return operatorPage(
    c,
    {
      ...{ title: "Dead letters", section: PATH },
      lead: "Usage that could not be written to the ledger, the oldest first. Times in UTC.",
      actions: letters.length > 0 && !all && <ItemButton c={c} to={replayAllLetters} item={{}} isTiny={false} />,
    },
    <>
      <AllToggle path={PATH} isAll={all} open="Waiting" every="All letters" />
      <Table
        caption="Dead letters"
        hidesCaption
        rows={letters}
        empty={<Empty title="No dead letter">All usage has reached the ledger.</Empty>}
        columns={[
          {
            head: "Message",
            isHead: true,
            cell: ({ id, body }) => (
              <details>
                <summary>
                  <code>{id}</code>
                </summary>
                <pre>{body.slice(0, SHOWN_CHARS)}</pre>
              </details>
            ),
          },
          { head: "Why", cell: ({ why }) => why },
          { head: "Received", cell: ({ receivedAt }) => <Instant at={receivedAt} /> },
          {
            head: "State",
            cell: ({ replayedAt, dismissedAt }) =>
              dismissedAt !== null ? (
                <Badge>dismissed</Badge>
              ) : replayedAt !== null ? (
                <Badge tone="good">replayed</Badge>
              ) : (
                <Badge tone="warn">waits</Badge>
              ),
          },
          {
            head: "",
            cell: ({ id, replayedAt, dismissedAt }) =>
              replayedAt === null &&
              dismissedAt === null && (
                <RowActs>
                  <ItemButton c={c} to={replayLetter} item={{ id }} />
                  <ItemButton c={c} to={dismissLetter} item={{ id }} />
                </RowActs>
              ),
          },
        ]}
      />
      <NextPage url={`${PATH}${all ? "?all=true" : ""}`} next={next} />
    </>,
  );
}
