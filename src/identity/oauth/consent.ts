// One submission of a consent page. Pure but for the ports.
//
// Invariants: only Tollgate's own page submits the form, in the session that saw it. A handle is used once; another submission of
// the same form gets the first one's answer for a minute, because people press buttons twice and browsers repeat requests.
import { sha256Hex, secretsEqual } from "../../core/keys/credentials.ts";
import { AppError } from "../../core/errors.ts";
import { IV_BYTES, type KeyRing, decrypt, encrypt } from "../../core/keys/encryption.ts";
import { MINUTE_MS } from "../../core/time.ts";
import type { NewEntry } from "./entries.ts";
import { placeOfKey } from "./keys.ts";
import type { HttpContext } from "../../http.ts";

/** For how long a second submission gets the first one's answer. The code in it lives longer, and works once. */
const ANSWER_KEPT_MS = MINUTE_MS;
/** The first submission takes some ten milliseconds. */
const POLL_EVERY_MS = 200;
const POLLS = 25;

/** The entries of the registry objects, as a submission uses them. */
export interface ClaimPort {
  /** Stores the entry, unless there is one. Returns the value of the one that there was, or `null`. */
  claim(key: string, entry: NewEntry): Promise<string | null>;
  get(key: string): Promise<string | null>;
  put(key: string, entry: NewEntry): Promise<void>;
  delete(key: string): Promise<void>;
}

export interface SubmissionPorts {
  registry: (name: string) => ClaimPort;
  now: () => number;
  wait: (ms: number) => Promise<void>;
}

/**
 * Whether a form comes from a page of `publicUrl`. Browsers name the origin of each form; where a privacy setting hides it, they
 * still say that the site is the same.
 */
export function isOwnForm(
  publicUrl: string,
  headers: { origin: string | undefined; site: string | undefined },
): boolean {
  const { origin, site } = headers;
  if (origin !== undefined && origin !== "null") return origin === new URL(publicUrl).origin;
  return site === "same-origin";
}

/** Whether a page of Tollgate sends this request. */
export function isOwn(c: HttpContext): boolean {
  return isOwnForm(c.env.PUBLIC_URL, { origin: c.req.header("origin"), site: c.req.header("sec-fetch-site") });
}

/** Throws `origin_refused` for a change that a page of another site sends with a cookie. */
export function refuseForeignForm(c: HttpContext): void {
  const changes = c.req.method !== "GET" && c.req.method !== "HEAD";
  if (changes && !isOwn(c)) throw new AppError("origin_refused");
}

/** Binds a form to the session that saw it: another person who signs in meanwhile never consents to what they did not see. */
export function bindingOf(handle: string, sessionToken: string): Promise<string> {
  return sha256Hex(`${handle} ${sessionToken}`);
}

export async function isBound(binding: string, handle: string, sessionToken: string): Promise<boolean> {
  return secretsEqual(binding, await bindingOf(handle, sessionToken));
}

/** The form of a handle. Another text was never in a form of ours. */
const handleForm = /^[A-Za-z0-9_-]{43}$/;

/**
 * Does `work` for the first submission of a handle, and returns its answer to all of them. `undefined`: the first one has not
 * answered, or failed.
 */
export async function submitOnce(
  { registry, now, wait }: SubmissionPorts,
  handle: string,
  work: () => Promise<string>,
): Promise<string | undefined> {
  const key = `consent:${await sha256Hex(handle)}`;
  const place = placeOfKey(key);
  if (!handleForm.test(handle) || place?.in !== "registry") return undefined;
  const entries = registry(place.name);
  const entry = (value: string): NewEntry => ({ value, expiresAtMs: now() + ANSWER_KEPT_MS });
  // Who reads the registry's entries alone has no handle, and cannot read the code in the answer.
  const keys: KeyRing = [{ id: "handle", secret: handle }];
  let known = await entries.claim(key, entry(""));
  if (known === null) {
    let answer: string;
    try {
      answer = await work();
    } catch (error) {
      await entries.delete(key);
      throw error;
    }
    await entries.put(key, entry(await encrypt(keys, key, answer, crypto.getRandomValues(new Uint8Array(IV_BYTES)))));
    return answer;
  }
  for (let poll = 0; known === "" && poll < POLLS; poll += 1) {
    await wait(POLL_EVERY_MS);
    known = await entries.get(key);
  }
  return known === null || known === "" ? undefined : decrypt(keys, key, known);
}
