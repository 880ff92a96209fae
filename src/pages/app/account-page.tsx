// The frame of a customer's pages: the sections that the person may open, the organisation, and who acts for it.
import type { Child } from "hono/jsx";
import { type Permission, permissionsOf } from "../../core/actor.ts";
import type { TenantConfig } from "../../core/tenant/tenant.ts";
import { tenantsStore } from "../../control/tenants-store.ts";
import { type HttpContext, noSuchTenant, tenantOf } from "../../http.ts";
import type { SectionGroup } from "../layout/frame.tsx";
import type { SectionIconName } from "../layout/icon.tsx";
import { type PageOptions, personalPage } from "../layout/layout.tsx";
import { nameOf } from "../sign-in/sign-in.tsx";
import { ImpersonationBanner, impersonatorOn } from "./impersonation.tsx";
import { standingOf } from "./standing.tsx";

interface AccountSection {
  /** Below `/app/:tenantId`. */
  path: string;
  text: string;
  icon: SectionIconName;
  permission: Permission;
}

const groups: readonly { heading?: string; sections: readonly AccountSection[] }[] = [
  {
    sections: [
      { path: "", text: "Overview", icon: "home", permission: "account:read" },
      { path: "/usage", text: "Usage", icon: "chart", permission: "usage:read" },
      { path: "/calls", text: "Calls", icon: "list", permission: "usage:read" },
      { path: "/playground", text: "Playground", icon: "bolt", permission: "tools:use" },
      { path: "/files", text: "Documents", icon: "file", permission: "documents:read" },
      { path: "/invoices", text: "Invoices", icon: "receipt", permission: "billing:manage" },
    ],
  },
  {
    heading: "Access",
    sections: [
      { path: "/keys", text: "API keys", icon: "key", permission: "keys:manage" },
      { path: "/agents", text: "Connected agents", icon: "plug", permission: "members:read" },
      { path: "/members", text: "Members", icon: "people", permission: "members:read" },
      { path: "/sessions", text: "Sessions", icon: "screen", permission: "members:read" },
      { path: "/audit", text: "Audit log", icon: "clock", permission: "audit:read" },
      { path: "/access", text: "Your access", icon: "person", permission: "membership:leave" },
    ],
  },
  {
    heading: "Account",
    sections: [
      { path: "/plan", text: "Plan", icon: "card", permission: "account:read" },
      { path: "/settings", text: "Settings", icon: "sliders", permission: "account:read" },
      { path: "/secrets", text: "Secrets", icon: "lock", permission: "secrets:manage" },
      { path: "/provider", text: "Sign-in provider", icon: "door", permission: "members:manage" },
      { path: "/data", text: "Data", icon: "data", permission: "account:read" },
    ],
  },
];

/** The path of a tenant's page: `/app/ID/usage`. */
export function accountPath(c: HttpContext, path = ""): string {
  return `/app/${tenantOf(c)}${path}`;
}

/** Whether the person may do what needs this permission. A page shows no button that would be refused. */
export function may(c: HttpContext, permission: Permission): boolean {
  return permissionsOf(c.get("actor")).includes(permission);
}

/** The tenant of the page. The guard of a session has read it already. */
export async function tenantFor(c: HttpContext): Promise<TenantConfig> {
  const tenant = c.get("tenant") ?? (await tenantsStore(c.get("context").control).config(tenantOf(c)));
  if (tenant === undefined) throw noSuchTenant();
  c.set("tenant", tenant);
  return tenant;
}

/** The answer with a page of the tenant that the path names. `section`: the path of the section that it belongs to. */
export async function accountPage(
  c: HttpContext,
  { section, ...options }: Omit<PageOptions, "frame"> & { section: string },
  content: Child,
): Promise<Response> {
  const tenant = await tenantFor(c);
  const person = c.get("person");
  const impersonator = impersonatorOn(c);
  const shown = groups.map(({ heading, sections }): SectionGroup => {
    const own = sections.filter(({ permission }) => may(c, permission));
    return {
      ...(heading !== undefined && { heading }),
      sections: own.map(({ path, text, icon }) => ({ href: accountPath(c, path), text, icon })),
    };
  });
  const frame = {
    kind: "sided",
    label: "Account",
    where: { text: tenant.name, href: accountPath(c) },
    groups: shown.filter(({ sections }) => sections.length > 0),
    current: accountPath(c, section),
    person: impersonator?.operator.name ?? (person === undefined ? "Account" : nameOf(person)),
    ...(impersonator === undefined
      ? { menu: [{ href: "/app", text: "Your organisations" }] }
      : {
          menu: [{ href: `/admin/tenants/${tenant.id}`, text: "Back to the operator's pages" }],
          signOut: null,
          banner: (
            <ImpersonationBanner
              impersonator={impersonator}
              tenantName={tenant.name}
              endsAtMs={c.get("impersonationEndsAtMs") ?? 0}
            />
          ),
        }),
  } as const;
  const standing = standingOf(tenant, Date.now(), (path) => accountPath(c, path));
  return personalPage(
    c,
    { scripts: "own", ...options, frame, colour: tenant.branding.colour },
    <>
      {standing}
      {content}
    </>,
  );
}
