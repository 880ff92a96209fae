// Who speaks for a tenant at its own API: the holder of a key of that tenant with the scope for its administrator, which
// no key has that was not asked for it. The control tables say whether the key is still good, so that a revoked one is
// refused at once, and that a tenant whose calls are refused still gets at what is its own.
import type { Context } from "hono";
import { tenantsOf } from "../control/tenants-store.ts";
import { refusedCredential } from "./credential-check.ts";
import { AppError } from "../core/errors.ts";
import type { TenantId } from "../core/tenant.ts";
import { authenticate } from "./authenticate.ts";
import { ADMIN_SCOPE } from "./keys.ts";
import type { HttpEnv } from "../http.ts";

/** The tenant of the path `:id`, for which the request's key speaks. Throws the code of why it does not. */
export async function administeredTenant(c: Context<HttpEnv>): Promise<TenantId> {
  const nowMs = Date.now();
  const authentication = await authenticate(c.req.header("authorization") ?? null, c.env, nowMs);
  if ("refused" in authentication) throw new AppError(authentication.refused);
  const { caller } = authentication;
  if (caller.tenantId !== c.req.param("id") || caller.kind !== "key") throw new AppError("token_invalid");
  if (!caller.scopes.includes(ADMIN_SCOPE)) throw new AppError("scope_missing");
  const tenant = await tenantsOf(c.env).config(caller.tenantId);
  const refused = tenant === undefined ? "tenant_unknown" : refusedCredential(tenant, caller, nowMs);
  if (refused !== undefined) throw new AppError(refused);
  return caller.tenantId;
}
