// The public page of the deployment's health. It names the parts that fail, and nothing else about them.
import type { FC } from "hono/jsx";
import type { HttpContext } from "../../http.ts";
import { type Report, deploymentReport } from "../../operations/health.ts";
import { pagePart, personalPage, wantsPart } from "../layout/layout.tsx";
import { Instant } from "../parts/figures.tsx";
import { Icon } from "../layout/icon.tsx";

/** The report is as old as ten seconds. */
const POLL = "every 15s";
const RELOAD_SECONDS = 30;

/** GET /status */
export async function showHealthPage(c: HttpContext): Promise<Response> {
  const content = <Health report={await deploymentReport(c.get("context"))} />;
  if (wantsPart(c)) return pagePart(c, content);
  const frame = { kind: "site", current: "/status" } as const;
  return personalPage(c, { title: "Status", frame, scripts: "live", reloadSeconds: RELOAD_SECONDS }, content);
}

const Health: FC<{ report: Report }> = ({ report: { checks, checkedAt } }) => {
  const failing = Object.entries(checks).flatMap(([name, { ok }]) => (ok ? [] : [name]));
  const isWell = failing.length === 0;
  return (
    <div id="health" hx-get="/status" hx-trigger={POLL} hx-swap="outerHTML" hx-target="this">
      <div class={isWell ? "card health good" : "card health bad"} role="status">
        <Icon name={isWell ? "done" : "retrying"} />
        <div>
          <strong>
            {isWell ? "Everything works" : `${failing.length} of ${Object.keys(checks).length} checks fail`}
          </strong>
          <p class="muted">
            Checked at <Instant at={checkedAt} /> UTC. This page renews itself.
          </p>
        </div>
      </div>
      {!isWell && (
        <>
          <h2>Failing</h2>
          <ul>
            {failing.map((name) => (
              <li>{inWords(name)}</li>
            ))}
          </ul>
          <p class="muted">The operator is alerted. A call that fails costs nothing.</p>
        </>
      )}
    </div>
  );
};

/** `Control database`, for the check `control_database`. */
function inWords(name: string): string {
  return name.charAt(0).toUpperCase() + name.slice(1).replaceAll("_", " ");
}
