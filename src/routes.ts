// The routes. Each handler stands in the file of those it serves; errors become problem documents here and only here.
import { newId } from "./adapters/ids.ts";
import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { except } from "hono/combine";
import { AppError, errorCode, errors } from "./core/errors.ts";
import { describeError, log } from "./log.ts";
import { protectedResourceMetadata } from "./identity/authenticate.ts";
import { createContext } from "./control/context.ts";
import { handleMcp } from "./calls/endpoint.ts";
import { adminApi } from "./operations/admin-api.ts";
import { health } from "./operations/health.ts";
import { BadRequest, type HttpEnv, problem } from "./http.ts";
import { tenantApi } from "./lifecycle/api.ts";
import { webhook } from "./subscriptions/webhook.ts";

/** The APIs take small JSON; Stripe's largest events are some tens of kilobytes. */
const MAX_API_BODY_BYTES = 256 * 1024;

export const app = new Hono<HttpEnv>();

app.use(async (c, next) => {
  c.set("requestId", c.req.header("cf-ray") ?? newId());
  c.set("context", createContext(c.env));
  await next();
});

app.all("/mcp", (c) => handleMcp(c.req.raw, c.get("context"), c.executionCtx));
app.get("/.well-known/oauth-protected-resource/mcp", (c) =>
  c.json(protectedResourceMetadata(c.env), 200, publicMetadata),
);
app.get("/.well-known/oauth-protected-resource", (c) => c.json(protectedResourceMetadata(c.env), 200, publicMetadata));

app.use("/api/*", bodyLimit({ maxSize: MAX_API_BODY_BYTES, onError: (c) => problem(c, "body_too_large") }));
// Files go to R2 as they come; the platform bounds them.
app.use(
  "/admin/*",
  except(
    ["/admin/api/tenants/:id/import", "/admin/api/tenants/:id/backups/:name"],
    bodyLimit({ maxSize: MAX_API_BODY_BYTES, onError: (c) => problem(c, "body_too_large") }),
  ),
);
app.use("/webhooks/*", bodyLimit({ maxSize: MAX_API_BODY_BYTES, onError: (c) => problem(c, "body_too_large") }));
app.route("/", tenantApi);
app.route("/admin/api", adminApi);
app.route("/webhooks", webhook);
app.route("/health", health);

app.notFound((c) => problem(c, "not_found"));
app.onError((error, c) => {
  if (error instanceof BadRequest) return problem(c, "bad_request", error.message);
  const code = errorCode(error);
  const level = errors[code].status >= 500 ? "error" : "info";
  log(level, "request_failed", {
    requestId: c.get("requestId"),
    path: c.req.routePath,
    code,
    error: describeError(error),
  });
  if (error instanceof AppError && error.cause !== undefined && level === "error") {
    log(level, "request_failed_because", { requestId: c.get("requestId"), error: describeError(error.cause) });
  }
  return problem(c, code);
});

/** Public and the same for everyone; a browser client must be able to read it. */
const publicMetadata = { "access-control-allow-origin": "*", "cache-control": "public, max-age=300" };
