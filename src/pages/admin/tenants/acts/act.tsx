// What an operator does to a tenant. Each act has a page of its own, which says what follows and asks for what it needs, so that
// every act is confirmed without script. The form calls the function behind the API's route, and has its name in the audit log.
import type { Child, FC } from "hono/jsx";
import type * as z from "zod";
import { newTenantId } from "../../../../adapters/ids.ts";
import type { Creation } from "../../../../control/idempotent-requests-store.ts";
import type { TenantSummary } from "../../../../control/tenants-store.ts";
import type { OperatorRole } from "../../../../core/actor.ts";
import { TenantId } from "../../../../core/tenant/tenant.ts";
import { type HttpContext, type Route, noSuchTenant, route, tenantOf } from "../../../../http.ts";
import { type RefusedForm, answerOf, attempt, doneAt, readForm } from "../../../layout/form-body.ts";
import { Copyable } from "../../../parts/code.tsx";
import { Notice } from "../../../parts/notice.tsx";
import { operatorPage, permits } from "../../operator-page.tsx";

export const TENANTS_PATH = "/admin/tenants";

/** The path of a tenant's page: `/admin/tenants/ID/data`. */
export function tenantPath(tenantId: string, path = ""): string {
  return `${TENANTS_PATH}/${tenantId}${path}`;
}

/** The tenant that the path names. The router has read it. */
export function tenantOnPage(c: HttpContext): TenantSummary {
  const summary = c.get("summary");
  if (summary === undefined) throw noSuchTenant();
  return summary;
}

/** A form's own number, in the field `form`: a form that is sent twice makes one thing. */
export const Seed = TenantId;
export const SeedField = () => <input type="hidden" name="form" value={newTenantId()} />;
export const creationOf = (seed: TenantId): Creation => ({ seed, atMs: Date.now(), isRepeat: false });

export interface Act {
  /** Below the tenant's page: `suspend`, `keys/:keyId/revoke`. */
  path: string;
  /** The operationId of the API's route. */
  action: string;
  role: OperatorRole;
  title: string;
  tone: Tone | undefined;
  /** The largest form, where it has a file. */
  maxBytes?: number;
  show: (c: HttpContext) => Promise<Response>;
  submit: (c: HttpContext) => Promise<Response>;
}

type Tone = "main" | "bad";

interface ActDefinition<Schema extends z.ZodObject, Result, Loaded> extends Pick<
  Act,
  "path" | "action" | "role" | "title"
> {
  /** What follows from it. */
  text: Child | ((tenant: TenantSummary) => Child);
  /** On the button of the form. Default: the title. */
  label?: string;
  tone?: Tone;
  schema: Schema;
  /** What the fields show beside the tenant. */
  load?: (c: HttpContext) => Promise<Loaded>;
  fields?: (form: RefusedForm, tenant: TenantSummary, loaded: Loaded) => Child;
  run: (c: HttpContext, data: z.output<Schema>) => Promise<Result>;
  /** The message on the page that follows, and the page: below the tenant's, or anywhere. */
  done: string;
  next?: string;
  /** Instead: the page that answers the form. For what is shown once. */
  answer?: (c: HttpContext, result: Result) => Response | Promise<Response> | undefined;
}

export function act<Schema extends z.ZodObject, Result, Loaded = undefined>(
  definition: ActDefinition<Schema, Result, Loaded>,
): Act {
  const { path, action, role, title, tone, schema, run, done, next = "", answer } = definition;
  const page = (c: HttpContext, refused?: RefusedForm): Promise<Response> =>
    actPage(c, definition as unknown as PageOfAct<unknown>, refused);
  return {
    ...{ path, action, role, title, tone },
    show: (c) => page(c),
    async submit(c) {
      const form = await readForm(c, schema);
      if ("refused" in form) return page(c, form.refused);
      const ran = await attempt(c, () => run(c, form.data), form.sent);
      if ("refused" in ran) return page(c, ran.refused);
      return (await answer?.(c, ran.done)) ?? doneAt(c, tenantPath(tenantOf(c), next), done);
    },
  };
}

/** Why the form was refused. A field without a place of its own on the page would be silent, so each is named. */
function refusalOf({ problem, errors }: RefusedForm): string {
  return (
    problem?.text ??
    Object.entries(errors)
      .map(([name, why]) => `${inWords(name)}: ${why}`)
      .join(" ")
  );
}

/** `Units per hour`, for the field `unitsPerHour`. */
function inWords(name: string): string {
  const words = name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
  return words.charAt(0).toUpperCase() + words.slice(1);
}

type PageOfAct<Loaded> = Pick<
  ActDefinition<z.ZodObject, unknown, Loaded>,
  "title" | "label" | "text" | "tone" | "load" | "fields" | "next"
>;

/** The page that asks. `hasFile`: its form has a file. */
export async function actPage<Loaded>(
  c: HttpContext,
  { title, label = title, text, tone = "main", load, fields, next = "" }: PageOfAct<Loaded>,
  refused: RefusedForm | undefined,
  hasFile = false,
): Promise<Response> {
  const tenant = tenantOnPage(c);
  const loaded = (await load?.(c)) as Loaded;
  return operatorPage(
    c,
    {
      ...{ title, section: TENANTS_PATH, ...answerOf(refused) },
      lead: <a href={tenantPath(tenant.id)}>{tenant.name}</a>,
    },
    <div class="sheet">
      {refused !== undefined && <Notice tone="bad">{refusalOf(refused)}</Notice>}
      <p>{typeof text === "function" ? text(tenant) : text}</p>
      <form method="post" action={c.req.path} enctype={hasFile ? "multipart/form-data" : undefined}>
        {fields?.(refused ?? { entered: {}, errors: {} }, tenant, loaded)}
        <p class="actions">
          <button class={tone}>{label}</button>
          <a class="button" href={tenantPath(tenant.id, next)}>
            Cancel
          </a>
        </p>
      </form>
    </div>,
  );
}

/** The page that shows a secret once. `next`: the page below the tenant's that follows. */
export function secretPage(
  c: HttpContext,
  next: string,
  { title, text, caption, notice }: { title: string; text: string; caption: string; notice?: string | undefined },
): Promise<Response> {
  return operatorPage(
    c,
    { title, section: TENANTS_PATH, lead: "Copy it now: it is shown once." },
    <>
      {notice !== undefined && <Notice tone="warn">{notice}</Notice>}
      <Copyable text={text} caption={caption} />
      <p class="actions">
        <a class="button" href={tenantPath(tenantOf(c), next)}>
          Back to the tenant
        </a>
      </p>
    </>,
  );
}

/** The link to the page of an act, for operators who may do it. `params`: those of its path. */
export const ActLink: FC<{
  c: HttpContext;
  to: Act;
  tenantId: string;
  params?: Readonly<Record<string, string>>;
  text?: string;
  isTiny?: boolean;
}> = ({ c, to, tenantId, params = {}, text = to.title, isTiny = false }) => {
  if (!permits(c, to.role)) return null;
  const path = to.path.replaceAll(/:(\w+)/g, (_, name: string) => encodeURIComponent(params[name] ?? ""));
  return (
    <a
      class={["button", to.tone === "bad" && "bad", isTiny && "tiny"].filter(Boolean).join(" ")}
      href={tenantPath(tenantId, `/${path}`)}
    >
      {text}
    </a>
  );
};

/** The routes of an act: its page, and its form. */
export function routesOfAct({ path, action, role, maxBytes, show, submit }: Act): Route[] {
  const at = `${TENANTS_PATH}/:tenantId/${path}`;
  const name = `show${action.charAt(0).toUpperCase()}${action.slice(1)}`;
  return [
    route(`GET /${at.slice(1)}`, "operator", show, { role, isPage: true, action: name }),
    route(`POST /${at.slice(1)}`, "operator", submit, {
      role,
      isPage: true,
      readsBody: true,
      action,
      ...(maxBytes !== undefined && { maxBytes }),
    }),
  ];
}
