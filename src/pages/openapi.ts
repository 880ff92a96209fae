// The OpenAPI 3.1 description of the product, generated from the table of routes: methods, paths, who may use them, input
// and error codes. endpoints.ts adds ids, summaries and answers.
import * as z from "zod";
import {
  type Permission,
  type TenantRole,
  permissionsOfAdminKey,
  permissionsOfImpersonator,
  rolesWith,
  permissionsOfClients,
} from "../core/actor.ts";
import { config } from "../core/app-config.ts";
import { type ErrorCode, errors } from "../core/errors.ts";
import { TenantId } from "../core/tenant/tenant.ts";
import type { Access, Route } from "../http.ts";
import { type Scheme, securitySchemes } from "./security-schemes.ts";
import { DOCUMENT, EMPTY, type Answer, type Endpoint, FILE, METRICS, PAGE, REDIRECT, endpoints } from "./endpoints.ts";

export type JsonSchema = z.core.JSONSchema.BaseSchema;

interface Content {
  schema: JsonSchema;
}
export interface Parameter {
  name: string;
  in: "path" | "query" | "header";
  required: boolean;
  description?: string;
  schema: JsonSchema;
}
export interface ApiResponse {
  description: string;
  headers?: Record<string, { $ref: string }>;
  content?: Record<string, Content>;
}
export interface Operation {
  operationId: string;
  summary: string;
  description?: string;
  tags: string[];
  security: Record<string, string[]>[];
  /** What the caller's role or key must permit. */
  "x-permission"?: Permission;
  /** The roles that include the permission. */
  "x-roles"?: readonly TenantRole[];
  parameters: Parameter[];
  requestBody?: { required: boolean; content: Record<string, Content> };
  responses: Record<string, ApiResponse>;
}
export interface OpenApi {
  openapi: string;
  info: { title: string; version: string; description: string; termsOfService: string };
  servers: { url: string }[];
  tags: { name: string; description: string }[];
  paths: Record<string, Record<string, Operation>>;
  components: {
    schemas: Record<string, JsonSchema>;
    headers: Record<string, { description: string; schema: JsonSchema }>;
    securitySchemes: Record<string, Record<string, string>>;
  };
}

interface Audience {
  /** The section of the reference. */
  tag: string;
  who: string;
  /** Alternatives. An empty one: everyone. */
  schemes: readonly (Scheme | "everyone")[];
  /** What the guard refuses with. */
  codes: readonly ErrorCode[];
}

const noToken = ["token_missing", "token_invalid"] as const;
const audiences: Readonly<Record<Access, Audience>> = {
  public: { tag: "Public", who: "everyone", schemes: ["everyone"], codes: [] },
  mcp: { tag: "Agents", who: "an agent with an API key or an access token", schemes: ["agentToken"], codes: [] },
  buyer: {
    ...{ tag: "Buyers", who: "the buyer, with the order's set-up token", schemes: ["setupToken"] },
    codes: [...noToken, "token_expired"],
  },
  status: {
    ...{ tag: "Buyers", who: "the buyer, the tenant's own keys, and the operator" },
    schemes: ["statusToken", "statusLink", "setupToken", "operatorToken"],
    codes: ["token_expired", "key_revoked"],
  },
  tenant_admin: {
    ...{ tag: "A tenant's administrator", who: "an API key or a member of the tenant, with the scope tenant:admin" },
    schemes: ["adminKey", "memberToken", "clientToken", "session", "impersonation"],
    codes: [
      ...noToken,
      ...([
        "token_expired",
        "key_revoked",
        "scope_missing",
        "role_missing",
        "member_removed",
        "origin_refused",
      ] as const),
      ...(["tenant_unknown", "tenant_gone", "rate_limited"] as const),
    ],
  },
  person: {
    ...{ tag: "People", who: "a person who has signed in at a trusted issuer", schemes: ["personToken", "session"] },
    codes: [...noToken, "token_expired", "issuer_unavailable"],
  },
  key_maker: {
    tag: "A tenant's administrator",
    who: "the buyer, with the order's set-up token, or a member who manages keys, with the scope tenant:admin or a session",
    schemes: ["setupToken", "memberToken", "session"],
    codes: [
      ...noToken,
      ...(["token_expired", "scope_missing", "role_missing", "member_removed", "origin_refused"] as const),
      ...(["tenant_unknown", "tenant_gone", "rate_limited"] as const),
    ],
  },
  operator: {
    ...{
      tag: "The operator",
      who: "the operator's people",
      schemes: ["operatorToken", "accessToken", "operatorSession"],
    },
    codes: [...noToken, "token_expired", "issuer_unavailable", "scope_missing", "role_missing"],
  },
  monitor: {
    ...{ tag: "Stripe and monitors", who: "everyone; for one tenant, the holder of its monitor token" },
    schemes: ["everyone", "monitorToken", "monitorLink"],
    codes: [...noToken, "key_revoked"],
  },
  stripe: {
    ...{ tag: "Stripe and monitors", who: "Stripe", schemes: ["stripeSignature"], codes: ["signature_invalid"] },
  },
};

/** Who may use the route, in words. */
export function whoMayUse(access: Access): string {
  return audiences[access].who;
}

/** What the parts of paths are. */
const pathParts: Readonly<Record<string, string>> = {
  tenantId: "The tenant's id.",
  keyId: "The key's id.",
  impersonationId: "The impersonation's id.",
  memberId: "The member's id.",
  invitationId: "The invitation's id.",
  grantId: "The grant's id.",
  sessionId: "The session's id.",
  name: "The name of the backup.",
  runId: "The run's number.",
};

const documents = ["/openapi.json", "/docs/api", "/docs/errors"];

/** The description. `publicUrl`: the origin of the deployment. Throws for a route that endpoints.ts does not have. */
export function openApi(routes: readonly Route[], publicUrl: string): OpenApi {
  const paths: OpenApi["paths"] = {};
  for (const route of routes.filter(isListed)) {
    const method = route.method === "ALL" ? "post" : route.method.toLowerCase();
    const path = route.path.replaceAll(/:(\w+)/g, "{$1}");
    paths[path] = { ...paths[path], [method]: operationOf(route) };
  }
  const problemSchema = schemaOf(Problem);
  const tags = [...new Set(Object.values(audiences).map(({ tag }) => tag))];
  return {
    openapi: "3.1.1",
    info: {
      title: `${config.product.name} API`,
      version: "1",
      description: [
        "Errors are problem documents (RFC 9457). Their `type` links to the page of error codes.",
        "Every answer has the header `X-Request-Id`: send it to support.",
        "Lists take `limit` and `after`, and answer `next`: the `after` of the next page, or null at the end.",
        "Unknown query parameters and fields are refused by name.",
        "A known path with another method answers 405 with `Allow`. Another tenant's path answers 404.",
      ].join(" "),
      termsOfService: config.product.termsUrl,
    },
    servers: [{ url: publicUrl }],
    tags: tags.map((name) => ({ name, description: whoUses(name) })),
    paths,
    components: {
      schemas: {
        Problem: {
          ...problemSchema,
          properties: { ...problemSchema.properties, code: { $ref: "#/components/schemas/ErrorCode" } },
        },
        ErrorCode: { type: "string", enum: Object.keys(errors) },
      },
      headers: {
        RequestId: { description: "The id of this request, for support.", schema: { type: "string" } },
        RetryAfter: { description: "Seconds to wait before the next attempt.", schema: { type: "integer" } },
        Challenge: { description: "How to authenticate (RFC 9110, 11.6.1).", schema: { type: "string" } },
      },
      securitySchemes,
    },
  };
}

/** Whether the reference lists the route. Pages and their files are for browsers. */
export function isListed({ action }: Pick<Route, "action">): boolean {
  return action === undefined;
}

const Problem = z.object({
  type: z.url(),
  title: z.string(),
  status: z.int(),
  code: z.string(),
  detail: z.string().optional(),
  requestId: z.string(),
});

function whoUses(tag: string): string {
  const users = Object.values(audiences).filter((each) => each.tag === tag);
  const text = users.map(({ who }) => who).join("; ");
  return `For ${text}.`;
}

function operationOf(route: Route): Operation {
  const endpoint = endpoints[`${route.method} ${route.path}`];
  if (endpoint === undefined) throw new Error(`src/pages/endpoints.ts lacks ${route.method} ${route.path}`);
  const body = requestBody(route, endpoint);
  const notes = [
    ...(route.role === undefined ? [] : [`Needs the role ${route.role}.`]),
    ...(endpoint.repeat === undefined ? [] : [`A repetition is harmless. ${endpoint.repeat}`]),
  ];
  return {
    operationId: endpoint.id,
    summary: endpoint.summary,
    ...(notes.length > 0 && { description: notes.join(" ") }),
    tags: [documents.includes(route.path) ? "Public" : audiences[route.access].tag],
    security: schemesOf(route).map((scheme) => (scheme === "everyone" ? {} : { [scheme]: [] })),
    ...(route.permission !== undefined && {
      "x-permission": route.permission,
      "x-roles": rolesWith(route.permission),
    }),
    parameters: parametersOf(route, endpoint),
    ...(body !== undefined && { requestBody: body }),
    responses: { ...answersOf(endpoint), ...(route.access === "mcp" ? mcpErrors() : errorsOf(route, endpoint)) },
  };
}

/** What is permitted at most to credentials that have no role of their own. */
const limited: Readonly<Record<string, readonly Permission[]>> = {
  ...{ adminKey: permissionsOfAdminKey, clientToken: permissionsOfClients, impersonation: permissionsOfImpersonator },
};

function schemesOf({ access, permission }: Route): Audience["schemes"] {
  const { schemes } = audiences[access];
  return schemes.filter((scheme) => permission === undefined || limited[scheme]?.includes(permission) !== false);
}

function parametersOf(route: Route, endpoint: Endpoint): Parameter[] {
  const inPath = [...route.path.matchAll(/:(?<name>\w+)/g)].map(({ groups }): Parameter => {
    const name = groups?.["name"] ?? "";
    const description = pathParts[name];
    const schema: JsonSchema = name === "tenantId" ? schemaOf(TenantId) : { type: "string" };
    return { name, in: "path", required: true, ...(description !== undefined && { description }), schema };
  });
  const query = route.query === undefined ? {} : inputSchemaOf(route.query);
  // The guard reads the token, which is a security scheme.
  const isCredential = (name: string): boolean => name === "token" && route.access !== "public";
  const inQueryString = Object.entries(query.properties ?? {})
    .filter(([name]) => !isCredential(name))
    .map(([name, schema]): Parameter => ({
      name,
      in: "query",
      required: query.required?.includes(name) === true,
      schema: schema === true ? {} : (schema as JsonSchema),
    }));
  const key: Parameter = {
    ...{ name: "Idempotency-Key", in: "header", required: false, schema: { type: "string", maxLength: 255 } },
    description: "The same key and body within a day get the first answer and make nothing new.",
  };
  const version: Parameter = {
    ...{ name: "If-Match", in: "header", required: true, schema: { type: "string" } },
    description: "The ETag of the version that the change is meant for, or `*`.",
  };
  const isConditional = endpoint.codes?.includes("precondition_required") === true;
  const headers = [...(route.takesIdempotencyKey ? [key] : []), ...(isConditional ? [version] : [])];
  return [...inPath, ...inQueryString, ...headers];
}

/** Bytes of any type. */
const anyDocument: Record<string, Content> = {
  "application/octet-stream": { schema: { type: "string", format: "binary" } },
};

function requestBody(route: Route, endpoint: Endpoint): Operation["requestBody"] {
  const json = route.body ?? endpoint.body;
  const content = {
    ...(json === DOCUMENT && anyDocument),
    ...(json !== undefined && json !== DOCUMENT && { "application/json": { schema: inputSchemaOf(json) } }),
    ...(route.takesFile === true && { "application/x-ndjson": { schema: { type: "string" } } }),
  } satisfies Record<string, Content>;
  return Object.keys(content).length === 0 ? undefined : { required: endpoint.bodyIsOptional !== true, content };
}

const everyAnswer = { "X-Request-Id": { $ref: "#/components/headers/RequestId" } };

function answersOf({ answers }: Endpoint): Record<string, ApiResponse> {
  return Object.fromEntries(
    Object.entries(answers).map(([status, answer]) => {
      const content = contentOf(answer);
      const description = statusTexts[Number(status)] ?? "Done";
      return [status, { description, headers: everyAnswer, ...(content !== undefined && { content }) }];
    }),
  );
}

const statusTexts: Readonly<Record<number, string>> = {
  200: "Done.",
  201: "Created.",
  202: "Accepted. Tollgate does the rest in the background.",
  302: "The browser continues elsewhere.",
  303: "The browser continues elsewhere.",
  503: "Not well. The checks say why.",
};

function contentOf(answer: Answer): Record<string, Content> | undefined {
  if (answer === EMPTY || answer === REDIRECT) return undefined;
  if (answer === DOCUMENT) return anyDocument;
  if (answer === FILE) return { "application/x-ndjson": { schema: { type: "string" } } };
  if (answer === METRICS) return { "application/openmetrics-text": { schema: { type: "string" } } };
  if (answer === PAGE) return { "text/html": { schema: { type: "string" } } };
  return { "application/json": { schema: schemaOf(answer) } };
}

/** The codes that follow from the row of the route, and the endpoint's own. */
function codesOf(route: Route, endpoint: Endpoint): ErrorCode[] {
  const readsBody = route.body !== undefined || endpoint.body !== undefined;
  const codes: (ErrorCode | false | undefined)[] = [
    ...audiences[route.access].codes,
    route.access !== "stripe" && "bad_request",
    readsBody && route.access !== "stripe" && "content_type",
    route.takesFile !== true && route.method !== "GET" && "body_too_large",
    (route.path.includes(":") || route.access === "monitor") && "not_found",
    route.method !== "GET" && route.access !== "stripe" && "conflict",
    route.takesIdempotencyKey && "idempotency_key_mismatch",
    route.rate !== undefined && "rate_limited",
    "control_unavailable",
    "internal",
    ...(endpoint.codes ?? []),
  ];
  const known = new Set(codes.filter((code) => code !== false && code !== undefined));
  const isDocument = route.access === "public" && route.method === "GET";
  return isDocument ? ["bad_request", "internal", ...(endpoint.codes ?? [])] : [...known];
}

function errorsOf(route: Route, endpoint: Endpoint): Record<string, ApiResponse> {
  const byStatus = Map.groupBy(codesOf(route, endpoint), (code) => errors[code].status);
  return Object.fromEntries(
    [...byStatus]
      .filter(([status]) => endpoint.answers[status] === undefined)
      .toSorted(([a], [b]) => a - b)
      .map(([status, codes]) => [String(status), problem(status, codes)]),
  );
}

function problem(status: number, codes: readonly ErrorCode[]): ApiResponse {
  return {
    description: codes.join(", "),
    headers: {
      ...everyAnswer,
      ...(status === 401 && { "WWW-Authenticate": { $ref: "#/components/headers/Challenge" } }),
      ...((status === 429 || status === 503) && { "Retry-After": { $ref: "#/components/headers/RetryAfter" } }),
    },
    content: {
      "application/problem+json": {
        schema: { $ref: "#/components/schemas/Problem", properties: { code: { enum: [...codes] } } },
      },
    },
  };
}

/** The MCP endpoint answers JSON-RPC errors. Only a challenge is none. */
function mcpErrors(): Record<string, ApiResponse> {
  const Refusal = z.object({
    jsonrpc: z.literal("2.0"),
    id: z.union([z.string(), z.number()]).nullable(),
    error: z.object({ code: z.int(), message: z.string(), data: z.looseObject({ code: z.string() }).optional() }),
  });
  const refused = (description: string): ApiResponse => ({
    ...{ description, headers: everyAnswer },
    content: { "application/json": { schema: schemaOf(Refusal) } },
  });
  return {
    400: refused("The message is malformed."),
    401: {
      description: [...noToken, "token_expired", "key_revoked"].join(", "),
      headers: { ...everyAnswer, "WWW-Authenticate": { $ref: "#/components/headers/Challenge" } },
    },
    402: refused("payment_required"),
    403: refused("The account, the origin or a scope."),
    406: refused("The client accepts neither JSON nor an event stream."),
    413: refused("body_too_large"),
    415: refused("content_type"),
    429: refused("rate_limited, window_exhausted, period_exhausted"),
    503: refused("tenant_unavailable, control_unavailable"),
  };
}

/** Takes out what makes the description ten times as long: patterns of named formats, and the bounds of every integer. */
function shorten(schema: JsonSchema): void {
  if (schema.format !== undefined) delete schema.pattern;
  if (schema.minimum === Number.MIN_SAFE_INTEGER) delete schema.minimum;
  if (schema.maximum === Number.MAX_SAFE_INTEGER) delete schema.maximum;
}

/** The schema of what a client sends. */
function inputSchemaOf(schema: z.ZodType): JsonSchema {
  const { $schema: _, ...json } = z.toJSONSchema(schema, {
    io: "input",
    unrepresentable: "any",
    override: ({ jsonSchema }) => shorten(jsonSchema),
  });
  return json;
}

/** The schema of an answer. Answers get more fields in time, so it forbids none. */
function schemaOf(schema: z.ZodType): JsonSchema {
  const { $schema: _, ...json } = z.toJSONSchema(schema, {
    io: "output",
    unrepresentable: "any",
    override: ({ jsonSchema }) => {
      if (jsonSchema.additionalProperties === false) delete jsonSchema.additionalProperties;
      shorten(jsonSchema);
    },
  });
  return json;
}
