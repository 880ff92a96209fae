// HTTP in one manner for every room. A handler gets checked input, and it returns a response or throws. routes.ts lists
// the handlers with who may use them, and turns what they throw into problem documents (RFC 9457).
import type { Context as HonoContext, Hono } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import * as z from "zod";
import type { Context } from "./control/context.ts";
import type { Creation } from "./control/idempotent-requests-store.ts";
import type { TenantSummary } from "./control/tenants-store.ts";
import type { Actor, OperatorRole, Permission, Person } from "./core/actor.ts";
import type { Caller } from "./core/call.ts";
import { fromBase64Url, toBase64Url } from "./core/keys/credentials.ts";
import { AppError, type ErrorCode, errors } from "./core/errors.ts";
import { type TenantConfig, TenantId } from "./core/tenant/tenant.ts";
import { inputProblems } from "./core/text/input-problem.ts";
import { decodeUtf8, refusedTextIn, shownName } from "./core/text/text.ts";
import { markRequest } from "./log.ts";

export interface HttpEnv {
  Bindings: Env;
  Variables: {
    requestId: string;
    context: Context;
    /** Who sends the request: a guard sets it once it has verified the credential. */
    actor: Actor;
    /** The person of a `person` route, or of a session. */
    person: Person | undefined;
    /** The verified caller of a `tenant_admin` route. */
    caller: Caller | undefined;
    /** When the impersonation of the request ends, in milliseconds since 1970. */
    impersonationEndsAtMs: number | undefined;
    /** The tenant that the path of an operator's route names. */
    summary: TenantSummary | undefined;
    /** The tenant of a `tenant_admin` route, as its guard has read it for a session. */
    tenant: TenantConfig | undefined;
    /** The request has an `Idempotency-Key`. */
    creation: Creation | undefined;
    /** The code of the refusal, once there is one. */
    code: ErrorCode | undefined;
    /** The request has a credential that Tollgate did not make, although the answer does not say so. */
    hasWrongCredential: boolean | undefined;
    /** The names of the body's fields. */
    fields: readonly string[] | undefined;
    /** The route is a page. */
    isPage: boolean | undefined;
    /** What the audit log has to know. identity/audit/recorder.ts reads it. */
    audit: AuditNotes | undefined;
  };
}

/** An act that is not the request of a route. */
export interface AuditAct {
  action: string;
  actor: Actor;
  /** `null`: the deployment's chain. */
  tenantId: TenantId | null;
  outcome: "succeeded" | "refused";
  /** Words of Tollgate's own, and names of providers. */
  detail: Readonly<Record<string, string>>;
}

/** What a request leaves for the audit log beside its answer. */
export interface AuditNotes {
  /** When the request began. */
  atMs?: number;
  /** The act was noted before it began. */
  intended?: boolean;
  /** What the handler names: the tenant that it made, the thing that it changed. Never a secret. */
  note?: { tenantId?: TenantId; target?: string; detail?: Readonly<Record<string, string>> };
  /** Acts that have rows of their own. */
  acts?: readonly AuditAct[];
  /** A credential of another tenant than the one of the path. */
  crossing?: { tenantId: TenantId; kind: string; id: string | null; target: string | null };
}

/** Says who sends the request: in the audit log, and in every further line of the log. */
export function actAs(c: HttpContext, actor: Actor): void {
  c.set("actor", actor);
  markRequest({ actor: actor.kind });
}

/** Adds a row to the audit log beside that of the request. */
export function recordAct(c: HttpContext, act: AuditAct): void {
  const notes = c.get("audit");
  c.set("audit", { ...notes, acts: [...(notes?.acts ?? []), act] });
}

/** Names for the audit log what neither the path nor the answer's `id` names. */
export function noteAct(c: HttpContext, note: NonNullable<AuditNotes["note"]>): void {
  c.set("audit", { ...c.get("audit"), note });
}

export type HttpContext = HonoContext<HttpEnv>;

/**
 * Who may use a route. public: everyone. buyer: the holder of a checkout's setup token. status: the
 * holder of a status or setup token or a key of the path's tenant, and the operator; others find no tenant. tenant_admin: a
 * key or a member of the path's tenant, with the admin scope and the permission of the route, and an operator who acts for its
 * admin. key_maker: the buyer, or such a member. person: a person who has signed in, of any tenant or none. operator: an operator
 * with the route's role. monitor: the named tenant's monitor token, or everyone when
 * the query names no tenant. stripe: the handler verifies Stripe's signature. mcp: the MCP endpoint identifies its callers.
 */
// oxfmt-ignore
export const accesses = ["public", "buyer", "status", "tenant_admin", "key_maker", "person", "operator", "monitor", "stripe", "mcp"] as const;
export type Access = (typeof accesses)[number];

/** registration: of clients, each of which is stored. address: everything else. identity/address-rate.ts */
export type Rate = "address" | "registration";

const methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "ALL"] as const;
type Method = (typeof methods)[number];

interface Schemas<Body extends z.ZodType, Query extends z.ZodType> {
  /** The JSON body. */
  body?: Body;
  query?: Query;
  /** The body is a file that streams to R2: it has no size limit here. */
  takesFile?: boolean;
  /** The handler reads the body itself, because callers may leave it out, or because it is a form or a document. */
  readsBody?: boolean;
  /** The largest body, where it is not that of the other routes. */
  maxBytes?: number;
  /** People open it in a browser: a refusal is a page, and without a session a visit leads to the sign-in. */
  isPage?: boolean;
  /** The route's name in the audit log, for pages and their files. The API reference does not list such a route. */
  action?: string;
  /** The rate of requests from one address. For what strangers may do at a cost. */
  rate?: Rate;
  /** A tenant's data leave through it, so that the audit log has each request. */
  isDownload?: boolean;
  /** Why its requests are not in the audit log, although they are not reads. */
  notAudited?: string;
}

/** Set by `once` on a handler that takes the header `Idempotency-Key`. */
export interface Keyed {
  takesIdempotencyKey?: boolean;
}

export interface Route extends Schemas<z.ZodType, z.ZodType> {
  /** `ALL`: the handler answers every method itself. */
  method: Method;
  path: string;
  access: Access;
  /** The least role of an operator that opens the route. Only with the access `operator`. */
  role?: OperatorRole;
  /** What the caller of a `tenant_admin` route must be permitted. Each of these routes has one, and no other route. */
  permission?: Permission;
  /** Whether requests may have the header `Idempotency-Key`. */
  takesIdempotencyKey: boolean;
  /** Reads the input, then waits for `check`, then runs the handler. A refused input costs no look into the database. */
  run: (c: HttpContext, check?: (c: HttpContext) => Promise<void>) => Promise<Response>;
}

type RouteHandler<Body extends z.ZodType, Query extends z.ZodType> = ((
  c: HttpContext,
  input: { body: z.output<Body>; query: z.output<Query> },
) => Response | Promise<Response>) &
  Keyed;

/**
 * A row of the table of routes. `:tenantId` in a path is a tenant's id. The handler runs with the parsed body and query. A route of
 * a tenant's people and keys says which permission it needs, and a route of the operator's which role.
 */
export function route<Body extends z.ZodType = z.ZodUndefined, Query extends z.ZodType = z.ZodUndefined>(
  endpoint: `${Method} /${string}`,
  access: "tenant_admin",
  handler: RouteHandler<Body, Query>,
  options: Schemas<Body, Query> & { permission: Permission },
): Route;
export function route<Body extends z.ZodType = z.ZodUndefined, Query extends z.ZodType = z.ZodUndefined>(
  endpoint: `${Method} /${string}`,
  access: "operator",
  handler: RouteHandler<Body, Query>,
  options: Schemas<Body, Query> & { role: OperatorRole },
): Route;
export function route<Body extends z.ZodType = z.ZodUndefined, Query extends z.ZodType = z.ZodUndefined>(
  endpoint: `${Method} /${string}`,
  access: Exclude<Access, "tenant_admin" | "operator">,
  handler: RouteHandler<Body, Query>,
  options?: Schemas<Body, Query>,
): Route;
export function route<Body extends z.ZodType, Query extends z.ZodType>(
  endpoint: `${Method} /${string}`,
  access: Access,
  handler: RouteHandler<Body, Query>,
  schemas: Schemas<Body, Query> & { permission?: Permission; role?: OperatorRole } = {},
): Route {
  const [method, path] = endpoint.split(" ") as [Method, `/${string}`];
  return {
    method,
    path,
    access,
    takesIdempotencyKey: handler.takesIdempotencyKey === true,
    ...schemas,
    async run(c, check) {
      refuseBrokenText(c.req.param(), "path");
      // MCP clients and Stripe send to a URL that a person has configured. Their protocols have no query and own bodies.
      const isOurs = access !== "mcp" && access !== "stripe";
      const query = (isOurs ? readQuery(c, schemas.query ?? nothing) : undefined) as z.output<Query>;
      if (isOurs && schemas.body === undefined && schemas.takesFile !== true && schemas.readsBody !== true)
        await refuseBody(c);
      const body = (schemas.body && (await readJson(c, schemas.body))) as z.output<Body>;
      if (typeof body === "object" && body !== null) c.set("fields", namesOf(body));
      await check?.(c);
      return handler(c, { body, query });
    },
  };
}

/** The names of the fields that are given. */
function namesOf(body: object): string[] {
  return Object.entries(body).flatMap(([name, value]) => (value === undefined ? [] : [name]));
}

/** The query of a route that takes none. */
const nothing = z.strictObject({});
/** The query of a document that any client may ask for in any way. */
export const AnyQuery = z.looseObject({});

/** A refusal with a detail for the client. The message of any other error is for the log only. */
export class Problem extends AppError {}

/** The body or query is not what the route takes. `detail` names the fields and is shown to the client. */
export class BadRequest extends Problem {
  constructor(detail: string) {
    super("bad_request", detail);
  }
}

/** Too many requests of a tenant. The answer says when the next one is admitted. */
export class TooManyRequests extends Problem {
  readonly retryAfterSeconds: number;
  constructor(detail: string, retryAfterSeconds: number) {
    super("rate_limited", `${detail} Try again in ${retryAfterSeconds} seconds.`);
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** The path names a tenant that does not exist. */
export function noSuchTenant(): Problem {
  return new Problem("not_found", "There is no such tenant.");
}

/** Outages end within seconds, or last: a client that waits this long and grows its waits is right in both cases. */
export const OUTAGE_RETRY_SECONDS = 15;

/** The problem document of a refusal. `retryAfterSeconds`: when to try again, where it is known. */
export function problemDocument(
  c: HttpContext,
  code: ErrorCode,
  detail?: string,
  retryAfterSeconds = errors[code].status === 503 ? OUTAGE_RETRY_SECONDS : undefined,
): Response {
  const { status, advice } = errors[code];
  c.set("code", code);
  return c.json(
    {
      type: problemType(c.env, code),
      title: advice,
      status,
      code,
      ...(detail === undefined ? {} : { detail }),
      requestId: c.get("requestId"),
    },
    // 499 is not a registered status; no route answers with it.
    status as ContentfulStatusCode,
    {
      "content-type": "application/problem+json",
      ...(status === 401 && { "www-authenticate": challengeOf(code) }),
      ...(retryAfterSeconds !== undefined && { "retry-after": String(retryAfterSeconds) }),
    },
  );
}

/** The challenge of a 401 (RFC 9110, 15.5.2). As on the MCP endpoint, the answer to a request without a token names no error. */
export function challengeOf(code: ErrorCode): string {
  if (code === "token_missing") return "Bearer";
  return `Bearer error="invalid_token", error_description="${errors[code].advice}"`;
}

/** Path of the page that explains the error codes. */
export const ERRORS_PATH = "/docs/errors";

/** The `type` of a problem document: the code's place on this deployment's page of error codes. */
function problemType(env: Pick<Env, "PUBLIC_URL">, code: ErrorCode): string {
  return `${env.PUBLIC_URL}${ERRORS_PATH}#${code}`;
}

/** The tenant that the path names as `:tenantId`. Throws `not_found` when no tenant can have this id. */
export function tenantOf(c: HttpContext): TenantId {
  const id = TenantId.safeParse(c.req.param("tenantId"));
  if (!id.success) throw noSuchTenant();
  return id.data;
}

/** A query parameter that is `true` or `false`, and `false` when it is absent. */
export const Flag = z
  .enum(["true", "false"])
  .default("false")
  .transform((value) => value === "true");

/** Longest `after`. Cursors are ids, or a few of them encoded. */
const MAX_CURSOR_CHARS = 2_000;

/** The query of a list: at most `limit` items, and `most` by default. `after` is the `next` of the page before. */
export function pageQuery(most: number) {
  return z.object({
    after: z.string().max(MAX_CURSOR_CHARS).default(""),
    limit: z.coerce.number().int().min(1).max(most).default(most),
  });
}
export type PageQuery = z.infer<ReturnType<typeof pageQuery>>;
/** The query of a list whose items are small: 100 of them are at most some 60 KB of JSON. */
export const PageQuery = pageQuery(100);

/** The query of a list, newest first, whose items have numbers as ids. */
export function numberedPageQuery(most: number) {
  return pageQuery(most).extend({ after: z.coerce.number().int().min(1).optional() });
}
export type NumberedPageQuery = z.infer<ReturnType<typeof numberedPageQuery>>;

/** One page of a list: the items under the list's name, and the `after` of the next page; `null` at the end. */
export type Page<Name extends string, Item> = Record<Name, Item[]> & { next: string | null };

/**
 * The page of rows that a store has read: one more than `limit`, if there are as many, so that the last page is known as
 * such. `cursorOf` names a row for `after`.
 */
export function pageOf<Name extends string, Item>(
  name: Name,
  rows: readonly Item[],
  limit: number,
  cursorOf: (item: Item) => string | number,
): Page<Name, Item> {
  const items = rows.slice(0, limit);
  const last = rows.length > limit ? items.at(-1) : undefined;
  return { [name]: items, next: last === undefined ? null : String(cursorOf(last)) } as Page<Name, Item>;
}

/** The page of a list that is short by nature and read as a whole. Throws `BadRequest` when `after` names no item of it. */
export function pageOfAll<Name extends string, Item>(
  name: Name,
  all: readonly Item[],
  { after, limit }: PageQuery,
  cursorOf: (item: Item) => string | number,
): Page<Name, Item> {
  const start = after === "" ? 0 : all.findIndex((item) => String(cursorOf(item)) === after) + 1;
  if (after !== "" && start === 0) throw badCursor();
  return pageOf(name, all.slice(start, start + limit + 1), limit, cursorOf);
}

/** A cursor of several texts: a list without a single id. */
export function encodeCursor(parts: readonly string[]): string {
  return toBase64Url(new TextEncoder().encode(JSON.stringify(parts)));
}

/** An instant of an answer. A cursor is a client's text, and PostgreSQL refuses the year 0. */
const CursorInstant = z.iso.datetime().startsWith("2");

/**
 * The `count` texts of a cursor, the first of them an instant; `undefined` for the first page. Throws `BadRequest` for a text
 * that is no such cursor.
 */
export function decodeCursor(after: string, count: number): string[] | undefined {
  if (after === "") return undefined;
  let value: unknown;
  try {
    value = JSON.parse(decodeUtf8(fromBase64Url(after)) ?? "");
  } catch {
    throw badCursor();
  }
  const parts = z.tuple([CursorInstant], z.string()).check(z.length(count)).safeParse(value);
  if (!parts.success || refusedTextIn(parts.data) !== undefined) throw badCursor();
  return parts.data;
}

function badCursor(): BadRequest {
  return new BadRequest("after: must be the `next` of the previous page. Leave it out to start again.");
}

/** HTTPS only, for a year, once a browser has seen it. Sub-domains are the operator's own affair. */
const STRICT_TRANSPORT = "max-age=31536000";
/** Everything but a page: it loads nothing, and no frame shows it. A page brings its own policy. */
const NO_CONTENT_POLICY = "default-src 'none'; frame-ancestors 'none'";

/**
 * Sets the headers that every answer has: the request's id, and what browsers and caches need to keep tenants' data apart.
 * hono/secure-headers has 13 headers for sites; an API of which browsers read JSON needs these, at a tenth of the cost.
 */
export function finishAnswer(c: HttpContext): void {
  const set = ({ headers }: Response): void => {
    headers.set("x-request-id", c.get("requestId"));
    headers.set("x-content-type-options", "nosniff");
    if (!headers.has("referrer-policy")) headers.set("referrer-policy", "no-referrer");
    if (!headers.has("content-security-policy")) headers.set("content-security-policy", NO_CONTENT_POLICY);
    if (!headers.has("cache-control")) headers.set("cache-control", "no-store");
    if (c.env.PUBLIC_URL.startsWith("https:")) headers.set("strict-transport-security", STRICT_TRANSPORT);
  };
  try {
    set(c.res);
  } catch {
    // The headers of an answer that came from elsewhere cannot be changed.
    const copy = new Response(c.res.body, c.res);
    set(copy);
    c.res = copy;
  }
}

/**
 * Lets pages of any origin read the answers at `path`, and answers their question beforehand. Only for requests whose cookies
 * mean nothing.
 */
export function shareWithBrowsers(
  app: Hono<HttpEnv>,
  path: string,
  preflight: { methods: string; headers: string },
): void {
  app.options(path, (c) =>
    c.body(null, 204, {
      "access-control-allow-origin": "*",
      "access-control-allow-methods": preflight.methods,
      "access-control-allow-headers": preflight.headers,
      "access-control-max-age": "86400", // a day; browsers cap it at less
    }),
  );
  app.use(path, async (c, next) => {
    await next();
    c.header("access-control-allow-origin", "*");
  });
}

/** Headers of a document that is the same for everyone. Five minutes, so that a deployment is soon visible. */
export const publicForMinutes = { "cache-control": "public, max-age=300" };

/** Headers of an answer that no cache may keep. */
export const noStore = { "cache-control": "no-store" };

/** Headers of a file that a browser saves under this name (RFC 6266), and never shows as a page of Tollgate's. */
export function downloadOf(name: string, contentType: string): Record<string, string> {
  // Programs that do not read the second form get a name of ASCII, without what could end the first.
  const ascii = name.replaceAll(/[^\w .()+-]/g, "_");
  const encoded = encodeURIComponent(name).replaceAll(/['()*]/g, (each) => `%${each.charCodeAt(0).toString(16)}`);
  return {
    "content-type": contentType,
    "content-disposition": `attachment; filename="${ascii}"; filename*=UTF-8''${encoded}`,
    "content-security-policy": `${NO_CONTENT_POLICY}; sandbox`,
    ...noStore,
  };
}

/** Whether the request says that its body is JSON, or a JSON merge patch (RFC 7396). */
export function isJson(c: HttpContext): boolean {
  return /^application\/(?:merge-patch\+)?json\s*(?:;|$)/i.test(c.req.header("content-type") ?? "");
}

/** The parsed JSON body. Throws `BadRequest`, which names the fields, or `content_type`. */
export async function readJson<Schema extends z.ZodType>(c: HttpContext, schema: Schema): Promise<z.output<Schema>> {
  if (!isJson(c)) throw new AppError("content_type");
  if (!/^(identity)?$/i.test(c.req.header("content-encoding") ?? ""))
    throw new Problem("content_type", "Send the body without Content-Encoding.");
  const text = decodeUtf8(await c.req.arrayBuffer(), { dropMark: true });
  if (text === undefined) throw new BadRequest("The body is not UTF-8. Encode it as UTF-8 and send it again.");
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new BadRequest("The body is not valid JSON.");
  }
  return checked(json, schema, "body");
}

/** The parsed query. Throws `BadRequest`, which names the parameters. */
export function readQuery<Schema extends z.ZodType>(c: HttpContext, schema: Schema): z.output<Schema> {
  const twice = Object.entries(c.req.queries()).find(([, values]) => values.length > 1);
  if (twice !== undefined) throw new BadRequest(`${shownName(twice[0])}: is given more than once`);
  return checked(c.req.query(), schema, "query");
}

function checked<Schema extends z.ZodType>(value: unknown, schema: Schema, whole: string): z.output<Schema> {
  refuseBrokenText(value, whole);
  const unknown = unknownField(value, schema);
  if (unknown !== undefined) {
    const { path, known } = unknown;
    const what = whole === "query" ? "query parameter" : "field";
    throw new BadRequest(
      `${path.map(shownName).join(".")}: there is no such ${what}. ${known.length === 0 ? `It takes none.` : `Known: ${known.join(", ")}.`}`,
    );
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new BadRequest(inputProblems(parsed.error.issues, whole));
}

/** Refuses a text that PostgreSQL cannot store, wherever it is in the input. So no schema and no store has to. */
function refuseBrokenText(value: unknown, whole: string): void {
  const refused = refusedTextIn(value);
  if (refused !== undefined)
    throw new BadRequest(`${refused.path.map(shownName).join(".") || whole}: ${refused.reason}`);
}

/** A body that a route would ignore is a mistake of its sender's. An empty object and `null` say nothing. */
async function refuseBody(c: HttpContext): Promise<void> {
  if (c.req.method === "GET" || c.req.method === "HEAD") return;
  const text = (await c.req.text()).trim();
  if (!/^(\{\s*\}|null)?$/.test(text)) throw new BadRequest("body: this route takes no body.");
}

interface UnknownField {
  path: string[];
  /** The names that the schema knows at this place. */
  known: string[];
}

/**
 * The first field that no schema of a request knows, at any depth. A misspelled name would otherwise be ignored, and the
 * sender would believe that it has an effect.
 */
export function unknownField(value: unknown, schema: unknown, path: readonly string[] = []): UnknownField | undefined {
  const inner = withoutWrapping(schema);
  if (inner instanceof z.ZodArray && Array.isArray(value))
    return firstOf(value, (item, index) => unknownField(item, inner.element, [...path, String(index)]));
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  const entries = Object.entries(value);
  if (inner instanceof z.ZodRecord)
    return firstOf(entries, ([name, each]) => unknownField(each, inner.valueType, [...path, name]));
  if (inner instanceof z.ZodUnion) {
    const found = inner.options.map((option) => unknownField(value, option, path));
    if (found.includes(undefined)) return undefined;
    const known = [...new Set(found.flatMap((each) => each?.known ?? []))];
    // A field that another option knows is a wrong combination, which the schema itself explains.
    const wrong = found.find((each) => each !== undefined && !known.includes(each.path.at(-1) ?? ""));
    return wrong && { ...wrong, known };
  }
  if (!(inner instanceof z.ZodObject) || inner.def.catchall instanceof z.ZodUnknown) return undefined;
  const shape: Record<string, unknown> = inner.shape;
  return firstOf(entries, ([name, each]) =>
    Object.hasOwn(shape, name)
      ? unknownField(each, shape[name], [...path, name])
      : { path: [...path, name], known: Object.keys(shape) },
  );
}

/** The schema of the values themselves: an object, a list, a text. */
export function withoutWrapping(schema: unknown): unknown {
  if (
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodNullable ||
    schema instanceof z.ZodDefault ||
    schema instanceof z.ZodReadonly
  )
    return withoutWrapping(schema.unwrap());
  return schema instanceof z.ZodPipe ? withoutWrapping(schema.in) : schema;
}

function firstOf<Item, Found>(
  items: readonly Item[],
  find: (item: Item, index: number) => Found | undefined,
): Found | undefined {
  for (const [index, item] of items.entries()) {
    const found = find(item, index);
    if (found !== undefined) return found;
  }
  return undefined;
}
