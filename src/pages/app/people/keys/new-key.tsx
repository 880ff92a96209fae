// The form for a new API key, and the page that shows the key once.
import type { FC } from "hono/jsx";
import * as z from "zod";
import { newTenantId } from "../../../../adapters/ids.ts";
import type { Creation } from "../../../../control/idempotent-requests-store.ts";
import { AppError } from "../../../../core/errors.ts";
import { TenantId } from "../../../../core/tenant/tenant.ts";
import { type HttpContext, noteAct } from "../../../../http.ts";
import { makeKey } from "../../../../identity/keys/api.ts";
import { ADMIN_SCOPE, type IssuedKey, KeyRequest, scopesOver } from "../../../../identity/keys/keys.ts";
import { scopesSupported } from "../../../../identity/tokens/authenticate.ts";
import { catalogue } from "../../../../tools/catalogue.ts";
import { type RefusedForm, answerOf, attempt, readForm } from "../../../layout/form-body.ts";
import { ClientSetup } from "../../../parts/client-setup.tsx";
import { Copyable } from "../../../parts/code.tsx";
import { Instant } from "../../../parts/figures.tsx";
import { Checks, Field, Refusal } from "../../../parts/form.tsx";
import { Notice } from "../../../parts/notice.tsx";
import { accountPage, accountPath } from "../../account-page.tsx";
import { scopeWords } from "./key-parts.tsx";

const { shape } = KeyRequest;
/** A key works to the end of a day (UTC). */
export const LastDay = z.iso.date().transform((day) => `${day}T23:59:59Z`);
export const Units = z.string().transform((text) => Number(text.replaceAll(/[, ]/g, "")));
const KeyForm = z.object({
  form: TenantId,
  name: shape.name,
  scopes: shape.scopes,
  tools: shape.tools,
  unitsPerMonth: Units.pipe(shape.unitsPerMonth.unwrap().unwrap()).optional(),
  expiresAt: LastDay.pipe(shape.expiresAt.unwrap()).optional(),
});

/** GET /app/:tenantId/keys/new */
export function showNewKey(c: HttpContext): Promise<Response> {
  return newKeyPage(c);
}

/** POST /app/:tenantId/keys: makes a key, and shows it once. A form that is sent twice shows the same key. */
export async function submitNewKey(c: HttpContext): Promise<Response> {
  const form = await readForm(c, KeyForm);
  if ("refused" in form) return newKeyPage(c, form.refused);
  const { form: seed, unitsPerMonth = null, expiresAt, ...fields } = form.data;
  const request = { ...fields, unitsPerMonth, expiresAt };
  const made = await attempt(c, () => makeKey(c, request, creationOf(seed)), form.sent);
  if ("refused" in made) return newKeyPage(c, made.refused);
  noteAct(c, { target: made.done.id });
  return issuedKeyPage(c, made.done);
}

/** What makes the answer to a form the same when it is sent again. */
export function creationOf(form: string): Creation {
  const seed = TenantId.safeParse(form);
  if (!seed.success) throw new AppError("bad_request");
  return { seed: seed.data, atMs: Date.now(), isRepeat: false };
}

function newKeyPage(c: HttpContext, refused?: RefusedForm): Promise<Response> {
  const { entered = {}, chosen = {}, errors = {} } = refused ?? {};
  const scopes = [...scopesSupported, ADMIN_SCOPE];
  const tooMuch = scopesOver(c.get("actor"), scopes);
  return accountPage(
    c,
    { title: "New API key", section: "/keys", ...answerOf(refused) },
    <form method="post" action={accountPath(c, "/keys")} class="sheet">
      <Refusal refused={refused} />
      <input type="hidden" name="form" value={newTenantId()} />
      <Field
        label="Name"
        name="name"
        value={entered["name"]}
        error={errors["name"]}
        placeholder="Nightly report"
        hint="The program that uses it."
        maxLength={200}
      />
      <Checks
        legend="It may"
        name="scopes"
        options={scopes
          .filter((scope) => !tooMuch.includes(scope))
          .map((scope) => ({ value: scope, text: scopeWords[scope] ?? scope, note: scope }))}
        values={chosen["scopes"] ?? scopesSupported}
        error={errors["scopes"]}
      />
      <Limits values={{ tools: chosen["tools"] ?? [], ...entered }} errors={errors} />
      <div class="actions">
        <button class="main">Create key</button>
        <a class="button" href={accountPath(c, "/keys")}>
          Cancel
        </a>
      </div>
    </form>,
  );
}

interface LimitValues {
  tools: readonly string[];
  unitsPerMonth?: string;
  expiresAt?: string;
}

/** The fields that limit a key. */
export const Limits: FC<{ values: LimitValues; errors: RefusedForm["errors"] }> = ({ values, errors }) => (
  <>
    <Checks
      legend="Only these tools"
      name="tools"
      hint="Leave all unchecked for every tool of the account, also future ones."
      options={[...catalogue.values()].map(({ name, title }) => ({ value: name, text: title, note: name }))}
      values={values.tools}
      error={errors["tools"]}
    />
    <div class="pair">
      <Field
        label="Units a month, at most"
        name="unitsPerMonth"
        value={values.unitsPerMonth}
        error={errors["unitsPerMonth"]}
        placeholder="No limit"
        hint="Calendar months in UTC."
      />
      <Field
        label="Last day"
        name="expiresAt"
        type="date"
        value={values.expiresAt}
        error={errors["expiresAt"]}
        hint="Works to the end of this day in UTC. Empty: without end."
      />
    </div>
  </>
);

/** The page that shows a new key, once. */
export function issuedKeyPage(
  c: HttpContext,
  { apiKey, name, delivered }: IssuedKey,
  replaces?: { endsAt: string },
): Promise<Response> {
  return accountPage(
    c,
    { title: "Your new API key", lead: "Copy it now: it is shown once.", section: "/keys" },
    <>
      <Copyable text={apiKey} caption={name} />
      {!delivered && <Notice tone="warn">The key works within about a minute.</Notice>}
      {replaces !== undefined && (
        <Notice>
          The old key works until <Instant at={replaces.endsAt} /> UTC. Put the new one in place before.
        </Notice>
      )}
      <h2>Connect a client</h2>
      <ClientSetup mcpUrl={`${c.env.PUBLIC_URL}/mcp`} apiKey={apiKey} />
      <p class="actions">
        <a class="button" href={accountPath(c, "/keys")}>
          All keys
        </a>
      </p>
    </>,
  );
}
