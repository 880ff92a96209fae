// One API key: what it may do and has used, and the forms that change, rotate and revoke it. A person sees only the forms that
// would be accepted.
import type { FC } from "hono/jsx";
import * as z from "zod";
import { newTenantId } from "../../../../adapters/ids.ts";
import type { HttpContext } from "../../../../http.ts";
import { type KeySummary, endKey, keyAfter, oneKey, successorOf } from "../../../../identity/keys/api.ts";
import { RotateRequest, refusedActor, scopesOver } from "../../../../identity/keys/keys.ts";
import { type RefusedForm, answerOf, attempt, doneAt, noFields, readForm } from "../../../layout/form-body.ts";
import { Action, Refusal, Select } from "../../../parts/form.tsx";
import { accountPage, accountPath, may } from "../../account-page.tsx";
import { ChangeForm, ChangeInputs, keyChangeOf } from "./key-change.tsx";
import { Facts } from "./key-parts.tsx";
import { Units, creationOf, issuedKeyPage } from "./new-key.tsx";

const RotateForm = z.object({
  form: z.string(),
  overlapHours: Units.pipe(RotateRequest.shape.overlapHours.unwrap()),
});

/** GET /app/:tenantId/keys/:keyId */
export function showKey(c: HttpContext): Promise<Response> {
  return keyPage(c);
}

/** POST /app/:tenantId/keys/:keyId: changes the key. */
export async function submitKey(c: HttpContext): Promise<Response> {
  const form = await readForm(c, ChangeForm);
  if ("refused" in form) return keyPage(c, form.refused);
  const done = await attempt(c, () => keyAfter(c, keyChangeOf(form.data)), form.sent);
  if ("refused" in done) return keyPage(c, done.refused);
  return doneAt(c, accountPath(c, `/keys/${done.done.id}`), "The key is changed.");
}

/** POST /app/:tenantId/keys/:keyId/rotate: makes the successor, and shows it once. */
export async function submitRotation(c: HttpContext): Promise<Response> {
  const form = await readForm(c, RotateForm);
  if ("refused" in form) return keyPage(c, form.refused);
  const { form: seed, overlapHours } = form.data;
  const made = await attempt(c, () => successorOf(c, { overlapHours }, creationOf(seed)), form.sent);
  return "refused" in made ? keyPage(c, made.refused) : issuedKeyPage(c, made.done, made.done.replaces);
}

/** POST /app/:tenantId/keys/:keyId/revoke */
export async function submitKeyEnd(c: HttpContext): Promise<Response> {
  const done = await attempt(c, () => endKey(c), noFields);
  if ("refused" in done) return keyPage(c, done.refused);
  return doneAt(c, accountPath(c, "/keys"), "The key is revoked. It is refused from its next request on.");
}

async function keyPage(c: HttpContext, refused?: RefusedForm): Promise<Response> {
  const key = await oneKey(c);
  const actor = c.get("actor");
  const isOver = key.expiresAt !== null && Date.parse(key.expiresAt) <= Date.now();
  const isLive = key.revokedAt === null && !isOver;
  const mayMake = refusedActor(actor, "make") === undefined && scopesOver(actor, key.scopes).length === 0;
  const mayEnd = refusedActor(actor, "end") === undefined;
  const path = accountPath(c, `/keys/${key.id}`);
  return accountPage(
    c,
    {
      ...{ title: key.name, section: "/keys", ...answerOf(refused) },
      lead: <a href={accountPath(c, "/keys")}>All keys</a>,
    },
    <>
      <Refusal refused={refused} />
      <div class="split">
        <div class="card">
          <h3>The key</h3>
          <Facts
            of={key}
            path={accountPath(c, "/keys")}
            members={may(c, "members:read") ? accountPath(c, "/members") : undefined}
          />
        </div>
        <div>
          {isLive && mayMake && key.replacedBy === null && <Rotation path={path} refused={refused} />}
          {isLive && mayEnd && (
            <div class="card danger">
              <h3>Revoke</h3>
              <p>Programs that use the key are refused at once. This cannot be undone.</p>
              <Action
                action={`${path}/revoke`}
                label="Revoke key"
                tone="bad"
                confirm={`Revoke the key ${key.name}? Programs that use it are refused at once.`}
              />
            </div>
          )}
        </div>
      </div>
      {isLive && mayMake && <Change of={key} path={path} newKey={accountPath(c, "/keys/new")} refused={refused} />}
    </>,
  );
}

/** The times that a person chooses from. */
const overlaps = [
  { value: "0", text: "None: it ends at once" },
  { value: "1", text: "1 hour" },
  { value: "24", text: "1 day" },
  { value: "168", text: "1 week" },
];

const Rotation: FC<{ path: string; refused: RefusedForm | undefined }> = ({ path, refused }) => (
  <div class="card">
    <h3>Rotate</h3>
    <p>Makes a new key with the same rights and the same budget. The old one works for a while beside it.</p>
    <Action action={`${path}/rotate`} label="Rotate key" fields={{ form: newTenantId() }}>
      <Select
        label="The old key still works for"
        name="overlapHours"
        options={overlaps}
        value={refused?.entered["overlapHours"] ?? "24"}
      />
    </Action>
  </div>
);

interface ChangeProps {
  of: KeySummary;
  path: string;
  /** The page that makes another key. */
  newKey: string;
  refused: RefusedForm | undefined;
}

const Change: FC<ChangeProps> = ({ of, path, newKey, refused }) => (
  <form method="post" action={path} class="sheet">
    <h2>Change</h2>
    <p class="muted">
      What the key may do stays as it is, so that no key in use gains rights. For other scopes,{" "}
      <a href={newKey}>make a new key</a>, and revoke this one once its programs use the new one.
    </p>
    <ChangeInputs of={of} refused={refused} />
    <div class="actions">
      <button class="main">Save</button>
    </div>
  </form>
);
