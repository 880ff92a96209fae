// The secrets of tools: their names, which side sets each one, and how a tenant's own are encrypted. The operator's are bindings of
// the Worker. A tenant's are rows of the control tables, and its object has them encrypted in its copy of the configuration.
import * as z from "zod";
import type { TenantId } from "./tenant.ts";

/** Lower case: Tollgate's own bindings have names in capitals, so no tool can ask for one of them. */
export const secretNamePattern = /^[a-z][a-z0-9_]{0,39}$/;

/** A tenant's object reads all of them with every change of the tenant. */
export const MAX_TENANT_SECRETS = 20;
/** Enough for a private key in PEM. */
export const MAX_SECRET_BYTES = 4_096;

const encoder = new TextEncoder();

/** The value of a secret. White space around it comes from copying. */
export const SecretValue = z
  .string()
  .trim()
  .min(1, "must not be empty")
  .refine(
    (value) => encoder.encode(value).byteLength <= MAX_SECRET_BYTES,
    `must have at most ${MAX_SECRET_BYTES.toLocaleString("en-US")} bytes`,
  );

/** The secrets that tools may use, by name, each with its meaning in words. */
export interface DeclaredSecrets {
  readonly operator?: Readonly<Record<string, string>>;
  readonly tenant?: Readonly<Record<string, string>>;
}

/** Who sets the secret. `undefined`: there is no such secret. */
export function setterOf(
  { operator = {}, tenant = {} }: DeclaredSecrets,
  name: string,
): "operator" | "tenant" | undefined {
  if (Object.hasOwn(operator, name)) return "operator";
  return Object.hasOwn(tenant, name) ? "tenant" : undefined;
}

/** What a tenant's secret is encrypted for: it decrypts for no other tenant and under no other name. */
export function tenantSecretPurpose(tenantId: TenantId, name: string): string {
  return `tenant_secret:${tenantId}:${name}`;
}
