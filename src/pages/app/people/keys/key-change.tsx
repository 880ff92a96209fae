// The fields that change an API key, for the customer's people and the operator.
import type { FC } from "hono/jsx";
import * as z from "zod";
import type { KeySummary } from "../../../../identity/keys/api.ts";
import { KeyChange } from "../../../../identity/keys/keys.ts";
import type { RefusedForm } from "../../../layout/form-body.ts";
import { Field } from "../../../parts/form.tsx";
import { LastDay, Limits, Units } from "./new-key.tsx";

export const ChangeForm = z.object({
  name: KeyChange.shape.name,
  tools: KeyChange.shape.tools,
  unitsPerMonth: Units.pipe(KeyChange.shape.unitsPerMonth.unwrap().unwrap()).optional(),
  expiresAt: LastDay.pipe(KeyChange.shape.expiresAt.unwrap()).optional(),
  /** The last day when the form was opened. The expiry itself may be within a day. */
  lastDay: z.string().optional(),
});

/** The change that the fields ask for. A last day that stays as it was changes no expiry. */
export function keyChangeOf(fields: z.output<typeof ChangeForm>): KeyChange {
  const { name, tools = null, unitsPerMonth = null, expiresAt, lastDay } = fields;
  const isNewDay = expiresAt !== undefined && !expiresAt.startsWith(lastDay ?? "none");
  return { name, tools: tools?.length === 0 ? null : tools, unitsPerMonth, ...(isNewDay && { expiresAt }) };
}

/** The fields with what was entered, if the form was refused, and otherwise with what is stored. */
export const ChangeInputs: FC<{ of: KeySummary; refused: RefusedForm | undefined }> = ({ of: key, refused }) => {
  const { entered, chosen, errors = {} } = refused ?? {};
  const lastDay = key.expiresAt?.slice(0, 10);
  const now = { ...(key.unitsPerMonth !== null && { unitsPerMonth: String(key.unitsPerMonth) }) };
  const was = { ...now, ...(lastDay !== undefined && { expiresAt: lastDay }) };
  const isRefused = entered?.["name"] !== undefined;
  const values = isRefused ? { ...entered, tools: chosen?.["tools"] ?? [] } : { ...was, tools: key.tools ?? [] };
  return (
    <>
      {lastDay !== undefined && <input type="hidden" name="lastDay" value={lastDay} />}
      <Field
        label="Name"
        name="name"
        value={isRefused ? entered?.["name"] : key.name}
        error={errors["name"]}
        isRequired
      />
      <Limits values={values} errors={errors} />
    </>
  );
};
