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
      { href: "/admin", text: "Overview" },
      { href: "/admin/tenants", text: "Tenants" },
      { href: "/admin/provisioning", text: "Provisioning" },
    ],
  },
  {
    heading: "Billing",
    sections: [
      { href: "/admin/billing", text: "Pipeline" },
      { href: "/admin/stripe-events", text: "Stripe events" },
      { href: "/admin/dead-letters", text: "Dead letters" },
      { href: "/admin/conflicts", text: "Usage conflicts" },
      { href: "/admin/reconciliation", text: "Reconciliation" },
    ],
  },
  {
    heading: "Operations",
    sections: [
      { href: "/admin/failures", text: "Alarms and failures" },
      { href: "/admin/work", text: "Moves and jobs" },
      { href: "/admin/migrations", text: "Migrations" },
    ],
  },
  {
    heading: "Security",
    sections: [
      { href: "/admin/audit", text: "Audit log" },
      { href: "/admin/access", text: "Operators" },
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
