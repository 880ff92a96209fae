// The secrets that the organisation sets for its tools, such as the key of a service that a tool asks. A value is only ever entered.
import type { FC } from "hono/jsx";
import * as z from "zod";
import { type HttpContext, tenantOf } from "../../../http.ts";
import { type SecretView, removeSecret, secretsOf, setSecret, SecretRequest } from "../../../operations/secrets/api.ts";
import { type RefusedForm, answerOf, attempt, doneAt, noFields, readForm } from "../../layout/form-body.ts";
import { Instant } from "../../parts/figures.tsx";
import { Action, Field, Refusal } from "../../parts/form.tsx";
import { Badge, Empty } from "../../parts/notice.tsx";
import { accountPage, accountPath } from "../account-page.tsx";

const SecretForm = z.object({ value: SecretRequest.shape.value });

/** GET /app/:tenantId/secrets */
export function showSecrets(c: HttpContext): Promise<Response> {
  return secretsPage(c);
}

/** POST /app/:tenantId/secrets/:name */
export async function submitSecret(c: HttpContext): Promise<Response> {
  const form = await readForm(c, SecretForm);
  if ("refused" in form) return secretsPage(c, form.refused);
  const done = await attempt(c, () => setSecret(c, { body: form.data }), noFields);
  if ("refused" in done) return secretsPage(c, done.refused);
  return doneAt(c, accountPath(c, "/secrets"), "The secret is set. The next call uses it.");
}

/** POST /app/:tenantId/secrets/:name/remove */
export async function submitSecretEnd(c: HttpContext): Promise<Response> {
  const done = await attempt(c, () => removeSecret(c), noFields);
  if ("refused" in done) return secretsPage(c, done.refused);
  return doneAt(c, accountPath(c, "/secrets"), "The secret is removed. Tools that need it say so.");
}

async function secretsPage(c: HttpContext, refused?: RefusedForm): Promise<Response> {
  const secrets = await secretsOf(c.get("context").control, tenantOf(c));
  const name = c.req.param("name");
  const isShown = secrets.some((each) => each.name === name);
  return accountPage(
    c,
    {
      ...{ title: "Secrets", section: "/secrets", ...answerOf(refused) },
      lead: "Tools that use a service of yours ask for its key here. Values are encrypted and never shown again.",
    },
    <>
      {!(isShown && refused?.errors["value"] !== undefined) && <Refusal refused={refused} />}
      {secrets.length === 0 && (
        <Empty title="No tool needs a secret">
          <p>As soon as one does, you set it here.</p>
        </Empty>
      )}
      {secrets.map((of) => (
        <Secret of={of} path={accountPath(c, `/secrets/${of.name}`)} refused={of.name === name ? refused : undefined} />
      ))}
    </>,
  );
}

const Secret: FC<{ of: SecretView; path: string; refused: RefusedForm | undefined }> = ({ of, path, refused }) => {
  const { name, meaning, isSet, setAt, setBy, tools } = of;
  return (
    <div class="card" id={name}>
      <h2>{meaning ?? name}</h2>
      <p class="muted">
        {isSet ? <Badge tone="good">set</Badge> : <Badge tone="warn">not set</Badge>} <code>{name}</code>
        {setAt !== null && (
          <>
            , <Instant at={setAt} /> by {setBy?.kind === "key" ? "an API key" : "a member"}
          </>
        )}
      </p>
      <p class="small">{tools.length === 0 ? "No tool uses it." : `Used by ${tools.join(", ")}.`}</p>
      {meaning !== null && (
        <form method="post" action={path}>
          <Field
            {...{ label: isSet ? "New value" : "Value", name: "value", type: "password", autocomplete: "off" }}
            isRequired
            error={refused?.errors["value"]}
          />
          <div class="actions">
            <button class="main">{isSet ? "Replace" : "Set"}</button>
          </div>
        </form>
      )}
      {isSet && (
        <Action
          action={`${path}/remove`}
          label="Remove"
          tone="bad"
          confirm={`Remove ${name}? Tools that need it fail from the next call on.`}
        />
      )}
    </div>
  );
};
