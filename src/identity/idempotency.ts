// The header `Idempotency-Key` of requests that create something, by the IETF draft (draft-ietf-httpapi-idempotency-key-header).
// The first request with a key runs. A later one with the same key and body gets the first one's answer; with another body
// it is refused (422), and while the first is running, too (409). A request that failed releases its key.
//
// Invariants: a request whose outcome was lost runs again with the seed and the instant of the first run, so that it finds
// what that run made. Answers may hold a new API key, so they are stored encrypted, for a day, and only the one who sent the
// first request gets them: another one may lack the right to it.
import { newTenantId } from "../adapters/ids.ts";
import { decryptSecret, encryptSecret } from "../control/encrypted-logins-store.ts";
import { idempotentRequestsStore } from "../control/idempotent-requests-store.ts";
import type { Actor } from "../core/actor.ts";
import { sha256Hex } from "../core/keys/credentials.ts";
import { BadRequest, type HttpContext, type Keyed, Problem, isJson, noStore } from "../http.ts";
import { describeError, log } from "../log.ts";

/** Everybody can use a public route, so a guessable key must not be one that another buyer has chosen. */
const LEAST_PUBLIC_CHARS = 8;
const MOST_CHARS = 255;

/** The key of a header: a structured string (`"k"`) or a bare text. `undefined`: it is neither, or too long. */
export function idempotencyKeyOf(header: string, { isPublic }: { isPublic: boolean }): string | undefined {
  const text = header.trim();
  const quoted = /^"(?<key>[\x20-\x21\x23-\x5b\x5d-\x7e]+)"$/.exec(text)?.groups?.["key"];
  const key = quoted ?? (/^[\x21\x23-\x7e]+$/.test(text) ? text : undefined);
  if (key === undefined || key.length > MOST_CHARS) return undefined;
  return isPublic && key.length < LEAST_PUBLIC_CHARS ? undefined : key;
}

/** A body in one form: the order of its fields does not count. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_, each: unknown) =>
    typeof each === "object" && each !== null && !Array.isArray(each)
      ? Object.fromEntries(Object.entries(each).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : each,
  );
}

/** Whose key it is, in the name under which the answer is kept. The public routes know no one. */
export function holderOf(actor: Actor): string {
  if (actor.kind === "person") return ` person ${JSON.stringify([actor.issuer, actor.subject])}`;
  if (actor.kind === "anonymous") return "";
  return "id" in actor ? ` ${actor.kind} ${actor.id}` : ` ${actor.kind}`;
}

type Handler<Input> = (c: HttpContext, input: Input) => Response | Promise<Response>;

/** The handler with support for `Idempotency-Key`. It reads `c.get("creation")`. */
export function once<Input extends { body?: unknown; query?: unknown }>(
  handler: Handler<Input>,
  { isPublic = false }: { isPublic?: boolean } = {},
): Handler<Input> & Keyed {
  const keyed: Handler<Input> = async (c, input) => {
    const header = c.req.header("idempotency-key");
    if (header === undefined) return handler(c, input);
    const key = idempotencyKeyOf(header, { isPublic });
    if (key === undefined)
      throw new BadRequest(
        `Idempotency-Key: must be ${isPublic ? LEAST_PUBLIC_CHARS : 1} to ${MOST_CHARS} printable ASCII characters`,
      );
    const { control, env } = c.get("context");
    const scope = `${c.req.method} ${c.req.path.replace(/\/$/, "")}${holderOf(c.get("actor"))}`;
    const requests = idempotentRequestsStore(control);
    const fingerprint = await sha256Hex(canonicalJson(input.body ?? (await unreadInput(c, input.query))));
    const claim = await requests.claim({ scope, key, fingerprint, seed: newTenantId(), token: crypto.randomUUID() });
    if (claim.fingerprint !== fingerprint) throw new Problem("idempotency_key_mismatch");
    const purpose = `answer.${scope}.${key}`;
    if (claim.answer !== null) return replay(c, env, purpose, claim.answer);
    if (!claim.isOurs)
      throw new Problem("conflict", "A request with this Idempotency-Key is running. Send it again in a few seconds.");
    c.set("creation", { seed: claim.seed, atMs: claim.atMs, isRepeat: claim.isRepeat });
    let response: Response;
    try {
      response = await handler(c, input);
    } catch (error) {
      await requests.release(claim).catch(() => undefined); // otherwise its lease ends
      throw error;
    }
    const answer = JSON.stringify({ status: response.status, body: await response.clone().text() });
    await encryptSecret(env, purpose, answer)
      .then((encrypted) => requests.finish(claim, encrypted))
      // A repeated request runs again, and finds what this one has made.
      .catch((error: unknown) => log("warn", "idempotent_answer_not_kept", { error: describeError(error) }));
    return response;
  };
  return Object.assign(keyed, { takesIdempotencyKey: true });
}

/** What tells two requests apart whose bodies their handler reads. A file is known by its length: it may have gigabytes. */
async function unreadInput(c: HttpContext, query: unknown): Promise<unknown> {
  if (!isJson(c)) return { query: query ?? null, sizeBytes: c.req.header("content-length") ?? null };
  // As bytes, which Hono keeps for the handler. As text, the handler would find no broken UTF-8 any more.
  const text = new TextDecoder().decode(await c.req.arrayBuffer());
  return { query: query ?? null, body: text };
}

async function replay(c: HttpContext, env: Env, purpose: string, encrypted: string): Promise<Response> {
  const text = await decryptSecret(env, purpose, encrypted);
  const { status, body } = JSON.parse(text) as { status: number; body: string };
  return c.body(body, status as 201, {
    ...noStore,
    "content-type": "application/json",
    "idempotent-replayed": "true",
  });
}
