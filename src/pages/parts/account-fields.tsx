// The name and the address of an account in a form. Customers and the operator have the same.
//
// Invariant: the form undoes no change that came while it was open. It sends only what the person has changed.
import type { FC } from "hono/jsx";
import * as z from "zod";
import { OwnAccountChange } from "../../control/tenant-change.ts";
import type { RefusedForm } from "../layout/form-body.ts";
import { Field } from "./form.tsx";

export const AccountFields = z.object({
  name: OwnAccountChange.shape.name.unwrap(),
  email: OwnAccountChange.shape.email.unwrap().unwrap().optional(),
  /** As they were when the form was opened. */
  nameBefore: z.string().optional(),
  emailBefore: z.string().optional(),
});

/** What the person has changed. An empty address removes it. */
export function accountChange(fields: z.output<typeof AccountFields>): z.infer<typeof OwnAccountChange> {
  const { name, email = null, nameBefore, emailBefore = null } = fields;
  return { ...(name !== nameBefore && { name }), ...(email !== emailBefore && { email }) };
}

interface AccountInputsProps {
  stored: { name: string; email: string | null };
  refused: RefusedForm | undefined;
}

export const AccountInputs: FC<AccountInputsProps> = ({ stored, refused }) => {
  const { entered = {}, errors = {} } = refused ?? {};
  const email = stored.email ?? "";
  return (
    <>
      <input type="hidden" name="nameBefore" value={entered["nameBefore"] ?? stored.name} />
      <input type="hidden" name="emailBefore" value={entered["emailBefore"] ?? email} />
      <div class="pair">
        <Field label="Name" name="name" value={entered["name"] ?? stored.name} isRequired error={errors["name"]} />
        <Field
          label="E-mail address"
          name="email"
          type="email"
          value={entered["email"] ?? email}
          error={errors["email"]}
          hint="Stripe sends invoices there."
        />
      </div>
    </>
  );
};
