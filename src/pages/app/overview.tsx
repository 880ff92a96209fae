// The first page of an account: what it is, and whether calls are served.
import type { HttpContext } from "../../http.ts";
import { planTitle } from "../parts/plan.tsx";
import { accountPage, tenantFor } from "./account-page.tsx";

/** GET /app/:tenantId */
export async function showOverview(c: HttpContext): Promise<Response> {
  const tenant = await tenantFor(c);
  return accountPage(
    c,
    { title: "Overview", section: "" },
    <p>
      {tenant.name} has the plan {planTitle(tenant.plan)}.
    </p>,
  );
}
