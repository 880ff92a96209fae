// Routes of the OAuth server that clients call: metadata, registration, tokens and revocation. A request about a code or a token
// is one RPC to the tenant that the text names; a text that Tollgate did not make wakes no object.
import * as z from "zod";
import type { Context } from "../../control/context.ts";
import type { TenantId } from "../../core/tenant/tenant.ts";
import { AppError } from "../../core/errors.ts";
import {
  BadRequest,
  type HttpContext,
  type Page,
  type PageQuery,
  Problem,
  pageQuery,
  publicForMinutes,
  tenantOf,
  actAs,
  recordAct,
} from "../../http.ts";
import { describeError, log } from "../../log.ts";
import { acts } from "../audit/audit.ts";
import { membersStore } from "../members/members-store.ts";
import { providersStore } from "../providers/providers-store.ts";
import type { GrantPage } from "./grants.ts";
import { protectedResourceMetadata } from "../tokens/authenticate.ts";
import { ASSERTION_GRANT, assertionPorts } from "../providers/id-jag.ts";
import { placeOf } from "../tokens/tenant-hosts.ts";
import { isDirect } from "../tokens/issuers.ts";
import { type EntriesPort, oauthKv } from "./kv.ts";
import {
  type AssertedMember,
  type AssertionPorts,
  type OauthAnswer,
  type OauthEnv,
  type TokenRequest,
  answerRegistration,
  answerTokenRequest,
  isGenuineSubject,
  serverMetadata,
  tenantOfForm,
  unavailable,
} from "./server.ts";

/** Who issues tokens for the MCP endpoint (RFC 9728). In every mode, and the same for everyone. */
export function showResourceMetadata(c: HttpContext): Response {
  return c.json(protectedResourceMetadata(c.env, placeOf(c.env, c.req.url).origin), 200, publicForMinutes);
}

/**
 * In direct mode the deployment's one provider issues the tokens, and there is no OAuth server of Tollgate's own: its endpoints
 * answer as unknown paths do.
 */
export function inServerMode(handler: (c: HttpContext) => Response | Promise<Response>): typeof handler {
  return (c) => {
    if (isDirect(c.env)) throw new AppError("not_found");
    return handler(c);
  };
}

/** RFC 8414. Clients ask for it at the root and below the path of the MCP endpoint. */
export async function showServerMetadata(c: HttpContext): Promise<Response> {
  return c.json(await serverMetadata(c.env, "oauth"), 200, publicForMinutes);
}

/** The same in the form of OpenID Connect Discovery. */
export async function showOpenIdMetadata(c: HttpContext): Promise<Response> {
  return c.json(await serverMetadata(c.env, "openid"), 200, publicForMinutes);
}

/** The keys of ID tokens: none, because the server issues no ID tokens. The metadata in OpenID Connect's form must name a set. */
export function showKeySet(c: HttpContext): Response {
  return c.json({ keys: [] }, 200, publicForMinutes);
}

/** Registers a client (RFC 7591). */
export async function registerClient(c: HttpContext): Promise<Response> {
  const body = await c.req.text();
  return respond(await answerRegistration(c.env, body, oauthEnv(c.get("context"))));
}

/** The token endpoint, and the endpoint that revokes a token (RFC 7009). */
export async function answerToken(c: HttpContext): Promise<Response> {
  const context = c.get("context");
  const request: TokenRequest = {
    contentType: c.req.header("content-type") ?? "",
    authorization: c.req.header("authorization") ?? null,
    body: await c.req.text(),
  };
  const tenantId = await tenantOfForm(c.env.CREDENTIAL_KEY, request.body);
  if (tenantId === undefined) return answerInWorker(c, request);
  try {
    return respond(await context.tenantObject(tenantId).oauthToken(request));
  } catch (error) {
    log("error", "oauth_failed", { tenantId, error: describeError(error) });
    return respond(await unavailable());
  }
}

/** Answers a request that names no tenant: one that is refused, or one with an assertion, whose subject has a tenant. */
async function answerInWorker(c: HttpContext, request: TokenRequest): Promise<Response> {
  const context = c.get("context");
  const ports = assertionPorts({
    providers: (issuer) => providersStore(context.control).byAssertions(issuer),
    memberships: (identity) => membersStore(context.control).ofIdentity(identity),
  });
  let member: AssertedMember | undefined;
  const assertions: AssertionPorts = {
    keysOf: (issuer) => ports.keysOf(issuer),
    memberOf: async (claims) => (member = await ports.memberOf(claims)),
  };
  const env = { ...oauthEnv(context), credentialKey: c.env.CREDENTIAL_KEY, assertions };
  const answer = await answerTokenRequest(c.env, request, env);
  if (answer.status === 200 && member !== undefined) {
    const { tenantId, memberId: id, role } = member;
    const actor = { kind: "member", tenantId, id, role, through: "issuer" } as const;
    actAs(c, actor);
    log("info", "oauth_access_granted", { tenantId, memberId: id, by: "assertion" });
    recordAct(c, { action: acts.grantedByAssertion, actor, tenantId, outcome: "succeeded", detail: {} });
  }
  // A code or a token without a tenant is made up, also while Tollgate cannot say so. An assertion needs a refusal.
  const isAssertion = new URLSearchParams(request.body).get("grant_type") === ASSERTION_GRANT;
  if (!isAssertion || (answer.status !== 200 && answer.status < 500)) c.set("hasWrongCredential", true);
  return respond(answer);
}

/** `lastUsedAt` is exact to the minute. `expiresAt` moves with each use; `null`: the client has not fetched its tokens yet. */
export const Grant = z.object({
  id: z.string(),
  memberId: z.string(),
  clientId: z.string(),
  clientName: z.string().nullable(),
  scopes: z.array(z.string()),
  createdAt: z.iso.datetime(),
  lastUsedAt: z.iso.datetime().nullable(),
  expiresAt: z.iso.datetime().nullable(),
});

export const GrantsQuery = pageQuery(100);

/** The clients that members of the tenant have let in. */
export async function listGrants(c: HttpContext, { query }: { query: PageQuery }): Promise<Response> {
  return c.json(await pageOfGrants(c, query));
}

export async function pageOfGrants(
  c: HttpContext,
  { limit, after }: PageQuery,
): Promise<Page<"grants", z.infer<typeof Grant>>> {
  const asked = { limit, ...(after !== "" && { after }) };
  const page = await objectOf(c).listGrants(asked);
  if (page === undefined) throw new BadRequest("after: there is no such grant now. Leave it out to start again.");
  const instant = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString());
  const grants = page.grants.map(({ createdAtMs, lastUsedAtMs, expiresAtMs, ...grant }) => ({
    ...{ ...grant, scopes: [...grant.scopes], createdAt: new Date(createdAtMs).toISOString() },
    ...{ lastUsedAt: instant(lastUsedAtMs), expiresAt: instant(expiresAtMs) },
  }));
  return { grants, next: page.next };
}

/** Ends a grant: its client is refused from the next request on. */
export async function revokeGrant(c: HttpContext): Promise<Response> {
  const grantId = c.req.param("grantId") ?? "";
  if ((await objectOf(c).revokeGrants({ grantId })) === 0)
    throw new Problem("not_found", "The tenant has no such grant.");
  return c.json({ revoked: true });
}

/** The object of the path's tenant. Throws `tenant_unavailable` while it cannot be reached. */
function objectOf(c: HttpContext): {
  listGrants: (options: { limit: number; after?: string }) => Promise<GrantPage | undefined>;
  revokeGrants: (which: { grantId: string }) => Promise<number>;
} {
  const tenantId = tenantOf(c);
  const object = c.get("context").tenantObject(tenantId);
  const reach = async <Answer>(answer: Promise<Answer>): Promise<Answer> => {
    try {
      return await answer;
    } catch (error) {
      throw new AppError("tenant_unavailable", undefined, { cause: error });
    }
  };
  return {
    listGrants: (options) => reach<GrantPage | undefined>(object.listGrants(options)),
    revokeGrants: (which) => reach<number>(object.revokeGrants(which)),
  };
}

/** What the library gets when it runs in the Worker. It then refreshes no grant, so it asks for no member. */
export function oauthEnv(context: Context): OauthEnv {
  const now = (): number => Date.now();
  return {
    OAUTH_KV: oauthKv({
      tenant: (tenantId) => tenantEntries(context, tenantId),
      registry: (name) => context.oauthRegistry(name),
      isGenuine: (subject) => isGenuineSubject(context.env.CREDENTIAL_KEY, subject),
      now,
    }),
    isMember: () => Promise.reject(new Error("the tenant's object refreshes its grants itself")),
    now,
  };
}

function tenantEntries(context: Context, tenantId: TenantId): EntriesPort {
  return {
    get: (key) => context.tenantObject(tenantId).oauthGet(key),
    put: (key, entry) => context.tenantObject(tenantId).oauthPut(key, entry),
    delete: (key) => context.tenantObject(tenantId).oauthDelete(key),
    list: (prefix, options) => context.tenantObject(tenantId).oauthList(prefix, options),
  };
}

function respond({ status, headers, body }: OauthAnswer): Response {
  return new Response(body, { status, headers });
}
