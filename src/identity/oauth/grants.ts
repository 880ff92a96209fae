// The grants of one tenant's members, in the tenant's object: it answers the token endpoint for them, checks the access token of
// each call, and revokes.
//
// Invariants: a code is redeemed once. Requests about one grant run one after the other, so a revocation is never undone by a
// refresh that began before it. A revoked, expired or foreign token is refused on the next request. The same refresh sent
// twice within `REPLAY_MS` gets one answer, so that neither sender is left with a dead token. A refresh token that comes back
// after its successor was used ends the grant: two parties hold it (RFC 9700, 4.14.2). Tokens are stored as digests.
import * as z from "zod";
import { BoundedMap } from "../../core/concurrency/bounded-map.ts";
import { sha256Hex } from "../../core/keys/credentials.ts";
import type { TenantId } from "../../core/tenant/tenant.ts";
import { DAY_MS, MINUTE_MS } from "../../core/time.ts";
import { log } from "../../log.ts";
import { type NewEntry, type EntryPage, MAX_PAGE, OauthEntries, type SqlPort } from "./entries.ts";
import { type Site, isResourceOf } from "../tokens/tenant-hosts.ts";
import { partsOfToken, placeOfKey, placeOfPrefix } from "./keys.ts";
import { type OauthKv, type RegistryPort, oauthKv } from "./kv.ts";
import { type OauthAnswer, type TokenRequest, answerTokenRequest, GrantMetadata, isGenuineSubject } from "./server.ts";

/** Processes of one client that share a refresh token use it within a second of each other. Retries come within this time. */
const REPLAY_MS = 30_000;
/** How exact the last use of a grant is. More would cost each call a write. */
const USE_NOTED_EVERY_MS = MINUTE_MS;
/** Grants whose last noted use is in memory. A forgotten one is noted again. */
const MAX_USES = 5_000;
/** Parsed access tokens in memory, of some 300 bytes. A forgotten one is read again. */
const MAX_PARSED = 5_000;
/** Refreshes remembered at once, of some 500 bytes. A forgotten one is answered by the library's own grace. */
const MAX_REPLAYS = 1_000;

/** As long as a refresh token lives. A client refreshes some 24 times a day, and a digest has 200 bytes. */
const SPENT_KEPT_MS = 30 * DAY_MS;

/** A token as the Worker knows it: its parts, and the digest in place of the secret. */
export interface PresentedToken {
  subject: string;
  grantId: string;
  /** SHA-256 of the whole token, in hex. */
  tokenHash: string;
}

export interface ValidToken {
  clientId: string;
  /** Of tools and of the account. */
  scopes: readonly string[];
  /** When the token was made, to the second. */
  createdAtMs: number;
  expiresAtMs: number;
}

/** A grant as an admin sees it. */
export interface GrantSummary {
  id: string;
  memberId: string;
  clientId: string;
  /** As the client calls itself. `null`: it gave no name. */
  clientName: string | null;
  scopes: readonly string[];
  createdAtMs: number;
  /** To the minute. `null`: not used yet. */
  lastUsedAtMs: number | null;
  /** `null` until the client has redeemed its code. */
  expiresAtMs: number | null;
}

/** Which grants are revoked. */
export type RevokedGrants = { grantId: string } | { memberIds: readonly string[] };

export interface GrantPage {
  grants: GrantSummary[];
  next: string | null;
}

export interface GrantsOptions {
  tenantId: TenantId;
  sql: SqlPort;
  site: Site;
  credentialKey: string;
  registry: (name: string) => RegistryPort;
  /** Whether the tenant still has this member, and sign-ins of this instant count. Throws when it is not known. */
  isMember: (memberId: string, signedInAtMs: number) => boolean | Promise<boolean>;
  now: () => number;
}

const TokenRecord = z.object({
  audience: z.string(),
  createdAt: z.number(),
  expiresAt: z.number(),
  scope: z.array(z.string()),
  grant: z.object({ clientId: z.string() }),
});
const GrantRecord = z.object({
  id: z.string(),
  userId: z.string(),
  clientId: z.string(),
  scope: z.array(z.string()),
  createdAt: z.number(),
  expiresAt: z.number().optional(),
  refreshTokenId: z.string().optional(),
  /** The token before: it still works until its successor is used, because the answer with the successor may be lost. */
  previousRefreshTokenId: z.string().optional(),
  metadata: GrantMetadata,
});
const RefreshAnswer = z.object({ access_token: z.string(), refresh_token: z.string() });

interface Replay {
  answer: Promise<OauthAnswer>;
  untilMs: number;
}

export class TenantGrants {
  readonly #options: GrantsOptions;
  readonly #entries: OauthEntries;
  readonly #locks = new Locks();
  readonly #replays = new BoundedMap<string, Replay>(MAX_REPLAYS);
  /** When each grant's last use was noted. */
  readonly #uses = new BoundedMap<string, number>(MAX_USES);
  /** What `find` has read, by the key of the token: a call costs no read and no parsing. Every write ends all of it. */
  #parsed = new BoundedMap<string, z.infer<typeof TokenRecord>>(MAX_PARSED);
  /** The writes of the entries when `#parsed` began. */
  #parsedAt = 0;

  constructor(options: GrantsOptions) {
    this.#options = options;
    this.#entries = new OauthEntries(options.sql, () => options.now());
  }

  /** The entries of this tenant for the Worker's side of a sign-in. Throws for a key of another tenant. */
  async get(key: string): Promise<string | null> {
    this.#requireOwn(placeOfKey(key));
    return this.#entries.get(key);
  }

  async put(key: string, entry: NewEntry): Promise<void> {
    this.#requireOwn(placeOfKey(key));
    this.#entries.put(key, entry);
  }

  /** Deletes an entry. With a grant go its tokens, and no request about it that runs now outlives it. */
  async delete(key: string): Promise<void> {
    const place = placeOfKey(key);
    this.#requireOwn(place);
    if (place?.in !== "tenant" || !key.startsWith("grant:")) return this.#entries.delete(key);
    await this.#locks.run(key, () => this.#end(place));
  }

  /** Ends a grant. The caller has its lock. */
  #end({ subject, grantId }: Pick<PresentedToken, "subject" | "grantId">): void {
    for (const kind of ["token", "spent"]) this.#entries.deleteAll(`${kind}:${subject}:${grantId}:`);
    this.#entries.delete(`grant:${subject}:${grantId}`);
  }

  async list(prefix: string, options: { limit: number; cursor?: string | undefined }): Promise<EntryPage> {
    this.#requireOwn(placeOfPrefix(prefix));
    return this.#entries.list(prefix, options);
  }

  /** Answers the token or the revocation endpoint. A fault of ours is a 503, never a 4xx. */
  async answerToken(request: TokenRequest): Promise<OauthAnswer> {
    const form = new URLSearchParams(request.body);
    if (form.get("grant_type") !== "refresh_token") return this.#answer(request);
    form.sort();
    const digest = await sha256Hex(JSON.stringify([request.authorization, form.toString()]));
    const known = this.#replays.get(digest);
    if (known !== undefined && this.#options.now() < known.untilMs) {
      const answer = await known.answer;
      if (await this.#isCurrent(answer)) return answer;
    }
    const replay: Replay = { answer: this.#answer(request), untilMs: Infinity };
    this.#replays.set(digest, replay);
    const answer = await replay.answer;
    replay.untilMs = this.#options.now() + REPLAY_MS;
    if (answer.status !== 200 && this.#replays.get(digest) === replay) this.#replays.delete(digest);
    return answer;
  }

  /** The token's client and scopes, or `undefined` when it is expired, revoked, unknown or for another resource. */
  find({ subject, grantId, tokenHash }: PresentedToken): ValidToken | undefined {
    const record = this.#tokenRecord(`token:${subject}:${grantId}:${tokenHash}`);
    if (record === undefined) return undefined;
    const { audience, createdAt, expiresAt, scope, grant } = record;
    const { site, tenantId } = this.#options;
    // The library counts whole seconds, and a token is valid in the last one.
    if (!isResourceOf(site, audience, tenantId) || expiresAt < Math.floor(this.#options.now() / 1_000))
      return undefined;
    const { clientId } = grant;
    return { clientId, scopes: scope, createdAtMs: createdAt * 1_000, expiresAtMs: expiresAt * 1_000 };
  }

  #tokenRecord(key: string): z.infer<typeof TokenRecord> | undefined {
    if (this.#parsedAt !== this.#entries.changes) {
      this.#parsedAt = this.#entries.changes;
      this.#parsed = new BoundedMap(MAX_PARSED);
    }
    const known = this.#parsed.get(key);
    // In its last second the entry itself ends, too.
    if (known !== undefined && this.#options.now() < known.expiresAt * 1_000) return known;
    const text = this.#entries.get(key);
    if (text === null) return undefined;
    const record = TokenRecord.parse(JSON.parse(text));
    this.#parsed.set(key, record);
    return record;
  }

  /** Notes that a token of the grant was used. */
  noteUse({ subject, grantId }: Pick<PresentedToken, "subject" | "grantId">): void {
    const key = `grant:${subject}:${grantId}`;
    const nowMs = this.#options.now();
    if (nowMs - (this.#uses.get(key) ?? 0) < USE_NOTED_EVERY_MS) return;
    this.#uses.set(key, nowMs);
    this.#entries.touch(key, nowMs);
  }

  /** A page of the tenant's grants. `after` is the `next` of the page before; `undefined` when there is no such grant now. */
  async grants({ limit, after }: { limit: number; after?: string | undefined }): Promise<GrantPage | undefined> {
    const cursor = after === undefined ? undefined : this.#keyOf(after);
    if (after !== undefined && cursor === undefined) return undefined;
    const page = this.#entries.list("grant:", { limit, cursor });
    const grants: GrantSummary[] = [];
    for (const { name } of page.keys) {
      const text = this.#entries.get(name);
      if (text === null) continue;
      const record = GrantRecord.safeParse(JSON.parse(text)).data;
      if (record === undefined) {
        // As a list of the control tables, this one is not lost for one row.
        log("error", "item_failed", { part: "grants", item: name.split(":").at(-1), tenantId: this.#options.tenantId });
        continue;
      }
      grants.push({
        id: record.id,
        memberId: memberOfSubject(record.userId),
        clientId: record.clientId,
        scopes: record.scope,
        clientName: record.metadata.clientName ?? null,
        createdAtMs: record.createdAt * 1_000,
        lastUsedAtMs: this.#entries.usedAt(name),
        expiresAtMs: record.expiresAt === undefined ? null : record.expiresAt * 1_000,
      });
    }
    return { grants, next: page.cursor === undefined ? null : (page.cursor.split(":").at(-1) ?? null) };
  }

  /** The key of the grant with this id. Ids alone do not name a key, because it begins with the member. */
  #keyOf(grantId: string): string | undefined {
    let cursor: string | undefined;
    do {
      const page = this.#entries.list("grant:", { limit: MAX_PAGE, cursor });
      const found = page.keys.find(({ name }) => name.endsWith(`:${grantId}`));
      if (found !== undefined) return found.name;
      ({ cursor } = page);
    } while (cursor !== undefined);
    return undefined;
  }

  /** Revokes the grants with this id, or all of these members. Returns how many there were. In force on the next request. */
  async revoke(which: RevokedGrants): Promise<number> {
    let revoked = 0;
    let cursor: string | undefined;
    do {
      const page = this.#entries.list("grant:", { limit: MAX_PAGE, cursor });
      for (const { name } of page.keys) {
        const place = placeOfKey(name);
        if (place?.in !== "tenant") continue;
        const isMeant =
          "grantId" in which
            ? place.grantId === which.grantId
            : which.memberIds.includes(memberOfSubject(place.subject));
        if (!isMeant) continue;
        await this.delete(name);
        revoked += 1;
      }
      ({ cursor } = page);
    } while (cursor !== undefined);
    return revoked;
  }

  /** The object was emptied. */
  forget(): void {
    this.#entries.forget();
  }

  /** The tokens of this answer are still the grant's newest. */
  async #isCurrent(answer: OauthAnswer): Promise<boolean> {
    if (answer.status !== 200) return false;
    const { access_token: access, refresh_token: refresh } = RefreshAnswer.parse(JSON.parse(answer.body));
    const parts = partsOfToken(refresh);
    if (parts === undefined) return false;
    const [accessHash, refreshHash] = await Promise.all([sha256Hex(access), sha256Hex(refresh)]);
    const text = this.#entries.get(`grant:${parts.subject}:${parts.grantId}`);
    if (text === null || GrantRecord.parse(JSON.parse(text)).refreshTokenId !== refreshHash) return false;
    return this.find({ ...parts, tokenHash: accessHash }) !== undefined;
  }

  async #answer(request: TokenRequest): Promise<OauthAnswer> {
    const { tenantId, site, credentialKey, registry, isMember, now } = this.#options;
    const kv = oauthKv({
      tenant: (id) => (id === tenantId ? this.#entries : undefined),
      registry,
      isGenuine: (subject) => isGenuineSubject(credentialKey, subject),
      now,
    });
    const { locked, release } = this.#locking(kv);
    const noteRefresh = await this.#refreshOf(request, locked);
    try {
      const answer = await answerTokenRequest(site, request, { OAUTH_KV: locked, isMember, now });
      noteRefresh?.(answer);
      return answer;
    } finally {
      release();
    }
  }

  /**
   * Takes the lock of the grant that a refresh is about. Returns what to do with its answer: a token whose successor has been
   * used is remembered as spent, and one that was spent before ends the grant.
   */
  async #refreshOf(request: TokenRequest, locked: OauthKv): Promise<((answer: OauthAnswer) => void) | undefined> {
    const form = new URLSearchParams(request.body);
    const token = form.get("refresh_token") ?? "";
    const parts = form.get("grant_type") === "refresh_token" ? partsOfToken(token) : undefined;
    if (parts === undefined || parts.tenantId !== this.#options.tenantId) return undefined;
    const { subject, grantId } = parts;
    const spentKey = (digest: string): string => `spent:${subject}:${grantId}:${digest}`;
    const digest = await sha256Hex(token);
    const key = `grant:${subject}:${grantId}`;
    await locked.get(key);
    const text = this.#entries.get(key);
    if (text === null) return undefined;
    const { refreshTokenId: current, previousRefreshTokenId: previous } = GrantRecord.parse(JSON.parse(text));
    return ({ status }) => {
      if (status === 200 && digest === current && previous !== undefined)
        this.#entries.put(spentKey(previous), { value: "1", expiresAtMs: this.#options.now() + SPENT_KEPT_MS });
      if (status !== 400 || this.#entries.get(spentKey(digest)) === null) return;
      log("warn", "oauth_refresh_replayed", { tenantId: parts.tenantId, memberId: memberOfSubject(subject), grantId });
      this.#end(parts);
    };
  }

  /** The storage that takes a grant's lock when a request first reads the grant, and holds it until `release`. */
  #locking(kv: OauthKv): { locked: OauthKv; release: () => void } {
    const held = new Map<string, Promise<() => void>>();
    const locked: OauthKv = {
      ...kv,
      get: async (key, options) => {
        if (key.startsWith("grant:") && placeOfKey(key) !== undefined) {
          if (!held.has(key)) held.set(key, this.#locks.acquire(key));
          await held.get(key);
        }
        return kv.get(key, options);
      },
    };
    return {
      locked,
      release: () => {
        for (const lock of held.values()) void lock.then((free) => free());
      },
    };
  }

  /** Throws for a place outside of this tenant's entries. */
  #requireOwn(place: { in: string; tenantId?: TenantId } | undefined): void {
    if (place?.in !== "tenant" || place.tenantId !== this.#options.tenantId)
      throw new Error("this OAuth entry is not the tenant's");
  }
}

/** The member of a subject: the second part of `tgo_<tenant>.<member>.<root key>.<MAC>`. */
export function memberOfSubject(subject: string): string {
  return subject.split(".")[1] ?? "";
}

/** Locks by name, granted in the order of the requests. */
class Locks {
  readonly #last = new Map<string, Promise<void>>();

  /** Waits for the lock. Returns what frees it. */
  async acquire(name: string): Promise<() => void> {
    const before = this.#last.get(name);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#last.set(name, promise);
    await before;
    return () => {
      if (this.#last.get(name) === promise) this.#last.delete(name);
      resolve();
    };
  }

  async run(name: string, work: () => void): Promise<void> {
    const free = await this.acquire(name);
    try {
      work();
    } finally {
      free();
    }
  }
}
