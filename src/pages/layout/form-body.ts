// Reads the form that a page has sent, and answers it: with the same page when a field is wrong, and otherwise with a redirect to
// the page that shows the outcome.
import * as z from "zod";
import { AppError, type ErrorCode, errors } from "../../core/errors.ts";
import { inputProblem } from "../../core/text/input-problem.ts";
import { BadRequest, type HttpContext, Problem, TooManyRequests, withoutWrapping } from "../../http.ts";
import { flashCookie, type Flash } from "./flash.ts";
import type { PageOptions } from "./layout.tsx";

/** The fields as they were sent, so that a refused form shows them again. */
export interface SentForm {
  entered: Readonly<Record<string, string>>;
  /** The values of each field that was sent, such as those of a group of checkboxes. */
  chosen?: Readonly<Record<string, readonly string[]>>;
}

/** A form with nothing but its button. */
export const noFields: SentForm = { entered: {} };

/** What was sent, and for each wrong field why. */
export interface RefusedForm extends SentForm {
  errors: Readonly<Record<string, string>>;
  /** Why the act was refused, where no field is wrong. */
  problem?: { code: ErrorCode; text: string };
}

/**
 * The fields of a form by the schema. Texts are trimmed, and an empty field counts as absent. A field that is sent several times,
 * such as a group of checkboxes, is a list where the schema takes one. `sent`: for the page, if the act is refused.
 */
export async function readForm<Schema extends z.ZodObject>(
  c: HttpContext,
  schema: Schema,
): Promise<{ data: z.output<Schema>; sent: SentForm } | { refused: RefusedForm }> {
  const sent = new URLSearchParams(await c.req.text());
  const fields: Record<string, string | string[]> = {};
  for (const name of new Set(sent.keys())) {
    const values = sent.getAll(name).flatMap((value) => (value.trim() === "" ? [] : [value.trim()]));
    const takesList = withoutWrapping(schema.shape[name]) instanceof z.ZodArray;
    const [value] = values;
    if (takesList) fields[name] = values;
    else if (value !== undefined) fields[name] = value;
  }
  return checkForm(c, schema, { value: fields, sent: sentIn(sent), fieldOf: ([name = ""]) => String(name) });
}

interface MadeOfForm {
  /** What the fields make. */
  value: unknown;
  sent: SentForm;
  /** The field that shows what is wrong with a part of it. */
  fieldOf: (path: readonly PropertyKey[]) => string;
}

/** What a form's fields make, checked by the schema of the API. */
export function checkForm<Schema extends z.ZodType>(
  c: HttpContext,
  schema: Schema,
  { value, sent, fieldOf }: MadeOfForm,
): { data: z.output<Schema>; sent: SentForm } | { refused: RefusedForm } {
  const parsed = schema.safeParse(value);
  if (parsed.success) return { data: parsed.data, sent };
  c.set("code", "bad_request");
  const wrong: Record<string, string> = {};
  for (const issue of parsed.error.issues) wrong[fieldOf(issue.path)] ??= asSentence(inputProblem(issue));
  return { refused: { ...sent, errors: wrong } };
}

/** A form with a file, in its field `file`. Throws `BadRequest` when it is not one of a browser. */
export async function readMultipart(c: HttpContext): Promise<{ fields: FormData; file: File | undefined }> {
  if (!/^multipart\/form-data\s*;/i.test(c.req.header("content-type") ?? ""))
    throw new BadRequest("Send the form as multipart/form-data.");
  let fields: FormData;
  try {
    fields = await c.req.raw.formData();
  } catch {
    throw new BadRequest("The form is cut off or is not multipart/form-data. Send it again.");
  }
  const sent = fields.get("file");
  // A browser sends a file without a name and content where none was chosen.
  return { fields, file: sent instanceof File && (sent.name !== "" || sent.size > 0) ? sent : undefined };
}

/** A parameter of a form that is sent with GET. A browser sends an empty text for a field without a value. */
export function orEmpty<Schema extends z.ZodType>(schema: Schema) {
  return z.union([z.literal("").transform(() => undefined), schema]).optional();
}

function sentIn(sent: URLSearchParams): SentForm {
  const chosen = Object.fromEntries([...new Set(sent.keys())].map((name) => [name, sent.getAll(name)]));
  return { entered: Object.fromEntries(sent), chosen };
}

/** The words of a schema end a sentence about the field. A sentence of its own begins with a capital. */
function asSentence(problem: string): string {
  const sentence = /^\p{Lu}/u.test(problem) ? problem : `This ${problem}`;
  return /[.!?]$/.test(sentence) ? sentence : `${sentence}.`;
}

/**
 * Does the act of a form. A refusal that the person can do something about is returned with what was sent, so that the page shows
 * both: the refusal above the form, or at the field that it names. Outages, bugs and sessions that have ended are thrown.
 */
export async function attempt<Done>(
  c: HttpContext,
  act: () => Promise<Done>,
  sent: SentForm,
): Promise<{ done: Done } | { refused: RefusedForm }> {
  try {
    return { done: await act() };
  } catch (error) {
    if (!(error instanceof AppError) || error instanceof TooManyRequests) throw error;
    const { code } = error;
    const { status, advice } = errors[code];
    if (status === 401 || status >= 500) throw error;
    c.set("code", code);
    const text = error instanceof Problem ? error.message : advice;
    const { name, why } = /^(?<name>\w+): (?<why>.+)$/s.exec(text)?.groups ?? {};
    if (code !== "bad_request" || name === undefined || why === undefined)
      return { refused: { ...sent, errors: {}, problem: { code, text } } };
    return { refused: { ...sent, errors: { [name]: asSentence(why) } } };
  }
}

/** The status and the code of a page that shows a refused form again. */
export function answerOf(refused: RefusedForm | undefined): Pick<PageOptions, "status" | "code"> {
  if (refused === undefined) return {};
  const { code } = refused.problem ?? { code: "bad_request" as const };
  return { status: errors[code].status as NonNullable<PageOptions["status"]>, code };
}

/** A field of a filter, which the browser also sends when it is empty. */
export function orBlank<Schema extends z.ZodType>(schema: Schema) {
  return z
    .literal("")
    .transform(() => undefined)
    .or(schema);
}

/** The answer to a form that was done: the browser opens `path`, which shows the message once. */
export function doneAt(c: HttpContext, path: string, text: string, tone: Flash["tone"] = "good"): Response {
  const response = c.redirect(path, 303);
  response.headers.append("set-cookie", flashCookie({ tone, text }));
  return response;
}
