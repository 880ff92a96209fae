// Routes for the secrets that a tenant's administrators set for its tools. A value is only ever written: no answer, no page and no
// record of the audit log has it.
import * as z from "zod";
import type { ControlDatabase } from "../../adapters/neon.ts";
import { encryptSecret } from "../../control/encrypted-logins-store.ts";
import { notifyObject } from "../../control/notify-object.ts";
import { config } from "../../core/app-config.ts";
import type { TenantId } from "../../core/tenant/tenant.ts";
import { MAX_TENANT_SECRETS, SecretValue, tenantSecretPurpose } from "../../core/tenant/tool-secrets.ts";
import {
  type HttpContext,
  PageQuery,
  Problem,
  type Route,
  noSuchTenant,
  pageOfAll,
  route,
  tenantOf,
} from "../../http.ts";
import { actorFields } from "../../identity/audit/audit.ts";
import { catalogue } from "../../tools/catalogue.ts";
import { secretsStore } from "./secrets-store.ts";

/** A secret as the tenant's administrators see it. */
export const SecretView = z.object({
  name: z.string(),
  /** `null`: no tool asks for it any more. */
  meaning: z.string().nullable(),
  isSet: z.boolean(),
  setAt: z.string().nullable(),
  setBy: z.object({ kind: z.string(), id: z.string().nullable() }).nullable(),
  /** The tools that use it. */
  tools: z.array(z.string()),
});
export type SecretView = z.infer<typeof SecretView>;

export const RemovedSecret = z.object({ name: z.string(), removed: z.literal(true) });

export const SecretRequest = z.strictObject({ value: SecretValue });
export type SecretRequest = z.infer<typeof SecretRequest>;

const declared = config.secrets?.tenant ?? {};

/** The secrets that tools ask the tenant for, in the order of the declaration, and then those that none asks for any more. */
export async function secretsOf(control: ControlDatabase, tenantId: TenantId): Promise<SecretView[]> {
  const stored = new Map((await secretsStore(control).list(tenantId)).map((each) => [each.name, each]));
  const names = [...new Set([...Object.keys(declared), ...stored.keys()])];
  return names.map((name) => {
    const { setAt = null, setBy = null } = stored.get(name) ?? {};
    const tools = [...catalogue.values()].filter(({ secrets = [] }) => secrets.includes(name));
    const meaning = Object.hasOwn(declared, name) ? (declared[name] ?? null) : null;
    return { name, meaning, isSet: stored.has(name), setAt, setBy, tools: tools.map((tool) => tool.name) };
  });
}

async function listSecrets(c: HttpContext, { query }: { query: PageQuery }): Promise<Response> {
  const all = await secretsOf(c.get("context").control, tenantOf(c));
  return c.json(pageOfAll("secrets", all, query, ({ name }) => name));
}

/** Sets the secret of the path. In force on the next call. */
export async function setSecret(c: HttpContext, { body: { value } }: { body: SecretRequest }): Promise<Response> {
  const context = c.get("context");
  const tenantId = tenantOf(c);
  const name = c.req.param("name") ?? "";
  if (!Object.hasOwn(declared, name)) throw noSuchSecret();
  const { actorKind: kind, actorId: id } = actorFields(c.get("actor"));
  const encrypted = await encryptSecret(c.env, tenantSecretPurpose(tenantId, name), value);
  const done = await secretsStore(context.control).set({ tenantId, name, value: encrypted }, { kind, id }, Date.now());
  if (done === "gone") throw noSuchTenant();
  if (done === "full")
    throw new Problem("conflict", `The account has ${MAX_TENANT_SECRETS} secrets. Remove one that no tool uses.`);
  const { delivered } = await notifyObject(context, tenantId);
  const view = (await secretsOf(context.control, tenantId)).find((each) => each.name === name);
  return c.json({ ...view, delivered });
}

/** Removes the secret of the path. Tools that need it fail from the next call on. */
export async function removeSecret(c: HttpContext): Promise<Response> {
  const context = c.get("context");
  const tenantId = tenantOf(c);
  const name = c.req.param("name") ?? "";
  if (!(await secretsStore(context.control).remove(tenantId, name)))
    throw new Problem("not_found", "The account has not set a secret of this name.");
  const { delivered } = await notifyObject(context, tenantId);
  return c.json({ name, removed: true, delivered });
}

/** The path may have a value that belongs into the body: the answer repeats nothing of it. */
function noSuchSecret(): Problem {
  const names = Object.keys(declared);
  return new Problem(
    "not_found",
    names.length === 0
      ? "No tool asks for a secret."
      : `No tool asks for a secret of this name, but for: ${names.join(", ")}.`,
  );
}

// oxfmt-ignore
export const secretRoutes: readonly Route[] = [
  route("GET /api/tenants/:tenantId/secrets", "tenant_admin", listSecrets, { query: PageQuery, permission: "secrets:manage" }),
  route("PUT /api/tenants/:tenantId/secrets/:name", "tenant_admin", setSecret, { body: SecretRequest, permission: "secrets:manage" }),
  route("DELETE /api/tenants/:tenantId/secrets/:name", "tenant_admin", removeSecret, { permission: "secrets:manage" }),
];
