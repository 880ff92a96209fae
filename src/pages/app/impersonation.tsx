// An operator who acts for the tenant: the banner on each page while it lasts, and its end.
import type { FC } from "hono/jsx";
import { MINUTE_MS } from "../../core/time.ts";
import { type HttpContext, Problem, tenantOf } from "../../http.ts";
import { finishImpersonation } from "../../identity/operators/api.ts";
import { type Impersonator, endedImpersonationCookie } from "../../identity/operators/impersonation.ts";
import { doneAt } from "../layout/form-body.ts";
import { Action } from "../parts/form.tsx";

/** The operator who acts for the tenant of the page; `undefined`: it is a member. */
export function impersonatorOn(c: HttpContext): Impersonator | undefined {
  const actor = c.get("actor");
  return actor.kind === "impersonator" ? actor : undefined;
}

interface BannerProps {
  impersonator: Impersonator;
  tenantName: string;
  endsAtMs: number;
}

export const ImpersonationBanner: FC<BannerProps> = ({ impersonator, tenantName, endsAtMs }) => {
  const minutes = Math.max(1, Math.ceil((endsAtMs - Date.now()) / MINUTE_MS));
  const end = new Date(endsAtMs).toISOString();
  return (
    <>
      <span>
        <strong>
          {impersonator.operator.name} acts for {tenantName}
        </strong>
        <span> · Reason: {impersonator.reason}</span>
        <span>
          {" "}
          · ends in{" "}
          <time datetime={end} title={`${end.slice(11, 16)} UTC`}>
            {minutes === 1 ? "1 minute" : `${minutes} minutes`}
          </time>
        </span>
      </span>
      <Action action={`/app/${impersonator.tenantId}/impersonation/end`} label="End now" isTiny />
    </>
  );
};

/** POST /app/:tenantId/impersonation/end */
export async function submitOwnEnd(c: HttpContext): Promise<Response> {
  const impersonator = impersonatorOn(c);
  if (impersonator === undefined) throw new Problem("not_found", "You act for no one but yourself.");
  await finishImpersonation(c, impersonator.id);
  const response = doneAt(c, `/admin/tenants/${tenantOf(c)}`, "You no longer act for this tenant.");
  response.headers.append("set-cookie", endedImpersonationCookie);
  return response;
}
