// Reads the form that a page has sent, and answers it: with the same page when a field is wrong, and otherwise with a redirect to
// the page that shows the outcome.
import * as z from "zod";
import type { HttpContext } from "../../http.ts";
import { flashCookie, type Flash } from "./flash.ts";

/** The fields as they were sent, and for each wrong one why. */
export interface RefusedForm {
  entered: Readonly<Record<string, string>>;
  errors: Readonly<Record<string, string>>;
}

/**
 * The fields of a form by the schema. Texts are trimmed, and an empty field counts as absent. A field that is sent several times,
 * such as a group of checkboxes, is a list where the schema takes one.
 */
export async function readForm<Schema extends z.ZodObject>(
  c: HttpContext,
  schema: Schema,
): Promise<{ data: z.output<Schema> } | { refused: RefusedForm }> {
  const sent = new URLSearchParams(await c.req.text());
  const fields: Record<string, string | string[]> = {};
  for (const name of new Set(sent.keys())) {
    const values = sent.getAll(name).flatMap((value) => (value.trim() === "" ? [] : [value.trim()]));
    const takesList = unwrapped(schema.shape[name]) instanceof z.ZodArray;
    const [value] = values;
    if (takesList) fields[name] = values;
    else if (value !== undefined) fields[name] = value;
  }
  const parsed = schema.safeParse(fields);
  if (parsed.success) return { data: parsed.data };
  const errors: Record<string, string> = {};
  for (const { path, message } of parsed.error.issues) errors[String(path[0] ?? "")] ??= message;
  return { refused: { entered: Object.fromEntries(sent), errors } };
}

function unwrapped(schema: unknown): unknown {
  return schema instanceof z.ZodOptional || schema instanceof z.ZodDefault ? unwrapped(schema.unwrap()) : schema;
}

/** The answer to a form that was done: the browser opens `path`, which shows the message once. */
export function doneAt(c: HttpContext, path: string, text: string, tone: Flash["tone"] = "good"): Response {
  const response = c.redirect(path, 303);
  response.headers.append("set-cookie", flashCookie({ tone, text }));
  return response;
}
