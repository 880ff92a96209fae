// Root keys: the secrets of the setting CREDENTIAL_KEY, newest first. The newest makes credentials, and a credential names the
// one that made it, so that a check computes one MAC however many there are. The setting has two forms:
// - JSON, `[{ "id", "secret", "verifies" }]`. `verifies` is "all", or "stored" for a root key that only old credentials need.
// - Secrets separated by commas. Each id follows from its secret. A key of the JSON form also answers to this id, so that a
//   change of the form ends no credential.
import * as z from "zod";
import { BoundedMap } from "../concurrency/bounded-map.ts";

/** No dot: the id is a field of credentials, whose fields are separated by dots. */
export const rootKeyIdPattern = /^[a-z0-9][a-z0-9_-]{0,39}$/;

/**
 * all: every credential that the root key made. stored: only those that Tollgate compares with a stored digest besides. A
 * root key that has leaked makes no credential that works then, and its customers' API keys still work.
 */
const verifies = ["all", "stored"] as const;

export interface RootKey {
  id: string;
  secret: string;
  verifies: (typeof verifies)[number];
}

export interface RootKeys {
  /** Newest first. */
  keys: readonly RootKey[];
  /** By the id, and by the id that the plain form gives the same secret. */
  byId: ReadonlyMap<string, RootKey>;
}

const Entries = z
  .array(
    z.strictObject({
      id: z.string().regex(rootKeyIdPattern),
      // 32 characters carry SHA-256's own strength.
      secret: z.string().min(32),
      verifies: z.enum(verifies).default("all"),
    }),
  )
  .min(1)
  .refine((keys) => new Set(keys.map(({ id }) => id)).size === keys.length, "two keys have the same id")
  .refine(([newest]) => newest?.verifies === "all", "the first key makes credentials, so it verifies all");

/** Settings whose keys are remembered. A deployment has one; tests have a few. */
const MAX_SETTINGS = 8;
const parsed = new BoundedMap<string, Promise<RootKeys>>(MAX_SETTINGS);

/** The root keys of the setting. Throws for JSON that is no list of root keys. The message contains no secret. */
export function rootKeysOf(setting: string): Promise<RootKeys> {
  let keys = parsed.get(setting);
  if (keys === undefined) parsed.set(setting, (keys = readRootKeys(setting)));
  return keys;
}

/** The root key that makes credentials. */
export async function newestRootKey(setting: string): Promise<RootKey> {
  const [newest] = (await rootKeysOf(setting)).keys;
  if (newest === undefined) throw new Error("CREDENTIAL_KEY is empty");
  return newest;
}

/** How many API keys that work otherwise need a root key, and of how many tenants they are. */
export interface RootKeyUse {
  rootKey: string;
  keys: number;
  tenants: number;
}

export interface UsedRootKey {
  id: string;
  makesCredentials: boolean;
  /** nothing: the setting lacks the root key, so that its API keys are refused. */
  verifies: RootKey["verifies"] | "nothing";
  apiKeys: number;
  tenants: number;
}

/** The root keys of the setting, and those that are missing in it, with the API keys that need them. */
export function usedRootKeys({ keys, byId }: RootKeys, uses: readonly RootKeyUse[]): UsedRootKey[] {
  const idOf = ({ rootKey }: RootKeyUse): string => byId.get(rootKey)?.id ?? rootKey;
  const ids = [...new Set([...keys.map(({ id }) => id), ...uses.map(idOf)])];
  return ids.map((id) => {
    const own = uses.filter((use) => idOf(use) === id);
    return {
      id,
      makesCredentials: keys[0]?.id === id,
      verifies: byId.get(id)?.verifies ?? "nothing",
      apiKeys: own.reduce((sum, use) => sum + use.keys, 0),
      // A tenant with keys under both spellings of an id counts twice.
      tenants: own.reduce((sum, use) => sum + use.tenants, 0),
    };
  });
}

/** API keys whose root key is missing in the setting. Their clients are refused. */
export function keysWithoutRoot(used: readonly UsedRootKey[]): number {
  return used.reduce((sum, { verifies: of, apiKeys }) => sum + (of === "nothing" ? apiKeys : 0), 0);
}

/** The secrets of a setting that is rotated: newest first, separated by commas. */
export function secretsOf(setting: string): string[] {
  return setting
    .split(",")
    .map((secret) => secret.trim())
    .filter((secret) => secret !== "");
}

async function readRootKeys(setting: string): Promise<RootKeys> {
  const isJson = setting.trimStart().startsWith("[");
  const keys = isJson ? readJson(setting) : await Promise.all(secretsOf(setting).map(plainKey));
  const byId = new Map<string, RootKey>();
  for (const key of keys) byId.set(await idOfSecret(key.secret), key);
  for (const key of keys) byId.set(key.id, key); // afterwards, because a chosen id counts before one that follows from a secret
  return { keys, byId };
}

function readJson(setting: string): RootKey[] {
  let value: unknown;
  try {
    value = JSON.parse(setting);
  } catch {
    throw new Error("CREDENTIAL_KEY begins like JSON and is none"); // the parser's own message quotes its input
  }
  const entries = Entries.safeParse(value);
  if (entries.success) return entries.data;
  const places = entries.error.issues.map((issue) => `[${issue.path.join(".")}]: ${issue.code}`).join(", ");
  throw new Error(`CREDENTIAL_KEY does not hold [{ id, secret }], newest first: ${places}`);
}

async function plainKey(secret: string): Promise<RootKey> {
  return { id: await idOfSecret(secret), secret, verifies: "all" };
}

/**
 * The id of a secret that has no other: a digest, cut so short that it says nothing about the secret. Each credential's MAC
 * lets its holder test guesses of the secret anyway.
 */
async function idOfSecret(secret: string): Promise<string> {
  const text = new TextEncoder().encode(`tollgate root key id\n${secret}`);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", text));
  return `r${Array.from(digest.slice(0, 4), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
