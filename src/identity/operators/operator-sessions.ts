// Browser sessions of the operator's people. They share nothing with customers' sessions: another cookie, other rows, a shorter
// life. Decides whom a session stands for.
//
// Invariants: only the digest of a session's token is stored. The role is the one of the sign-in. A session counts only while the
// way in which it began is still open: the issuer is configured, or the operator token is valid.
import type { Context } from "../../control/context.ts";
import { type Operator, tokenOperator } from "../../core/actor.ts";
import { secretsEqual, sha256Hex } from "../../core/keys/credentials.ts";
import { secretsOf } from "../../core/keys/root-keys.ts";
import { hostCookie } from "../../core/text/text.ts";
import { HOUR_MS, MINUTE_MS } from "../../core/time.ts";
import { newSessionToken, sessionTokenOf } from "../sessions/sessions.ts";
import { type OperatorSession, operatorSessionsStore } from "./operator-sessions-store.ts";
import { type OperatorEnv, operatorSettings } from "./operators.ts";

/** Half a working day: the provider then says anew which role the person has. */
export const OPERATOR_SESSION_MS = 4 * HOUR_MS;
/** The operator token names no person, so its session is for one emergency. */
export const TOKEN_SESSION_MS = HOUR_MS;
/** A browser that was left alone. */
export const OPERATOR_IDLE_MS = 30 * MINUTE_MS;

const COOKIE = "__Host-tollgate-operator";

/** The token of the operator's session in a `Cookie` header; `undefined` without a well-formed one. */
export function operatorTokenOf(cookies: string | undefined): string | undefined {
  return sessionTokenOf(cookies, COOKIE);
}

/** The `Set-Cookie` header that removes the session's cookie. */
export const endedOperatorCookie = hostCookie(COOKIE, "", 0);

/** How a session began: at the issuer, or with a token of the setting OPERATOR_TOKEN. */
export type Beginning = { issuer: string } | { operatorToken: string };

/** Starts a session. Returns the `Set-Cookie` header, which alone has its token. */
export async function startOperatorSession(
  { control }: Pick<Context, "control">,
  operator: Operator,
  beginning: Beginning,
  nowMs: number,
): Promise<string> {
  const token = newSessionToken();
  const lifeMs = "issuer" in beginning ? OPERATOR_SESSION_MS : TOKEN_SESSION_MS;
  const boundTo = "issuer" in beginning ? beginning.issuer : await bindingTo(beginning.operatorToken, token);
  await operatorSessionsStore(control).start({ token, operator, boundTo, nowMs, expiresAtMs: nowMs + lifeMs });
  return hostCookie(COOKIE, token, lifeMs / 1_000);
}

/** Whom the session of a token stands for; `undefined` when it has ended. */
export async function operatorOfSession(
  { env, control }: Pick<Context, "env" | "control">,
  token: string,
  nowMs: number,
): Promise<Operator | undefined> {
  const session = await operatorSessionsStore(control).find(token, nowMs, nowMs - OPERATOR_IDLE_MS);
  return session && (await standsFor(env, session, token));
}

/** The operator of a live session, if the way in which it began is still open. */
export async function standsFor(
  env: OperatorEnv,
  { operatorId: id, name, role, through, boundTo }: OperatorSession,
  token: string,
): Promise<Operator | undefined> {
  if (through === "oidc") {
    const isTrusted = operatorSettings(env).issuer?.issuer === boundTo;
    return isTrusted ? { kind: "operator", id, name, role, through } : undefined;
  }
  if (env.OPERATOR_TOKEN_USE === "off") return undefined;
  for (const secret of secretsOf(env.OPERATOR_TOKEN ?? ""))
    if (await secretsEqual(boundTo, await bindingTo(secret, token))) return tokenOperator;
  return undefined;
}

/** Binds a session to the operator token that began it, so that it ends with the token. Tells nothing without the session's token. */
function bindingTo(operatorToken: string, sessionToken: string): Promise<string> {
  return sha256Hex(`${sessionToken} ${operatorToken}`);
}
