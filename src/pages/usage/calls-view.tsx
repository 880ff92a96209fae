// The last calls with their receipts. A receipt is the id that the agent got with the answer.
import type { Child, FC } from "hono/jsx";
import * as z from "zod";
import { joinBatches } from "../../adapters/neon.ts";
import { callEnds } from "../../core/call.ts";
import { type HttpContext, tenantOf } from "../../http.ts";
import { CallsQuery, callsOf } from "../../metering/metrics/api.ts";
import { metricsStore } from "../../metering/metrics/metrics-store.ts";
import { catalogue } from "../../tools/catalogue.ts";
import { orEmpty } from "../layout/form-body.ts";
import { Instant, count, duration } from "../parts/figures.tsx";
import { Field, Select } from "../parts/form.tsx";
import { Empty, Notice } from "../parts/notice.tsx";
import { NextPage, Table } from "../parts/table.tsx";
import { query as queryOf } from "./range.tsx";
import { CallerName, Outcome, outcomeWords } from "./words.tsx";

/** Calls on a page: about two screens of a desktop. */
const PAGE = 50;

const { shape } = CallsQuery;
export const CallsView = z.strictObject({
  after: shape.after,
  /** Leads to the call with this receipt. */
  receipt: orEmpty(z.string().trim().min(1).max(200)),
  ...{ tool: orEmpty(shape.tool), key: orEmpty(shape.key), outcome: orEmpty(shape.outcome) },
});

export type CallsView = z.infer<typeof CallsView>;

type Calls = Awaited<ReturnType<typeof callsOf>>;
type Call = Calls["calls"][number];

/** The way to the call whose receipt the query has. */
export function callOfReceipt(c: HttpContext, { receipt }: CallsView, path: string): Response | undefined {
  return receipt === undefined ? undefined : c.redirect(`${path}/${encodeURIComponent(receipt)}`, 303);
}

/** The last calls of the path's tenant. `path`: of the page, which the customer has and the operator. `csv`: of its file. */
export async function callsView(c: HttpContext, query: CallsView, path: string, csv?: string): Promise<Child> {
  const { after, tool, key, outcome } = query;
  const filters = { tool, key, outcome };
  const control = joinBatches(c.get("context").control);
  const [found, names] = await Promise.all([
    callsOf(c, { ...filters, after, limit: PAGE }, control),
    metricsStore(control).callerNames(tenantOf(c)),
  ]);
  return (
    <>
      <div class="range">
        <CallFilters path={path} filters={filters} names={names} />
        <form method="get" action={path} class="inline">
          <Field label="Receipt" name="receipt" isRequired maxLength={200} autocomplete="off" />
          <button>Find</button>
        </form>
      </div>
      {!found.recentKnown && (
        <Notice tone="warn">
          Calls that failed or were refused cannot be shown at the moment. Charged calls are complete.
        </Notice>
      )}
      <CallTable
        calls={found.calls}
        names={names}
        path={path}
        empty={
          <Empty title={Object.values(filters).some((value) => value !== undefined) ? "No such calls" : "No calls yet"}>
            <p>
              {found.recentSince === null || Object.values(filters).every((value) => value === undefined)
                ? "Connect an agent. Each call appears here within seconds."
                : "Only the last 200 calls are known with their key and with other outcomes than OK."}
            </p>
          </Empty>
        }
      />
      <NextPage url={path + queryOf(filters)} next={found.next} />
      {csv !== undefined && found.calls.length > 0 && (
        <p class="small">
          <a href={csv + queryOf({ ...filters, after: after === "" ? undefined : after })} download="">
            Download these and the next calls, up to 1,000 (CSV)
          </a>
        </p>
      )}
      {found.recentSince !== null && (
        <p class="muted small">
          Keys, times and failed calls are known since <Instant at={found.recentSince} />. Earlier calls are those that
          were charged.
        </p>
      )}
    </>
  );
}

interface FiltersProps {
  path: string;
  filters: { tool: string | undefined; key: string | undefined; outcome: string | undefined };
  names: ReadonlyMap<string, string>;
}

const CallFilters: FC<FiltersProps> = ({ path, filters, names }) => {
  const keys = [...names].flatMap(([caller, name]) =>
    caller.startsWith("key:") ? [{ value: caller.slice("key:".length), text: name }] : [],
  );
  const any = (text: string) => ({ value: "", text });
  return (
    <form method="get" action={path} class="inline filters">
      <Select
        label="Tool"
        name="tool"
        value={filters.tool ?? ""}
        options={[any("All tools"), ...[...catalogue.keys()].map((name) => ({ value: name, text: name }))]}
      />
      <Select label="API key" name="key" value={filters.key ?? ""} options={[any("All keys and people"), ...keys]} />
      <Select
        label="Outcome"
        name="outcome"
        value={filters.outcome ?? ""}
        options={[any("All outcomes"), ...callEnds.map((end) => ({ value: end, text: outcomeWords[end].text }))]}
      />
      <button>Show</button>
    </form>
  );
};

interface CallTableProps {
  calls: readonly Call[];
  names: ReadonlyMap<string, string>;
  /** Of the calls page. */
  path: string;
  empty?: Child;
}

export const CallTable: FC<CallTableProps> = ({ calls, names, path, empty }) => (
  <Table
    caption="Calls"
    hidesCaption
    rows={calls}
    empty={empty}
    columns={[
      { head: "Time", cell: ({ at }) => <Instant at={at} hasSeconds /> },
      { head: "Tool", isHead: true, cell: ({ tool }) => tool },
      { head: "Outcome", cell: ({ outcome, code }) => <Outcome outcome={outcome} code={code} /> },
      { head: "By", cell: ({ caller }) => <CallerName caller={caller} name={nameIn(names, caller)} /> },
      { head: "Units", isNumber: true, cell: (call) => count(call.units) },
      { head: "Time taken", isNumber: true, cell: ({ ms }) => duration(ms) },
      {
        head: "Receipt",
        cell: ({ id }) => (
          <a class="code nowrap" href={`${path}/${encodeURIComponent(id)}`} title={id}>
            …{id.slice(-8)}
          </a>
        ),
      },
    ]}
  />
);

export function nameIn(names: ReadonlyMap<string, string>, caller: Call["caller"]): string | undefined {
  return caller === null ? undefined : names.get(`${caller.kind}:${caller.id}`);
}
