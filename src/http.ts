// The one form of an HTTP error (RFC 9457): a stable code, what it means and what to do, and the request's id.
import type { Context } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type * as z from "zod";
import { AppError, type ErrorCode, errors } from "./core/errors.ts";
import type { Context as Bindings } from "./control/context.ts";
import { TenantId } from "./core/tenant.ts";

/** What every handler of the HTTP routes works in. */
export interface HttpEnv {
  Bindings: Env;
  Variables: { requestId: string; context: Bindings };
}

/** A problem document. `detail` says more about this case; it is shown to the client. */
export function problem(c: Context<HttpEnv>, code: ErrorCode, detail?: string): Response {
  const { status, advice } = errors[code];
  return c.json(
    {
      type: "about:blank",
      title: advice,
      status,
      code,
      ...(detail === undefined ? {} : { detail }),
      requestId: c.get("requestId"),
    },
    // 499 is not a registered status; no route answers with it.
    status as ContentfulStatusCode,
    { "content-type": "application/problem+json" },
  );
}

/** A body or query that is not what the route takes. Its text is shown to the client. */
export class BadRequest extends Error {}

/** The JSON body, checked. Throws `BadRequest`, which names the fields, or `content_type`. */
export async function readJson<Schema extends z.ZodType>(
  c: Context<HttpEnv>,
  schema: Schema,
): Promise<z.infer<Schema>> {
  if (!/^application\/json\b/i.test(c.req.header("content-type") ?? "")) throw new AppError("content_type");
  let json: unknown;
  try {
    json = await c.req.json();
  } catch {
    throw new BadRequest("The body is not valid JSON.");
  }
  return checked(json, schema, "body");
}

/** The query's parameters, checked. Throws `BadRequest`, which names them. */
export function readQuery<Schema extends z.ZodType>(c: Context<HttpEnv>, schema: Schema): z.infer<Schema> {
  return checked(c.req.query(), schema, "query");
}

function checked<Schema extends z.ZodType>(value: unknown, schema: Schema, whole: string): z.infer<Schema> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new BadRequest(
    parsed.error.issues
      .map(({ path, message }) => `${path.length === 0 ? whole : path.join(".")}: ${message}`)
      .join("; "),
  );
}

/** The tenant that the path names as `:id`. Throws `not_found` for what can be nobody's id. */
export function tenantOf(c: Context<HttpEnv>): TenantId {
  const id = TenantId.safeParse(c.req.param("id"));
  if (!id.success) throw new AppError("not_found", "There is no such tenant.");
  return id.data;
}
