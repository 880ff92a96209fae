// The frame of the operator's pages: the sections, who is signed in, and what their role permits.
import type { Child } from "hono/jsx";
import { type Operator, type OperatorRole, hasRole } from "../../core/actor.ts";
import { type HttpContext, Problem } from "../../http.ts";
import { operatorTokenOf } from "../../identity/operators/operator-sessions.ts";
import type { SectionGroup } from "../layout/frame.tsx";
import { type PageOptions, personalPage } from "../layout/layout.tsx";

const groups: readonly SectionGroup[] = [
  {
    sections: [
      { href: "/admin", text: "Overview", icon: "home" },
      { href: "/admin/tenants", text: "Tenants", icon: "building" },
      { href: "/admin/provisioning", text: "Provisioning", icon: "check" },
    ],
  },
  {
    heading: "Billing",
    sections: [
      { href: "/admin/billing", text: "Pipeline", icon: "flow" },
      { href: "/admin/stripe-events", text: "Stripe events", icon: "bolt" },
      { href: "/admin/dead-letters", text: "Dead letters", icon: "mail" },
      { href: "/admin/conflicts", text: "Usage conflicts", icon: "warning" },
      { href: "/admin/reconciliation", text: "Reconciliation", icon: "equal" },
    ],
  },
  {
    heading: "Operations",
    sections: [
      { href: "/admin/failures", text: "Alarms and failures", icon: "bell" },
      { href: "/admin/work", text: "Moves and jobs", icon: "arrows" },
      { href: "/admin/migrations", text: "Migrations", icon: "layers" },
    ],
  },
  {
    heading: "Security",
    sections: [
      { href: "/admin/audit", text: "Audit log", icon: "clock" },
      { href: "/admin/access", text: "Operators", icon: "shield" },
    ],
  },
];

/** The operator of the page. The guard has set it. */
export function operatorOf(c: HttpContext): Operator {
  const actor = c.get("actor");
  if (actor.kind !== "operator") throw new Problem("token_invalid");
  return actor;
}

/** Whether the operator's role permits what needs this role. A page shows no button that would be refused. */
export function permits(c: HttpContext, role: OperatorRole): boolean {
  return hasRole(operatorOf(c).role, role);
}

/** The answer with a page of the operator's. `section`: the path of the section that it belongs to. */
export async function operatorPage(
  c: HttpContext,
  { section, ...options }: Omit<PageOptions, "frame"> & { section: string },
  content: Child,
): Promise<Response> {
  const { name, role } = operatorOf(c);
  const isSession = operatorTokenOf(c.req.header("cookie")) !== undefined;
  const frame = {
    kind: "sided",
    label: "Operator",
    where: { text: "Operator", href: "/admin" },
    groups,
    current: section,
    person: `${name} · ${role}`,
    menu: [{ href: "/admin/access", text: "Operators and sessions" }],
    // Cloudflare Access has a sign-out of its own.
    signOut: isSession ? "/admin/sign-out" : null,
  } as const;
  return personalPage(c, { scripts: "own", ...options, frame }, content);
}
