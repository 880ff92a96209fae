// The storage that the OAuth library works on, in the form of Workers KV, over the objects that hold the entries. Made for one
// request. Reads see every earlier write, which Workers KV does not promise.
//
// Invariants: an entry of a tenant is asked of that tenant's object only, and only for a subject with a genuine MAC, so that a
// forged code or token wakes no object. An assertion is used once, also by two requests at once. A text that is no key of the library reads as absent and is never written. A failed
// read throws: an outage never looks like an unknown client or a revoked grant.
import * as z from "zod";
import type { TenantId } from "../../core/tenant/tenant.ts";
import { MINUTE_MS } from "../../core/time.ts";
import type { EntryPage, NewEntry } from "./entries.ts";
import { placeOfKey, placeOfPrefix } from "./keys.ts";

type Awaitable<Value> = Value | Promise<Value>;

/** Entries of one object, by RPC or in the same object. */
export interface EntriesPort {
  get(key: string): Awaitable<string | null>;
  put(key: string, entry: NewEntry): Awaitable<void>;
  delete(key: string): Awaitable<void>;
  list(prefix: string, options: { limit: number; cursor?: string | undefined }): Awaitable<EntryPage>;
}

/** Entries of a registry object. The library lists none of them. */
export interface RegistryPort extends Omit<EntriesPort, "list"> {
  /** Stores the entry, unless there is one. Returns the value of the one that there was, or `null`. */
  claim(key: string, entry: NewEntry): Awaitable<string | null>;
}

export interface OauthObjects {
  /** A tenant's entries. `undefined`: this request may not reach that tenant, so its entries read as absent. */
  tenant: (tenantId: TenantId) => EntriesPort | undefined;
  /** The entries of the registry object with this name. */
  registry: (name: string) => RegistryPort;
  /** Whether Tollgate minted this subject. */
  isGenuine: (subject: string) => Promise<boolean>;
  now: () => number;
}

/** The four methods of Workers KV that the library calls. Its tests run against this, so it may call no other. */
export interface OauthKv {
  get(key: string, options?: { type?: "json" }): Promise<unknown>;
  put(key: string, value: string, options?: PutOptions): Promise<void>;
  delete(key: string): Promise<void>;
  list(options: { prefix?: string; limit?: number; cursor?: string | undefined }): Promise<KvPage>;
}

interface PutOptions {
  /** Seconds from now. */
  expirationTtl?: number;
  /** Seconds since 1970. */
  expiration?: number;
  metadata?: unknown;
}

type KvPage = { keys: { name: string; metadata?: unknown }[] } & (
  | { list_complete: false; cursor: string }
  | { list_complete: true }
);

/** As Workers KV, when the reader names no limit. */
const DEFAULT_PAGE = 1_000;

/**
 * Marks of assertions that were used. The library reads a mark and then writes it, so that two requests at once would both find
 * none. So the read itself writes it, and the first one alone finds none.
 */
const marks = /^(?:enterprise|client-assertion)-jti:/;
/** Longer than any assertion is accepted. The library's own write, which follows, sets the exact time. */
const MARK_KEPT_MS = 15 * MINUTE_MS;

const Json = z.string().transform((text): unknown => JSON.parse(text));

/** The library's storage for one request. Requests share nothing, so that each knows only what it has checked itself. */
export function oauthKv(objects: OauthObjects): OauthKv {
  const genuine = new Map<string, Promise<boolean>>();
  const isGenuine = (subject: string): Promise<boolean> => {
    const known = genuine.get(subject) ?? objects.isGenuine(subject);
    genuine.set(subject, known);
    return known;
  };
  const tenantPort = async (place: { tenantId: TenantId; subject: string }): Promise<EntriesPort | undefined> => {
    const port = objects.tenant(place.tenantId);
    return port !== undefined && (await isGenuine(place.subject)) ? port : undefined;
  };
  const portOf = async (key: string): Promise<Omit<EntriesPort, "list"> | undefined> => {
    const place = placeOfKey(key);
    if (place === undefined) return undefined;
    return place.in === "registry" ? objects.registry(place.name) : tenantPort(place);
  };
  return {
    async get(key, options) {
      const place = placeOfKey(key);
      if (place?.in === "registry" && marks.test(key))
        return objects.registry(place.name).claim(key, { value: "1", expiresAtMs: objects.now() + MARK_KEPT_MS });
      const text = (await (await portOf(key))?.get(key)) ?? null;
      return text !== null && options?.type === "json" ? Json.parse(text) : text;
    },
    async put(key, value, { expirationTtl, expiration, metadata } = {}) {
      const port = await portOf(key);
      if (port === undefined) throw new Error("the OAuth server may not write this entry");
      const expiresAtMs =
        expirationTtl !== undefined
          ? objects.now() + expirationTtl * 1_000
          : expiration === undefined
            ? undefined
            : expiration * 1_000;
      await port.put(key, {
        value,
        ...(expiresAtMs !== undefined && { expiresAtMs }),
        ...(metadata !== undefined && { metadata: JSON.stringify(metadata) }),
      });
    },
    async delete(key) {
      await (await portOf(key))?.delete(key);
    },
    async list({ prefix = "", limit = DEFAULT_PAGE, cursor }) {
      const place = placeOfPrefix(prefix);
      // The library lists over all members only to delete a client or to purge. Expiry does both here.
      if (place === undefined) throw new Error("the OAuth server may not list entries of many objects");
      const port = await tenantPort(place);
      if (port === undefined) return { keys: [], list_complete: true };
      const page = await port.list(prefix, { limit, cursor });
      const keys = page.keys.map(({ name, metadata }) =>
        metadata === undefined ? { name } : { name, metadata: Json.parse(metadata) },
      );
      return page.cursor === undefined
        ? { keys, list_complete: true }
        : { keys, list_complete: false, cursor: page.cursor };
    },
  };
}
