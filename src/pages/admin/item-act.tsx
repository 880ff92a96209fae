// What an operator does to an item of a list: an event, a letter, a failure. An act that cannot be undone has a page that asks
// first, so that it is confirmed without script. The form calls the function behind the API's route, and has its name in the
// audit log.
import type { Child, FC } from "hono/jsx";
import type * as z from "zod";
import type { OperatorRole } from "../../core/actor.ts";
import { BadRequest, type HttpContext, type Route, route } from "../../http.ts";
import { doneAt, readForm } from "../layout/form-body.ts";
import { Action } from "../parts/form.tsx";
import { operatorPage, permits } from "./operator-page.tsx";

export interface ItemAct {
  path: string;
  role: OperatorRole;
  /** On the button. */
  label: string;
  /** Undefined: the button acts at once. */
  question: string | undefined;
  tone: "main" | "bad";
  routes: Route[];
}

interface ItemActDefinition<Schema extends z.ZodObject> {
  /** `/admin/dead-letters/dismiss`. */
  path: `/${string}`;
  /** The operationId of the API's route. */
  action: string;
  role: OperatorRole;
  label: string;
  /** For an act that cannot be undone: what follows from it. */
  question?: string;
  /** Default: bad, for an act that loses something. */
  tone?: "main" | "bad";
  /** What names the item: in the query of the page, and in the form. */
  schema: Schema;
  run: (c: HttpContext, item: z.output<Schema>) => Promise<unknown>;
  done: string;
  /** The list. */
  back: string;
}

export function itemAct<Schema extends z.ZodObject>(definition: ItemActDefinition<Schema>): ItemAct {
  const { path, action, role, label, question, tone = "bad", schema, run, done, back } = definition;
  const submit = async (c: HttpContext): Promise<Response> => {
    const form = await readForm(c, schema);
    if ("refused" in form)
      throw new BadRequest(
        Object.entries(form.refused.errors)
          .map(([name, why]) => `${name}: ${why}`)
          .join(". "),
      );
    await run(c, form.data);
    return doneAt(c, back, done);
  };
  const show = (c: HttpContext): Promise<Response> =>
    operatorPage(
      c,
      { title: label, section: back },
      <div class="sheet">
        <p>{question}</p>
        <dl class="facts">
          {Object.entries(c.req.query()).map(([name, value]) => (
            <>
              <dt>{name}</dt>
              <dd>
                <code>{value}</code>
              </dd>
            </>
          ))}
        </dl>
        <div class="actions">
          <Action action={path} label={label} tone={tone} fields={c.req.query()} />
          <a class="button" href={back}>
            Cancel
          </a>
        </div>
      </div>,
    );
  const name = `ask${action.charAt(0).toUpperCase()}${action.slice(1)}`;
  return {
    ...{ path, role, label, question, tone },
    routes: [
      ...(question === undefined
        ? []
        : [route(`GET /${path.slice(1)}`, "operator", show, { role, isPage: true, query: schema, action: name })]),
      route(`POST /${path.slice(1)}`, "operator", submit, { role, isPage: true, readsBody: true, action }),
    ],
  };
}

/** The button of an act, for operators who may do it. */
export const ItemButton: FC<{
  c: HttpContext;
  to: ItemAct;
  item: Readonly<Record<string, string>>;
  label?: string;
  isTiny?: boolean;
}> = ({ c, to, item, label = to.label, isTiny = true }) => {
  if (!permits(c, to.role)) return null;
  if (to.question === undefined) return <Action action={to.path} label={label} isTiny={isTiny} fields={item} />;
  return (
    <a
      class={["button", to.tone, isTiny && "tiny"].filter(Boolean).join(" ")}
      href={`${to.path}?${new URLSearchParams(item).toString()}`}
    >
      {label}
    </a>
  );
};

/** Buttons of a row, beside each other. */
export const RowActs: FC<{ children?: Child }> = ({ children }) => <span class="row-acts">{children}</span>;
