// The configuration of a tenant as one document: GET shows it with an ETag, PATCH changes it by a JSON merge patch (RFC 7396).
// A change names the version that it is meant for (`If-Match`), so that two people do not undo each other's changes. It is in
// force on the tenant's next call: the tenant's object has confirmed it before the answer.
import * as z from "zod";
import type { ControlDatabase } from "../control/context.ts";
import { notifyObject } from "../control/notify-object.ts";
import { AccountChange, type TenantChange, changeAccount } from "../control/tenant-change.ts";
import { type StoredConfiguration, tenantsStore } from "../control/tenants-store.ts";
import { sha256Hex } from "../core/keys/credentials.ts";
import { Features, LimitChanges, Limits, featuresOf, overriddenLimits } from "../core/plans/plans.ts";
import { Settings, SettingsPatch } from "../core/tenant/settings.ts";
import { tenantStates } from "../core/tenant/tenant.ts";
import { type HttpContext, Problem, noSuchTenant, tenantOf } from "../http.ts";
import { demandPermission } from "../identity/guards.ts";
import { refusedChange } from "./admin-api.ts";

/** What the operator sees. `limits` and `features`: only what differs from the plan; `effective` is what is in force. */
export const Configuration = Settings.extend({
  tenantId: z.string(),
  plan: z.string(),
  state: z.enum(tenantStates),
  region: z.string().optional(),
  limits: LimitChanges,
  /** Absent: every tool. */
  allowedTools: z.array(z.string()).optional(),
  features: Features,
  effective: z.object({ limits: Limits, soldLimits: Limits, features: Features }),
});
export type Configuration = z.infer<typeof Configuration>;

/** What a tenant's admin sees. The limits and features are those in force. */
export const OwnConfiguration = Configuration.omit({ effective: true }).extend({ limits: Limits });
export type OwnConfiguration = z.infer<typeof OwnConfiguration>;

const { shape } = AccountChange;

/** What the operator may change. */
export const ConfigurationPatch = z
  .strictObject({
    ...SettingsPatch.shape,
    limits: shape.limits.unwrap().nullable(),
    features: shape.features.unwrap().nullable(),
    allowedTools: shape.allowedTools,
    region: shape.region,
    // A client may send back the document that it has read. Another plan or state has a route of its own.
    plan: z.string(),
    state: z.string(),
  })
  .partial();
export type ConfigurationPatch = z.infer<typeof ConfigurationPatch>;

/** The document for the operator. */
export function configurationOf(tenantId: string, stored: StoredConfiguration): Configuration {
  const { plan, state, region, limits, soldLimits, allowedTools, features, settings } = stored;
  return {
    tenantId,
    plan,
    state,
    ...(region !== null && { region }),
    limits: overriddenLimits(limits, soldLimits),
    ...(allowedTools !== null && { allowedTools }),
    features,
    ...settings,
    effective: { limits, soldLimits, features: featuresOf(stored) },
  };
}

function ownConfigurationOf(tenantId: string, stored: StoredConfiguration): OwnConfiguration {
  const { effective, ...document } = configurationOf(tenantId, stored);
  return { ...document, limits: effective.limits, features: effective.features };
}

/** The change of an account that a patch asks for. */
export function changeOf(patch: ConfigurationPatch): TenantChange {
  const { limits, features, allowedTools, region, branding, integrations, spend, alerts } = patch;
  const settings = { branding, integrations, spend, alerts };
  const isGiven = Object.values(settings).some((part) => part !== undefined);
  return { limits, features, allowedTools, region, ...(isGiven && { settings }) };
}

/**
 * Whether an `If-Match` header names this version (RFC 9110, 13.1.1). A weak tag names none: it stands for a version that only
 * means the same.
 */
export function matchesEtag(header: string, etag: string): boolean {
  if (header.trim() === "*") return true;
  return [...header.matchAll(/(?<weak>W\/)?(?<tag>"[\x21\x23-\x7e\x80-\xff]*")/g)].some(
    ({ groups }) => groups?.["weak"] === undefined && groups?.["tag"] === etag,
  );
}

type View<Document = Configuration | OwnConfiguration> = (tenantId: string, stored: StoredConfiguration) => Document;

export function showConfiguration(c: HttpContext): Promise<Response> {
  return show(c, configurationOf);
}

export function showOwnConfiguration(c: HttpContext): Promise<Response> {
  return show(c, ownConfigurationOf);
}

/** A document for a page, and its ETag. */
export interface Versioned<Document> {
  document: Document;
  etag: string;
}

/** What `showConfiguration` answers with. */
export function operatorConfiguration(
  c: HttpContext,
  control = c.get("context").control,
): Promise<Versioned<Configuration>> {
  return versioned(c, configurationOf, control);
}

/** What `showOwnConfiguration` answers with. */
export function ownConfiguration(
  c: HttpContext,
  control = c.get("context").control,
): Promise<Versioned<OwnConfiguration>> {
  return versioned(c, ownConfigurationOf, control);
}

async function versioned<Document>(
  c: HttpContext,
  view: View<Document>,
  control: ControlDatabase,
): Promise<Versioned<Document>> {
  const document = await read(c, view, control);
  return { document, etag: await etagOf(document) };
}

export function changeConfiguration(c: HttpContext, { body }: { body: ConfigurationPatch }): Promise<Response> {
  return change(c, operatorChange(c, body));
}

/** Changes the configuration as `changeConfiguration` does. `etag`: of the version that the change is meant for. */
export async function changeConfigurationOf(c: HttpContext, patch: ConfigurationPatch, etag: string): Promise<void> {
  await apply(c, operatorChange(c, patch), etag);
}

function operatorChange(c: HttpContext, body: ConfigurationPatch): RequestedChange {
  const refused = (stored: StoredConfiguration): string | undefined => {
    const path = `/admin/api/tenants/${tenantOf(c)}`;
    if (body.plan !== undefined && body.plan !== stored.plan) return `plan: change it with POST ${path}/plan.`;
    if (body.state !== undefined && body.state !== stored.state)
      return `state: change it with POST ${path}/suspend, ${path}/resume or ${path}/remove.`;
    return undefined;
  };
  return { view: configurationOf, change: changeOf(body), refused };
}

export function changeOwnConfiguration(
  c: HttpContext,
  { body }: { body: z.infer<typeof SettingsPatch> },
): Promise<Response> {
  return change(c, ownChange(c, body));
}

/** Changes the settings as `changeOwnConfiguration` does. `etag`: of the version that the change is meant for. */
export async function changeOwnSettings(c: HttpContext, patch: SettingsPatch, etag: string): Promise<void> {
  await apply(c, ownChange(c, patch), etag);
}

function ownChange(c: HttpContext, patch: SettingsPatch): RequestedChange {
  // What may be spent is a decision like a change of the plan.
  if (patch.spend !== undefined) demandPermission(c.get("actor"), "billing:manage");
  return { view: ownConfigurationOf, change: { settings: patch }, refused: () => undefined };
}

async function show(c: HttpContext, view: View): Promise<Response> {
  const document = await read(c, view);
  return c.json(document, 200, { ...unchanged, etag: await etagOf(document) });
}

interface RequestedChange {
  view: View;
  change: TenantChange;
  refused: (stored: StoredConfiguration) => string | undefined;
}

async function change(c: HttpContext, options: RequestedChange): Promise<Response> {
  const ifMatch = c.req.header("if-match");
  if (ifMatch === undefined) throw new Problem("precondition_required", PRECONDITION);
  const delivered = await apply(c, options, ifMatch);
  const document = await read(c, options.view);
  return c.json({ ...document, ...delivered }, 200, { ...unchanged, etag: await etagOf(document) });
}

/** Applies the change to the version that `ifMatch` names. Throws why it is refused. */
async function apply(c: HttpContext, options: RequestedChange, ifMatch: string): Promise<{ delivered: boolean }> {
  const tenantId = tenantOf(c);
  const context = c.get("context");
  const isExpected = async (stored: StoredConfiguration): Promise<boolean> => {
    const etag = await etagOf(options.view(tenantId, stored));
    if (!matchesEtag(ifMatch, etag)) {
      c.header("etag", etag);
      return false;
    }
    const refused = options.refused(stored);
    if (refused !== undefined) throw new Problem("conflict", refused);
    return true;
  };
  const refused = await changeAccount(context, tenantId, options.change, isExpected);
  if (refused !== undefined) throw refusedChange(refused);
  const { delivered } = await notifyObject(context, tenantId);
  return { delivered };
}

/** A proxy that compresses an answer makes its tag a weak one, which names no version. */
const unchanged = { "cache-control": "no-store, no-transform" };

const PRECONDITION = "If-Match: send the ETag that GET answered with, or * to change any version.";

async function read<Document>(
  c: HttpContext,
  view: View<Document>,
  control = c.get("context").control,
): Promise<Document> {
  const tenantId = tenantOf(c);
  const stored = await tenantsStore(control).configuration(tenantId);
  if (stored === undefined) throw noSuchTenant();
  return view(tenantId, stored);
}

/** The tag of a document: the same for the same content. */
async function etagOf(document: unknown): Promise<string> {
  return `"${(await sha256Hex(JSON.stringify(document))).slice(0, 32)}"`;
}
