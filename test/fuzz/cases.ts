// Makes fuzzed requests: for a route of the published description, a credential, a path, a query, headers and a body, each
// right, wrong or hostile. It also decides, from the description alone, whether such a request may succeed.
// Invariant: the attacker holds the credentials of one tenant, so that a success anywhere else is a fault.
import { type Known, formBody, pageQuery } from "./forms.ts";
import { hostileValue, pick, valueOf } from "./values.ts";

/** Random numbers in [0, 1). */
export type Random = () => number;

export interface Operation {
  method: string;
  /** With `{tenantId}` and other parts in braces. */
  template: string;
  /** The names of the schemes that open it. `everyone`: it is public. */
  schemes: readonly string[];
  body: object | undefined;
  query: readonly { name: string; schema: object }[];
}

export interface Credential {
  name: string;
  token: string;
  /** The schemes of the description that the credential fulfils. */
  schemes: readonly string[];
  /** The only tenant that it may open; `undefined`: any, as for the operator. */
  tenantId: string | undefined;
  /** The session of a browser. It goes in a cookie, and changes something only for a page of Tollgate's own. */
  isCookie?: boolean;
}

export interface World {
  operations: readonly Operation[];
  credentials: readonly Credential[];
  /** Credentials that never open anything: expired, of another audience, forged. */
  useless: readonly { name: string; token: string }[];
  attacker: string;
  victim: string;
  /** The victim's secret, which no answer to the attacker contains. */
  marker: string;
  /** Tenants that the operator's requests may change. */
  disposable: readonly string[];
  ids: readonly string[];
  tools: readonly { name: string; inputSchema: object }[];
  /** Where an answer may send a browser. The first one is Tollgate's own. */
  origins: readonly string[];
  known: Known;
}

export interface Case {
  method: string;
  path: string;
  headers: [string, string][];
  body: Buffer | undefined;
  /** What it is made of, for the report. */
  what: string;
  maySucceed: boolean;
  /** The operator may read the marker. */
  mayReadMarker: boolean;
}

/** Origins of other sites' pages, and of no page. */
const strangers = ["https://evil.example", "null", "", undefined];

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/** The next case. */
export function nextCase(world: World, random: Random): Case {
  const operation = pick(random, world.operations);
  const { credential, token, name } = chooseToken(world, operation, random);
  const method = random() < 0.93 ? operation.method : pick(random, METHODS);
  const path = pathOf(world, operation, credential, random);
  const isCookie = credential?.isCookie === true;
  const inQuery = token !== undefined && !isCookie && random() < 0.05;
  const query = queryOf(world, operation, random, inQuery ? token : undefined);
  let headers = headersOf(world, random);
  const origin = isCookie ? pick(random, [world.origins[0], world.origins[0], ...strangers]) : undefined;
  if (token !== undefined && isCookie) {
    headers = headers.filter(([each]) => each !== "cookie" && each !== "origin");
    // A header cannot have line breaks.
    headers.push(["cookie", `__Host-tollgate-session=${token.replaceAll(/[^\x21-\x7e]/g, "")}`]);
    if (origin !== undefined) headers.push(["origin", origin]);
  } else if (token !== undefined && !inQuery)
    headers.push(["authorization", `${random() < 0.98 ? "Bearer" : "bearer"} ${token}`]);
  const body = bodyOf(world, operation, method, random, headers);
  const isRead = method === "GET" || method === "HEAD";
  const isGenuine =
    credential !== undefined && credential.token === token && (!isCookie || isRead || origin === world.origins[0]);
  return {
    method,
    path: path + query,
    headers,
    body,
    what: `${operation.method} ${operation.template} with ${name}`,
    maySucceed: maySucceed(world, method, path, query, isGenuine ? credential : undefined),
    mayReadMarker: isGenuine && (credential.tenantId === undefined || credential.tenantId === world.victim),
  };
}

/** Pages of any origin may send requests here, and their browsers ask first. */
const preflighted: ReadonlySet<string> = new Set(["/mcp", "/oauth/register", "/oauth/token", "/oauth/revoke"]);

/** Pages for everyone to which a path with `..` leads. The description of the API leaves them out. */
const publicPages: ReadonlySet<string> = new Set(["/", "/docs", "/docs/"]);

/** Whether the description allows a success of this method and path for the holder of the credential. */
export function maySucceed(
  { operations }: Pick<World, "operations">,
  method: string,
  path: string,
  query: string,
  credential: Credential | undefined,
): boolean {
  let pathname: string;
  try {
    pathname = new URL(`http://host${path}`).pathname;
  } catch {
    return false;
  }
  if (method === "OPTIONS") return pathname.startsWith("/.well-known/") || preflighted.has(pathname.replace(/\/$/, ""));
  const wanted = method === "HEAD" ? "GET" : method;
  if (wanted === "GET" && publicPages.has(pathname)) return true;
  return operations.some(({ method: each, template, schemes }) => {
    // The MCP endpoint answers each method itself.
    if (each !== wanted && template !== "/mcp") return false;
    const parts = partsOf(template, pathname);
    if (parts === undefined) return false;
    const named = parts["tenantId"] ?? (template === "/health" ? tenantOfQuery(query) : undefined);
    if (schemes.includes("everyone") && named === undefined) return true;
    if (credential === undefined || !schemes.some((scheme) => credential.schemes.includes(scheme))) return false;
    return credential.tenantId === undefined || named === undefined || named === credential.tenantId;
  });
}

function tenantOfQuery(query: string): string | undefined {
  return new URLSearchParams(query).get("tenant") ?? undefined;
}

/** The parts of the path by their names, `undefined` when the path is no such route. */
function partsOf(template: string, pathname: string): Record<string, string> | undefined {
  const wanted = template.split("/");
  const found = pathname.replace(/\/$/, "").split("/");
  if (wanted.length !== found.length) return undefined;
  const parts: Record<string, string> = {};
  for (const [index, part] of wanted.entries()) {
    const text = decoded(found[index] ?? "");
    const name = /^\{(\w+)\}$/.exec(part)?.[1];
    if (name !== undefined) parts[name] = text;
    else if (part !== text) return undefined;
  }
  return parts;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

interface ChosenToken {
  name: string;
  token: string | undefined;
  /** The credential that the token is, or was made from. */
  credential: Credential | undefined;
}

function chooseToken(world: World, operation: Operation, random: Random): ChosenToken {
  const kind = random();
  if (kind < 0.08) return { name: "no credential", token: undefined, credential: undefined };
  if (kind < 0.14) {
    const { name, token } = pick(random, world.useless);
    return { name, token, credential: undefined };
  }
  if (kind < 0.18) return { name: "junk", token: junk(random), credential: undefined };
  // A session that signs out opens nothing in the rest of the run.
  const usable =
    operation.template === "/sign-out" ? world.credentials.filter((each) => each.isCookie !== true) : world.credentials;
  const right = usable.filter(({ schemes }) => schemes.some((each) => operation.schemes.includes(each)));
  const credential = pick(random, right.length > 0 && random() < 0.6 ? right : usable);
  if (random() < 0.55) return { name: credential.name, token: credential.token, credential };
  const { how, token } = mutated(credential.token, world, random);
  return { name: `${credential.name}, ${how}`, token, credential };
}

function oneOf(random: Random, characters: string): string {
  return characters.charAt(Math.floor(random() * characters.length));
}

function junk(random: Random): string {
  const alphabet = "abcXYZ019._-~+/=:";
  const prefix = pick(random, ["", "tgk_", "tgs_", "tgp_", "tgm_", "tgc_", "tgo_", "eyJ", "sk_test_", "Bearer"]);
  return prefix + Array.from({ length: 1 + Math.floor(random() * 90) }, () => oneOf(random, alphabet)).join("");
}

/** The token with one change. A change that makes no difference is made again by appending. */
function mutated(
  token: string,
  { attacker, victim, credentials }: World,
  random: Random,
): { how: string; token: string } {
  // The last character of a base64url text may have bits without a meaning.
  const at = Math.floor(random() * (token.length - 1));
  const end = token.lastIndexOf(".");
  const changes: [string, () => string][] = [
    ["one character changed", () => token.slice(0, at) + oneOf(random, "abcABC123-_") + token.slice(at + 1)],
    ["cut", () => token.slice(0, Math.max(1, at))],
    ["longer", () => `${token}${oneOf(random, "aA1-_.=")}`],
    ["of the victim", () => token.replaceAll(attacker, victim)],
    ["of another kind", () => token.replace(/^tg\w/, pick(random, ["tgk", "tgs", "tgp", "tgm", "tgc", "tgo"]))],
    ["in capitals", () => token.toUpperCase()],
    ["with another MAC", () => token.slice(0, end) + pick(random, credentials).token.slice(-44)],
    ["twice", () => `${token},${token}`],
    ["without signature", () => token.slice(0, end + 1)],
    [
      "with alg none",
      () => `${Buffer.from('{"alg":"none","typ":"JWT"}').toString("base64url")}.${token.split(".")[1] ?? ""}.`,
    ],
    ["with other claims", () => withOtherClaims(token, victim)],
    ["oversized", () => token + "a".repeat(Math.floor(random() * 12_000))],
  ];
  const [how, change] = pick(random, changes);
  const changed = change();
  return changed === token ? { how: "longer", token: `${token}x` } : { how, token: changed };
}

function withOtherClaims(token: string, victim: string): string {
  const [head = "", claims = "", signature = ""] = token.split(".");
  try {
    const other = { ...(JSON.parse(Buffer.from(claims, "base64url").toString()) as object), tenant_id: victim };
    return [head, Buffer.from(JSON.stringify(other)).toString("base64url"), signature].join(".");
  } catch {
    return `${token}x`;
  }
}

function pathOf(world: World, { template }: Operation, credential: Credential | undefined, random: Random): string {
  const hostilePart = (): string =>
    pick(random, [
      ...["..", "%2e%2e", "%00", "x%00y", ".", "%2F", "%5c", "%ff", "%", "%u0041", "~fallback", "canary-a", "null"],
      ...["a".repeat(300), "__proto__", "%F0%9F%98%80", "'%20OR%201=1", "*", world.victim.toUpperCase()],
      ...[
        `${world.attacker}%2F..%2F${world.victim}`,
        `${world.attacker}%00`,
        `${world.victim}%20`,
        `${world.victim};a=b`,
      ],
    ]);
  const path = template.replaceAll(/\{(\w+)\}/g, (_, name: string) => {
    if (random() < 0.06) return hostilePart();
    if (name !== "tenantId") return encodeURIComponent(pick(random, [...world.ids, "1", "999999", "a.ndjson"]));
    // What the operator's token opens may be changed for good, so only some tenants are offered.
    if (credential !== undefined && credential.tenantId === undefined) return pick(random, world.disposable);
    return random() < 0.5 ? world.attacker : world.victim;
  });
  const kind = random();
  if (kind < 0.9) return path;
  return pick(random, [
    `${path}/`,
    `/${path}`,
    `${path}/..`,
    `${path}%2f`,
    `/x/..${path}`,
    path.replace("/admin/", "/Admin/"),
    path.replace("/api/", "/api//"),
    path.replace("/api/", "/api/%2e/"),
    `${path}/${hostilePart()}`,
    `${path};x`,
  ]);
}

function queryOf({ ids, known }: World, operation: Operation, random: Random, token: string | undefined): string {
  const pairs: [string, string][] = token === undefined ? [] : [["token", token]];
  pairs.push(...pageQuery(operation.template, known, random));
  for (const { name, schema } of operation.query)
    if (random() < 0.35) pairs.push([name, asText(valueOf(schema, random, ids))]);
  if (operation.template === "/health" && random() < 0.8) pairs.push(["tenant", pick(random, ids)]);
  if (random() < 0.08)
    pairs.push([
      pick(random, ["madeUp", "__proto__", "after", "limit", "tenantId", "token"]),
      asText(hostileValue(random)),
    ]);
  if (pairs.length === 0) return "";
  return `?${pairs.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`).join("&")}`;
}

/** A text that `encodeURIComponent` takes, and not too long for a request line. */
function asText(value: unknown): string {
  return (typeof value === "string" ? value : (JSON.stringify(value) ?? "")).toWellFormed().slice(0, 2_000);
}

function headersOf({ attacker, victim, ids }: World, random: Random): [string, string][] {
  const odd: [string, string][] = [
    ["x-tenant-id", victim],
    ["x-original-url", "/admin/api/tenants"],
    ["x-http-method-override", "DELETE"],
    ["x-forwarded-host", "evil.example"],
    ["x-forwarded-for", "127.0.0.1"],
    ["cf-connecting-ip", pick(random, ["203.0.113.9", "::1", "", "not an address"])],
    ["cf-access-jwt-assertion", junk(random)],
    [
      "idempotency-key",
      asText(hostileValue(random))
        .replaceAll(/[^\x20-\x7e]/g, "?")
        .slice(0, 300),
    ],
    ["if-match", pick(random, ["*", '"1"', 'W/"1"', "1"])],
    ["origin", pick(random, ["https://evil.example", "null", ""])],
    ["cookie", `__Host-tollgate-session=${pick(random, ids)}`],
    ["cookie", `tollgate-session=${"s".repeat(43)}; __Host-tollgate-session=${"s".repeat(43)}`],
    ["mcp-session-id", victim],
    ["mcp-protocol-version", pick(random, ["2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28", "1999-01-01", ""])],
    ["mcp-method", pick(random, ["tools/call", "tools/list", ""])],
    ["mcp-name", pick(random, ["health_check", ""])],
    ["accept", pick(random, ["*/*", "text/html", "", "application/json;q=0"])],
    ["range", "bytes=0-"],
    ["x-request-id", attacker],
    ["stripe-signature", "t=1,v1=00"],
    ["content-encoding", pick(random, ["gzip", "identity", "br"])],
  ];
  const chosen: [string, string][] = [["accept", "application/json, text/event-stream"]];
  // Requests of one address would soon be refused by its rate, and nothing behind it would be tested.
  if (random() < 0.8) chosen.push(["cf-connecting-ip", `2001:db8:${hex(random)}:${hex(random)}::1`]);
  while (random() < 0.35) chosen.push(pick(random, odd));
  return chosen;
}

const hex = (random: Random): string => Math.floor(random() * 65_536).toString(16);

function bodyOf(
  world: World,
  operation: Operation,
  method: string,
  random: Random,
  headers: [string, string][],
): Buffer | undefined {
  if (method === "GET" || method === "HEAD" || method === "OPTIONS") return undefined;
  const { ids, tools } = world;
  const form = random() < 0.9 ? formBody(operation.template, world.known, random) : undefined;
  if (form !== undefined) {
    headers.push(["content-type", "application/x-www-form-urlencoded"]);
    return random() < 0.97 ? Buffer.from(form) : Buffer.from(form.slice(0, Math.floor(form.length / 2)));
  }
  if (operation.body === undefined && random() < 0.85) return undefined;
  const value =
    operation.template === "/mcp"
      ? message(tools, ids, random)
      : valueOf(operation.body ?? { type: "object" }, random, ids);
  const type =
    random() < 0.95
      ? "application/json"
      : pick(random, ["text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=utf-16"]);
  if (type !== "") headers.push(["content-type", type]);
  const bytes = Buffer.from(JSON.stringify(value) ?? "");
  const kind = random();
  if (kind < 0.92) return bytes;
  return pick(random, [
    bytes.subarray(0, Math.floor(bytes.length / 2)),
    Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), bytes]),
    Buffer.concat([bytes, Buffer.from([0xff, 0xfe])]),
    Buffer.alloc(0),
    Buffer.from("[".repeat(20_000)),
    Buffer.from('{"a":1,"a":2,"__proto__":{"isAdmin":true}}'),
    Buffer.alloc(300_000, 0x20),
  ]);
}

/** A JSON-RPC message, mostly a tool call. */
function message(tools: World["tools"], ids: readonly string[], random: Random): unknown {
  if (random() < 0.04) return Array.from({ length: 3 }, () => message(tools, ids, random));
  const tool = pick(random, tools);
  const method =
    random() < 0.75
      ? "tools/call"
      : pick(random, [
          ...[
            "initialize",
            "ping",
            "tools/list",
            "resources/list",
            "resources/read",
            "prompts/get",
            "completion/complete",
          ],
          ...[
            "notifications/initialized",
            "notifications/cancelled",
            "logging/setLevel",
            "server/discover",
            "__proto__",
            "",
          ],
        ]);
  const params = {
    name: random() < 0.95 ? tool.name : hostileValue(random),
    arguments: random() < 0.95 ? valueOf(tool.inputSchema, random, ids) : hostileValue(random),
    ...(random() < 0.6 && {
      _meta:
        random() < 0.5
          ? modernMeta
          : { progressToken: hostileValue(random), "tollgate/idempotencyKey": hostileValue(random) },
    }),
    ...(random() < 0.1 && { cursor: hostileValue(random) }),
  };
  return {
    jsonrpc: random() < 0.97 ? "2.0" : hostileValue(random),
    ...(random() < 0.95 && { id: random() < 0.9 ? 1 : hostileValue(random) }),
    method: random() < 0.97 ? method : hostileValue(random),
    ...(random() < 0.95 && { params: random() < 0.95 ? params : hostileValue(random) }),
  };
}

const modernMeta = {
  "io.modelcontextprotocol/protocolVersion": "2026-07-28",
  "io.modelcontextprotocol/clientCapabilities": {},
  "io.modelcontextprotocol/clientInfo": { name: "fuzz", version: "1" },
};
