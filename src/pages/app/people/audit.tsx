// The audit log of a tenant, with a search. Who acted has a name as long as they are a member.
import type { FC } from "hono/jsx";
import * as z from "zod";
import { joinBatches } from "../../../adapters/neon.ts";
import { DAY_MS } from "../../../core/time.ts";
import { type HttpContext, tenantOf } from "../../../http.ts";
import { AuditQuery, type auditAnswer, ownEvents } from "../../../identity/audit/api.ts";
import { auditOutcomes } from "../../../identity/audit/audit.ts";
import { type MemberSummary, membersStore } from "../../../identity/members/members-store.ts";
import { answerOf, attempt, noFields, orEmpty } from "../../layout/form-body.ts";
import { Instant } from "../../parts/figures.tsx";
import { Field, Refusal, Select } from "../../parts/form.tsx";
import { Badge, Empty, type Tone } from "../../parts/notice.tsx";
import { NextPage, Table } from "../../parts/table.tsx";
import { accountPage, accountPath } from "../account-page.tsx";
import { actionOptions, inWords } from "./audit-actions.ts";
import { memberName, memberNames } from "./member-name.ts";

/** Events on a page: a screen and a half. */
const EVENTS = 50;

const { shape } = AuditQuery;
/** `from` and `to` are days in UTC, both included. */
export const AuditSearch = z.strictObject({
  after: shape.after,
  actor: orEmpty(shape.actor.unwrap()),
  action: orEmpty(shape.action.unwrap()),
  outcome: orEmpty(shape.outcome.unwrap()),
  from: orEmpty(z.iso.date()),
  to: orEmpty(z.iso.date()),
  requestId: orEmpty(shape.requestId.unwrap()),
});
type AuditSearch = z.infer<typeof AuditSearch>;

type Event = ReturnType<typeof auditAnswer>;

/** GET /app/:tenantId/audit */
export async function showAudit(c: HttpContext, { query }: { query: AuditSearch }): Promise<Response> {
  const control = joinBatches(c.get("context").control);
  const tenantId = tenantOf(c);
  const { after, from, to, ...words } = query;
  const given = Object.fromEntries(Object.entries(words).filter(([, value]) => value !== "" && value !== undefined));
  const wanted: AuditQuery = {
    ...(given as Partial<AuditQuery>),
    ...(from !== undefined && from !== "" && { from: `${from}T00:00:00Z` }),
    ...(to !== undefined && to !== "" && { to: new Date(Date.parse(to) + DAY_MS).toISOString() }),
    ...{ after, limit: EVENTS },
  };
  const [found, members] = await Promise.all([
    attempt(c, () => ownEvents(control, tenantId, wanted), noFields),
    membersStore(control).list(tenantId),
  ]);
  const { events, next } = "done" in found ? found.done : { events: [], next: null };
  const refused = "refused" in found ? found.refused : undefined;
  const path = accountPath(c, "/audit");
  const nameOf = memberNames(members);
  return accountPage(
    c,
    {
      ...{ title: "Audit log", section: "/audit", ...answerOf(refused) },
      lead: "What people, keys and the operator have done with the account. Times are in UTC.",
    },
    <>
      <Search of={query} path={path} members={members} errors={refused?.errors ?? {}} />
      <Refusal refused={refused} />
      <Table
        caption="Events, the newest first"
        hidesCaption
        rows={events}
        empty={
          <Empty title="No event matches">
            <p>Take a longer time, or fewer words.</p>
          </Empty>
        }
        columns={[
          { head: "When", cell: ({ at }) => <Instant at={at} /> },
          { head: "Who", cell: (event) => <Who of={event} nameOf={nameOf} /> },
          { head: "What", isHead: true, cell: ({ action }) => <span title={action}>{inWords(action)}</span> },
          {
            head: "On",
            cell: ({ target }) => <Target id={target} name={target === null ? undefined : nameOf(target)} />,
          },
          { head: "Outcome", cell: (event) => <Outcome of={event} /> },
        ]}
      />
      <NextPage url={searchUrl(path, query)} next={next} />
    </>,
  );
}

/** The page's path with the search, without its place in the list. */
function searchUrl(path: string, search: AuditSearch): string {
  const given = Object.entries(search).filter(
    (entry): entry is [string, string] => entry[0] !== "after" && typeof entry[1] === "string" && entry[1] !== "",
  );
  const query = new URLSearchParams(given).toString();
  return query === "" ? path : `${path}?${query}`;
}

/** Kinds of actors, in words. */
const kinds: Readonly<Record<string, string>> = {
  member: "a member",
  key: "an API key",
  operator: "the operator",
  impersonator: "the operator, for you",
  buyer: "the buyer",
  person: "a person",
  stripe: "Stripe",
  anonymous: "a stranger",
};

const Who: FC<{ of: Event; nameOf: (id: string) => string | undefined }> = ({ of: { actor, address }, nameOf }) => (
  <>
    {(actor.id === null ? undefined : nameOf(actor.id)) ?? kinds[actor.kind] ?? actor.kind}
    {(actor.id !== null && nameOf(actor.id) === undefined) || address !== null ? (
      <div class="small muted">
        {actor.id !== null && nameOf(actor.id) === undefined && <code>{actor.id}</code>} {address}
      </div>
    ) : null}
  </>
);

const Target: FC<{ id: string | null; name: string | undefined }> = ({ id, name }) => {
  if (id === null) return <span class="muted">–</span>;
  return name === undefined ? <code>{id}</code> : <>{name}</>;
};

const tones: Readonly<Record<Event["outcome"], Tone>> = {
  succeeded: "good",
  refused: "warn",
  failed: "bad",
  unknown: "neutral",
};

const Outcome: FC<{ of: Event }> = ({ of: { outcome, code } }) => (
  <>
    <Badge tone={tones[outcome]}>{outcome}</Badge>
    {code !== null && <div class="small muted">{code}</div>}
  </>
);

interface SearchProps {
  of: AuditSearch;
  path: string;
  members: readonly MemberSummary[];
  errors: Readonly<Record<string, string>>;
}

const Search: FC<SearchProps> = ({ of: { actor, action, outcome, from, to, requestId }, path, members, errors }) => (
  <form method="get" action={path} class="search">
    <Select
      label="Who"
      name="actor"
      value={actor}
      options={[
        { value: "", text: "Everyone" },
        ...members.map((member) => ({ value: member.id, text: memberName(member) })),
        ...["key", "operator", "stripe", "buyer"].map((kind) => ({ value: kind, text: kinds[kind] ?? kind })),
      ]}
    />
    <Select
      label="Action"
      name="action"
      value={action}
      options={[{ value: "", text: "Any" }, ...actionOptions(action)]}
    />
    <Select
      label="Outcome"
      name="outcome"
      value={outcome}
      options={[{ value: "", text: "Any" }, ...auditOutcomes.map((each) => ({ value: each, text: each }))]}
    />
    <Field label="From" name="from" type="date" value={from} error={errors["from"]} />
    <Field label="To" name="to" type="date" value={to} />
    <Field label="Request" name="requestId" value={requestId} placeholder="Its number" maxLength={200} />
    <div class="actions">
      <button>Search</button>
      <a class="button" href={path}>
        Clear
      </a>
    </div>
  </form>
);
