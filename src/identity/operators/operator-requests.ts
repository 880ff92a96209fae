// Who among the operator's people sends a request: by a token, by Cloudflare Access, or by the session of a browser.
import type { Operator } from "../../core/actor.ts";
import { TenantId } from "../../core/tenant/tenant.ts";
import { type HttpContext, Problem, actAs } from "../../http.ts";
import { type LogFields, describeError, log, markRequest } from "../../log.ts";
import { refuseForeignForm } from "../oauth/consent.ts";
import type { RefusedToken } from "../tokens/verified-tokens.ts";
import { operatorOfSession, operatorTokenOf } from "./operator-sessions.ts";
import { operatorsStore } from "./operators-store.ts";
import { ACCESS_HEADER, type OperatorCredentials, identifyOperator } from "./operators.ts";

/**
 * The operator who sends the request, or why there is none. The session of a browser counts when the request has no other
 * credential. Throws `token_expired` when the session has ended, and `origin_refused` for a change that another site's page sends.
 */
export async function findOperator(c: HttpContext): Promise<{ operator: Operator } | RefusedToken> {
  const nowMs = Date.now();
  const credentials = operatorCredentials(c);
  const found = await identifyOperator(credentials, c.env, nowMs);
  const token = operatorTokenOf(c.req.header("cookie"));
  const hasOther =
    !("refused" in found) || found.refused !== "token_missing" || credentials.authorization !== undefined;
  if (hasOther || token === undefined) return found;
  refuseForeignForm(c);
  const operator = await operatorOfSession(c.get("context"), token, nowMs);
  if (operator !== undefined) return { operator };
  // Nothing but the look into the database tells a session that has ended from one that never was.
  c.set("hasWrongCredential", true);
  throw new Problem("token_expired", "Your session has ended. Sign in again.");
}

/**
 * What the request shows of an operator. A browser sends the session of Cloudflare Access with every request, also with one that
 * another site makes: such a request changes nothing in the person's name.
 */
function operatorCredentials(c: HttpContext): OperatorCredentials {
  const authorization = c.req.header("authorization");
  const isReading = c.req.method === "GET" || c.req.method === "HEAD";
  const origin = c.req.header("origin") ?? new URL(c.env.PUBLIC_URL).origin;
  const isForeign =
    origin !== new URL(c.env.PUBLIC_URL).origin ||
    ["cross-site", "same-site"].includes(c.req.header("sec-fetch-site") ?? "");
  return { authorization, assertion: isReading || !isForeign ? c.req.header(ACCESS_HEADER) : undefined };
}

/** Names the operator in every further line, and counts a use of the operator token where it is for emergencies. */
export function actAsOperator(c: HttpContext, operator: Operator): void {
  actAs(c, operator);
  markRequest({ operator: operator.id });
  if (operator.through !== "token" || c.env.OPERATOR_TOKEN_USE === "normal") return;
  log("warn", "operator_token_used", routeOf(c));
  const counted = operatorsStore(c.get("context").control)
    .countTokenUse()
    .catch((error: unknown) => log("error", "operator_token_use_not_counted", { error: describeError(error) }));
  c.executionCtx.waitUntil(counted);
}

/** Whether an operator sends the request. For routes that show the operator more. */
export async function isOperator(c: HttpContext): Promise<boolean> {
  if (c.get("actor").kind === "operator") return true;
  const found = await identifyOperator(operatorCredentials(c), c.env, Date.now());
  if ("refused" in found) return false;
  actAsOperator(c, found.operator);
  return true;
}

/** The route as log lines name it. A path as it was sent could hold anything, also a secret. */
export function routeOf(c: HttpContext): LogFields {
  const tenantId = TenantId.safeParse((c.req.param() as { tenantId?: string }).tenantId).data;
  return { method: c.req.method, route: c.req.routePath, tenantId };
}
