// A form over a document that has a version. It carries the version and the texts that it was opened with.
//
// Invariant: a form undoes no change that came while it was open. When another change came first, a field that the person has not
// touched takes what is stored now; one that both have changed keeps what the person entered, and says what is stored now.
import type { Child, FC } from "hono/jsx";
import type { RefusedForm } from "../layout/form-body.ts";
import { Refusal } from "./form.tsx";
import { Notice } from "./notice.tsx";

/** The texts of a form's fields by their names. */
export type Texts = Readonly<Record<string, string>>;

interface Opened {
  etag: string;
  /** The texts that are stored now. */
  stored: Texts;
  /** Undefined: the form is shown for the first time. */
  refused?: RefusedForm | undefined;
}

export interface VersionedForm extends Opened {
  /** Another change came after the form was opened. */
  isLate: boolean;
  /** The fields that it has changed. */
  changed: readonly string[];
  /** What a field shows, and a note about the other change. */
  of: (name: string) => { value: string; note?: string | undefined };
}

const before = (name: string): string => `before.${name}`;
/** A browser sends line breaks of its own kind. */
const plain = (text: string): string => text.replaceAll(/\r\n?/g, "\n").trim();
const shown = (text: string): string => (text === "" ? "nothing" : text);

export function versionedForm({ etag, stored, refused }: Opened): VersionedForm {
  const { entered = {}, chosen } = refused ?? {};
  const textOf = (name: string): string => plain((chosen?.[name] ?? [entered[name] ?? ""]).join(" "));
  const isLate = refused !== undefined && entered["etag"] !== etag;
  const was = (name: string): string => plain(entered[before(name)] ?? "");
  const isChanged = (name: string): boolean => isLate && was(name) !== plain(stored[name] ?? "");
  return {
    ...{ etag, stored, refused, isLate },
    changed: Object.keys(stored).filter(isChanged),
    of(name) {
      const now = stored[name] ?? "";
      // A field that the form did not have has nothing to keep.
      if (refused === undefined || entered[before(name)] === undefined) return { value: now };
      const mine = textOf(name);
      if (!isChanged(name)) return { value: mine };
      if (mine === was(name)) return { value: now, note: `Changed meanwhile. It was: ${shown(was(name))}` };
      return { value: mine, ...(mine !== plain(now) && { note: `Stored now: ${shown(now)}` }) };
    },
  };
}

/** The hidden fields of the form. */
export const Version: FC<{ form: VersionedForm }> = ({ form: { etag, stored } }) => (
  <>
    <input type="hidden" name="etag" value={etag} />
    {Object.entries(stored).map(([name, text]) => (
      <input type="hidden" name={before(name)} value={text} />
    ))}
  </>
);

/** Why the form was refused, and what another change has changed. The children say who made it. */
export const VersionRefusal: FC<{ form: VersionedForm; labels: Texts; children?: Child }> = (props) => {
  const { form, labels, children } = props;
  const { isLate, changed, refused } = form;
  const others = changed.map((name) => labels[name] ?? name);
  return (
    <>
      {isLate && (
        <Notice tone="warn">
          Another change came first. {others.length > 0 && `It changed: ${others.join(", ")}. `}Your changes are below,
          with what is stored now beside them. Save again to keep yours. {children}
        </Notice>
      )}
      {refused?.problem?.code !== "precondition_failed" && <Refusal refused={refused} />}
    </>
  );
};
