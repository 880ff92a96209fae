import { afterAll, beforeAll, expect, onTestFinished, test, vi } from "vitest";
import type { app as App } from "../../src/routes.ts";
import { appFetch } from "../support/app-requests.ts";

// Classes of the platform, which exist only in workerd.
vi.mock("cloudflare:workers", () => ({ DurableObject: Object, WorkflowEntrypoint: Object, RpcTarget: Object }));
vi.mock("cloudflare:workflows", () => ({ NonRetryableError: Error }));

const env = {
  OPERATOR_TOKEN: "operator-token-of-this-test",
  OPERATOR_TOKEN_USE: "normal",
  PUBLIC_URL: "http://127.0.0.1:8787",
  CONTROL_DATABASE_URL: "postgres://service:secret@away.example/control",
  NEON_FETCH_ENDPOINT: "https://away.example/sql",
};
let app: typeof App;
let records = 0;
beforeAll(async () => {
  ({ app } = await import("../../src/routes.ts"));
  const asked = vi.spyOn(globalThis, "fetch").mockImplementation(async (_, init) => {
    if (typeof init?.body === "string" && init.body.includes("INTO audit_events")) records += 1;
    throw new TypeError("away");
  });
  afterAll(() => asked.mockRestore());
});

test("a request whose record fails leaves attempts behind", async () => {
  const request = new Request(`${env.PUBLIC_URL}/admin/api/dead-letters/dismiss`, {
    method: "POST",
    headers: { authorization: `Bearer ${env.OPERATOR_TOKEN}`, "content-type": "application/json" },
    body: `{"ids":["1"]}`,
  });
  expect((await appFetch(app, request, env)).status).toBe(503);
  await vi.waitFor(() => expect(records).toBe(1));
});

test("late work of a request ends with its test", async () => {
  // All attempts, of which the last would come 10 seconds later.
  expect(records).toBe(4);
  vi.useFakeTimers({ toFake: ["setTimeout"] });
  onTestFinished(() => void vi.useRealTimers());
  await new Promise((resolve) => setImmediate(resolve));
  expect(vi.getTimerCount()).toBe(0);
});
