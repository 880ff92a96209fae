// Host names of single tenants: a deployment may give a tenant an MCP URL of its own, `https://acme.example.com/mcp`. Such a URL is an
// OAuth resource of its own. The setting `TENANT_HOSTS` is JSON from host name to tenant id; with a port where there is one.
//
// Invariants: on a tenant's host only that tenant's credentials work, and a person can let clients in for that tenant only. A host
// that the setting does not name is the deployment's own. A wrong setting is refused as a whole, so that no host is served as another.
import { AppError } from "../../core/errors.ts";
import { TenantId } from "../../core/tenant/tenant.ts";
import { loopbackHosts } from "../../core/text/web-url.ts";

export type Site = Pick<Env, "PUBLIC_URL" | "TENANT_HOSTS">;

const resourcePath = "/mcp";

/** The resource of the deployment's own host, in the one spelling that clients must send. */
export function resourceOf(publicUrl: string): string {
  return publicUrl + resourcePath;
}

/** Tenants by the origins of their hosts. */
type TenantsByOrigin = ReadonlyMap<string, TenantId>;

let parsed: { site: Site; tenants: TenantsByOrigin } | undefined;

/** Throws for a wrong setting. The message names the setting, the entry and what is wrong, and goes to the log. */
function tenantsOf({ PUBLIC_URL, TENANT_HOSTS }: Site): TenantsByOrigin {
  if (parsed?.site.PUBLIC_URL !== PUBLIC_URL || parsed.site.TENANT_HOSTS !== TENANT_HOSTS) {
    parsed = { site: { PUBLIC_URL, TENANT_HOSTS }, tenants: parse(TENANT_HOSTS, PUBLIC_URL) };
  }
  return parsed.tenants;
}

function parse(json: string, publicUrl: string): TenantsByOrigin {
  const tenants = new Map<string, TenantId>();
  for (const [host, id] of entriesOf(json || "{}")) {
    const problem = hostProblem(host, new URL(publicUrl));
    if (problem !== undefined) throw wrong(`${JSON.stringify(host)} ${problem}`);
    const tenantId = TenantId.safeParse(id);
    if (!tenantId.success) throw wrong(`${JSON.stringify(host)} has no tenant's id`);
    tenants.set(`${new URL(publicUrl).protocol}//${host}`, tenantId.data);
  }
  return tenants;
}

function entriesOf(json: string): [host: string, id: unknown][] {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    throw wrong("it is not JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw wrong("it is no object");
  return Object.entries(value);
}

/** What is wrong with a host. It must be as URLs have it: in lower case, with the port unless it is the protocol's own. */
function hostProblem(host: string, own: URL): string | undefined {
  const text = `${own.protocol}//${host}`;
  if (!URL.canParse(text) || new URL(text).host !== host) return "is no host name as URLs have it";
  if (host === own.host) return "is the host of PUBLIC_URL";
  // OAuth has resources without TLS on a developer's machine alone.
  const { hostname } = new URL(text);
  if (own.protocol === "http:" && !loopbackHosts.includes(hostname)) return "needs a PUBLIC_URL with https";
  return undefined;
}

function wrong(problem: string): AppError {
  return new AppError("internal", `TENANT_HOSTS: ${problem}`);
}

/** Where a request came to: the origin by which its client knows this server, and the tenant that the host is for. */
export interface Place {
  origin: string;
  /** `undefined`: the deployment's own host, which serves all tenants. */
  tenantId: TenantId | undefined;
}

/**
 * The place of a request. Behind a proxy and on loopback the protocol, and any other host, are those of PUBLIC_URL. A wrong setting
 * leaves the deployment's own host in its place.
 */
export function placeOf(site: Site, url: string): Place {
  const own = { origin: site.PUBLIC_URL, tenantId: undefined };
  if (!hasHosts(site)) return own;
  const [{ host }, { host: ownHost, protocol }] = [new URL(url), new URL(site.PUBLIC_URL)];
  if (host === ownHost) return own;
  const origin = `${protocol}//${host}`;
  const tenantId = tenantsOf(site).get(origin);
  return tenantId === undefined ? own : { origin, tenantId };
}

/** Most deployments have none. Their requests are not parsed for a host. */
function hasHosts({ TENANT_HOSTS }: Site): boolean {
  return Boolean(TENANT_HOSTS) && TENANT_HOSTS !== "{}";
}

/**
 * The URL at the deployment's own host of a request that a tenant's host does not serve. It has the MCP endpoint and its metadata
 * alone: pages, their cookies and the APIs of accounts have one host. `undefined`: the request has come to the right host.
 */
export function ownUrlOf(site: Site, url: string): string | undefined {
  if (placeOf(site, url).tenantId === undefined) return undefined;
  const { pathname, search } = new URL(url);
  const isServed = /^\/mcp\/*$/.test(pathname) || pathname.startsWith("/.well-known/");
  return isServed ? undefined : site.PUBLIC_URL + pathname + search;
}

/** Every resource of the deployment, its own first. */
export function resourcesOf(site: Site): [string, ...string[]] {
  return [resourceOf(site.PUBLIC_URL), ...tenantOrigins(site).map(resourceOf)];
}

/** The tenant that a resource is for; `undefined` for the deployment's own, which is for all. */
export function tenantOfResource(site: Site, resource: string): TenantId | undefined {
  return [...tenantsOf(site)].find(([origin]) => resourceOf(origin) === resource)?.[1];
}

/** Whether tokens with this audience are for this tenant. */
export function isResourceOf(site: Site, resource: string, tenantId: TenantId): boolean {
  return resource === resourceOf(site.PUBLIC_URL) || tenantOfResource(site, resource) === tenantId;
}

/** The origins of tenants' hosts. */
export function tenantOrigins(site: Site): string[] {
  return [...tenantsOf(site).keys()];
}
