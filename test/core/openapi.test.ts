// The API reference is generated from the table of routes. It is a valid OpenAPI document, and no route is missing.
import { Validator } from "@seriousme/openapi-schema-validator";
import { beforeAll, expect, test, vi } from "vitest";
import * as z from "zod";
import { type ErrorCode, errors, retryOf } from "../../src/core/errors.ts";
import type { Route } from "../../src/http.ts";
import { endpoints } from "../../src/pages/endpoints.ts";
import { type OpenApi, isListed, openApi } from "../../src/pages/openapi.ts";
import type { app as App } from "../../src/routes.ts";
import { appFetch } from "../support/app-requests.ts";

// Classes of the platform, which exist only in workerd.
vi.mock("cloudflare:workers", () => ({ DurableObject: Object, WorkflowEntrypoint: Object, RpcTarget: Object }));
vi.mock("cloudflare:workflows", () => ({ NonRetryableError: Error }));

const PUBLIC_URL = "https://tollgate.example";

let app: typeof App;
let routes: readonly Route[];
let document: OpenApi;
beforeAll(async () => {
  const table = await import("../../src/routes.ts");
  app = table.app;
  routes = table.routes.filter(isListed);
  document = openApi(table.routes, PUBLIC_URL);
});

const get = (path: string): Promise<Response> => appFetch(app, new Request(`${PUBLIC_URL}${path}`), { PUBLIC_URL });
const nameOf = ({ method, path }: Route): string => `${method} ${path}`;
const operations = () => Object.values(document.paths).flatMap((item) => Object.values(item));

test("the description is valid OpenAPI 3.1, and its references lead somewhere", async () => {
  const validator = new Validator();
  const plain = JSON.parse(JSON.stringify(document)) as Record<string, unknown>;
  expect(await validator.validate(plain)).toEqual({ valid: true });
  expect(validator.version).toBe("3.1");
  const references = [...JSON.stringify(document).matchAll(/"\$ref":"#\/(?<path>[^"]+)"/g)];
  for (const path of new Set(references.map(({ groups }) => groups?.["path"] ?? ""))) {
    let target: unknown = document;
    for (const part of path.split("/")) target = (target as Record<string, unknown>)[part];
    expect(target, path).toBeDefined();
  }
});

test("every route is in the description with a summary, an answer and its path's parameters, and nothing else is", () => {
  expect(Object.keys(endpoints).toSorted()).toEqual(routes.map(nameOf).toSorted());
  for (const route of routes) {
    const path = route.path.replaceAll(/:(\w+)/g, "{$1}");
    const operation = document.paths[path]?.[route.method === "ALL" ? "post" : route.method.toLowerCase()];
    expect(operation?.summary, nameOf(route)).toMatch(/^[A-Z].*[^.]$/);
    const inPath = operation?.parameters.filter((parameter) => parameter.in === "path").map(({ name }) => name);
    expect(inPath, nameOf(route)).toEqual([...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name));
    expect(Object.keys(operation?.responses ?? {}).some((status) => /^[23]/.test(status))).toBe(true);
  }
});

test("operation ids are unique names of functions", () => {
  const ids = operations().map(({ operationId }) => operationId);
  expect(new Set(ids).size).toBe(ids.length);
  for (const id of ids) expect(id).toMatch(/^[a-z][a-zA-Z]+$/);
});

test("a route that takes a credential says which, and that it refuses without one", () => {
  for (const route of routes.filter(({ access }) => access !== "public" && access !== "stripe")) {
    const path = route.path.replaceAll(/:(\w+)/g, "{$1}");
    const operation = document.paths[path]?.[route.method === "ALL" ? "post" : route.method.toLowerCase()];
    const schemes = operation?.security.flatMap((each) => Object.keys(each)) ?? [];
    expect(schemes.length, nameOf(route)).toBeGreaterThan(0);
    for (const scheme of schemes) expect(document.components.securitySchemes).toHaveProperty(scheme);
    expect(operation?.responses["401"]?.headers, nameOf(route)).toHaveProperty("WWW-Authenticate");
  }
});

test("a POST takes an Idempotency-Key, or says why a repetition makes no second thing", () => {
  for (const route of routes.filter(({ method }) => method === "POST")) {
    const { repeat } = endpoints[nameOf(route)] ?? {};
    expect({ route: nameOf(route), isSafe: route.takesIdempotencyKey !== (repeat !== undefined) }).toEqual({
      route: nameOf(route),
      isSafe: true,
    });
  }
});

test("every list takes `limit` and `after`, and answers `next`", () => {
  const lists = operations().filter(({ operationId }) => /^list(?!Plans)/.test(operationId));
  expect(lists.length).toBeGreaterThan(10);
  for (const { operationId, parameters, responses } of lists) {
    const names = parameters.filter((each) => each.in === "query").map(({ name }) => name);
    expect(names, operationId).toEqual(expect.arrayContaining(["limit", "after"]));
    expect(responses["200"]?.content?.["application/json"]?.schema.properties, operationId).toHaveProperty("next");
  }
});

test("the pages and the description are served to everyone, whole without script", async () => {
  const description = await get("/openapi.json");
  expect(description.headers.get("content-type")).toContain("application/json");
  expect(await description.json()).toEqual(JSON.parse(JSON.stringify(document)));
  for (const path of ["/docs/api", "/docs/errors"]) {
    const answer = await get(path);
    expect(answer.status, path).toBe(200);
    expect(answer.headers.get("content-type"), path).toContain("text/html");
    const html = await answer.text();
    expect(html, path).toMatch(/^<!doctype html><html lang="en">/);
    expect(html, path).not.toMatch(/<script|<img|<style|\son\w+=|style="/i);
  }
});

test("answers that need no database are what the reference says", async () => {
  const bindings = { PUBLIC_URL, OIDC_ISSUERS: "[]" } as unknown as Env;
  for (const path of ["/plans", "/openapi.json", "/.well-known/oauth-protected-resource/mcp"]) {
    const answer = await app.fetch(new Request(`${PUBLIC_URL}${path}`), bindings);
    const schema = endpoints[`GET ${path}`]?.answers[answer.status];
    expect(schema instanceof z.ZodType && schema.safeParse(await answer.json()).error?.issues, path).toBeUndefined();
  }
});

test("the reference lists every route with who may use it, and each link into the page of error codes has its row", async () => {
  const [reference, codes] = await Promise.all(
    ["/docs/api", "/docs/errors"].map(async (path) => (await get(path)).text()),
  );
  for (const { operationId } of operations()) expect(reference).toContain(`<article id="${operationId}">`);
  const linked = [...(reference ?? "").matchAll(/href="\/docs\/errors#(?<code>\w+)"/g)];
  expect(linked.length).toBeGreaterThan(100);
  for (const { groups } of linked) expect(codes).toContain(` id="${groups?.["code"]}">`);
});

test("the page of error codes has each code, and a problem document links to its own", async () => {
  const html = await (await get("/docs/errors")).text();
  for (const code of Object.keys(errors)) expect(html).toContain(` id="${code}">`);
  expect(html).not.toContain("`");
  expect(await (await get("/nothing")).json()).toMatchObject({ type: `${PUBLIC_URL}/docs/errors#not_found` });
});

test("a retry helps after outages and limits, and not after a refusal of the request itself", () => {
  for (const [code, advice] of Object.entries({
    ...{ rate_limited: "wait", control_unavailable: "wait", internal: "wait", tool_timeout: "wait" },
    ...{ tenant_provisioning: "wait", bad_request: "change", token_expired: "change", billing_refused: "change" },
    ...{ idempotency_keys_exhausted: "change", result_too_large: "change" },
    ...{ secret_missing: "change", secret_in_result: "change" },
    ...{ fetch_refused: "change", fetch_too_large: "change", fetch_failed: "wait", fetch_timeout: "wait" },
    ...{ outcome_unknown: "check", conflict: "check" },
  }))
    expect({ code, advice: retryOf(code as ErrorCode) }).toEqual({ code, advice });
});
