// Forms: a labelled field, and a form with one button. Each form is a POST to Tollgate, whose answer redirects.
import type { Child, FC } from "hono/jsx";
import type { RefusedForm } from "../layout/form-body.ts";
import { Notice } from "./notice.tsx";

interface FieldProps {
  label: string;
  name: string;
  type?: "text" | "email" | "url" | "number" | "date" | "password" | "file";
  value?: string | undefined;
  placeholder?: string;
  isRequired?: boolean;
  maxLength?: number;
  /** Of a text with several lines. */
  rows?: number;
  min?: number;
  max?: number;
  autocomplete?: string;
  /** Below the field. */
  hint?: string | undefined;
  /** Why the value was refused. */
  error?: string | undefined;
}

export const Field: FC<FieldProps> = ({ label, name, type = "text", value, hint, error, isRequired, ...rest }) => {
  const { placeholder, maxLength, rows, min, max, autocomplete } = rest;
  const described = [hint !== undefined && `${name}-hint`, error !== undefined && `${name}-error`];
  const shared = {
    ...{ name, placeholder, autocomplete, maxlength: maxLength, required: isRequired },
    "aria-invalid": error !== undefined ? ("true" as const) : undefined,
    "aria-describedby": described.filter((id) => id !== false).join(" ") || undefined,
  };
  return (
    <label class="field">
      <span>{label}</span>
      {rows === undefined ? (
        <input {...{ ...shared, type, value, min, max }} />
      ) : (
        // HTML drops a line break that the text begins with.
        <textarea {...{ ...shared, rows }}>{`\n${value ?? ""}`}</textarea>
      )}
      {error !== undefined && (
        <small id={`${name}-error`} class="error">
          {error}
        </small>
      )}
      {hint !== undefined && <small id={`${name}-hint`}>{hint}</small>}
    </label>
  );
};

/** Why a form was refused as a whole. */
export const Refusal: FC<{ refused?: RefusedForm | undefined }> = ({ refused }) => {
  if (refused === undefined) return null;
  const { problem, errors } = refused;
  const text = problem?.text ?? errors[""] ?? (Object.keys(errors).length > 0 ? "Correct the marked fields." : "");
  return text === "" ? null : <Notice tone="bad">{text}</Notice>;
};

export interface Option {
  value: string;
  text: string;
}

interface SelectProps {
  label: string;
  name: string;
  options: readonly Option[];
  value?: string | undefined;
  hint?: string;
  error?: string | undefined;
  /** The label is for a screen reader alone, where the place says it already. */
  hidesLabel?: boolean;
}

export const Select: FC<SelectProps> = ({ label, name, options, value, hint, error, hidesLabel = false }) => (
  <label class="field">
    <span class={hidesLabel ? "sr-only" : undefined}>{label}</span>
    <select name={name}>
      {options.map((option) => (
        <option value={option.value} selected={option.value === value}>
          {option.text}
        </option>
      ))}
    </select>
    {error !== undefined && <small class="error">{error}</small>}
    {hint !== undefined && <small>{hint}</small>}
  </label>
);

interface ChecksProps {
  legend: string;
  name: string;
  options: readonly (Option & { note?: string })[];
  /** The values that are checked. */
  values: readonly string[];
  hint?: string;
  error?: string | undefined;
}

/** More options than this have two columns, where there is room. */
const MANY = 6;

/** A group of checkboxes. */
export const Checks: FC<ChecksProps> = ({ legend, name, options, values, hint, error }) => (
  <fieldset class={options.length > MANY ? "checks many" : "checks"}>
    <legend>{legend}</legend>
    {hint !== undefined && <p class="small muted">{hint}</p>}
    {options.map(({ value, text, note }) => (
      <label>
        <input type="checkbox" name={name} value={value} checked={values.includes(value)} />
        <span>
          {text}
          {note !== undefined && <small>{note}</small>}
        </span>
      </label>
    ))}
    {error !== undefined && <small class="error">{error}</small>}
  </fieldset>
);

interface ActionProps {
  /** A path of Tollgate's own. */
  action: string;
  /** On the button. */
  label: string;
  tone?: "main" | "bad" | "plain" | undefined;
  isTiny?: boolean;
  /** With script, the browser asks this first. */
  confirm?: string | undefined;
  /** Hidden fields. */
  fields?: Readonly<Record<string, string>>;
  /** Fields above the button. */
  children?: Child;
}

/** A form with one button. */
export const Action: FC<ActionProps> = ({ action, label, tone, isTiny = false, confirm, fields = {}, children }) => (
  <form method="post" action={action} data-confirm={confirm}>
    {Object.entries(fields).map(([name, value]) => (
      <input type="hidden" name={name} value={value} />
    ))}
    {children}
    <button class={[tone, isTiny && "tiny"].filter(Boolean).join(" ") || undefined}>{label}</button>
  </form>
);
