// A tool's secrets: who sets each one, what a tool may read, and that no value leaves the call.
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import * as z from "zod";
import { encryptSecret } from "../../src/control/encrypted-logins-store.ts";
import type { CallOutcome, ContentBlock } from "../../src/core/call.ts";
import { AppError, ToolProblem } from "../../src/core/errors.ts";
import { SecretValue, tenantSecretPurpose } from "../../src/core/tenant/tool-secrets.ts";
import { CallSecrets } from "../../src/tools/call-secrets.ts";
import { catalogue } from "../../src/tools/catalogue.ts";
import { type Tool, type ToolContext, type ToolFailure, type ToolResult, defineTool } from "../../src/tools/tool.ts";
import { config, request, startHost, tenantId } from "../support/call-host.ts";

const SECRET = 'pä55/+word "of" & ten';
const OPERATORS = "operators-own-value";
const KEYS = JSON.stringify([{ id: "k1", secret: "the encryption key of the tests, which is long" }]);

let lines: string[];
beforeEach(() => {
  lines = [];
  for (const level of ["info", "warn", "error"] as const)
    vi.spyOn(console, level).mockImplementation((line: string) => void lines.push(line));
});
afterEach(() => {
  vi.restoreAllMocks();
  (catalogue as Map<string, Tool>).delete("use_secret");
});

const textIn = (content: readonly ContentBlock[]): string =>
  content.flatMap((block) => (block.type === "text" ? [block.text] : [])).join("");

type Run = (context: ToolContext) => Promise<ToolResult<{ text: string }> | ToolFailure>;

/** One call of a tool that does this. */
async function callThat(
  run: Run,
  {
    secrets,
    operator = OPERATORS,
    declared = ["shipping_api_key", "carrier_account"],
  }: {
    secrets?: Record<string, string>;
    operator?: string | undefined;
    declared?: string[];
  } = {},
) {
  const tool = defineTool({
    ...{ name: "use_secret", title: "Use a secret", description: "Uses one.", units: 1, scopes: ["tools:read"] },
    secrets: declared,
    input: z.strictObject({}),
    output: z.strictObject({ text: z.string() }),
    annotations: { readOnly: true, idempotent: true, destructive: false },
    failed: (result) => "isError" in result,
    run: (_input, context) => run(context),
  });
  (catalogue as Map<string, Tool>).set(tool.name, tool);
  const purpose = tenantSecretPurpose(tenantId, "shipping_api_key");
  const own = secrets ?? { shipping_api_key: await encryptSecret({ ENCRYPTION_KEYS: KEYS }, purpose, SECRET) };
  const host = startHost({
    host: {
      tenant: () => ({ ...config, secrets: own }),
      env: {
        FILES: {} as never,
        PUBLIC_URL: "https://x.example",
        ENCRYPTION_KEYS: KEYS,
        carrier_account: operator,
      } as never,
    },
  });
  const outcome: CallOutcome = await host.call({ ...request, tool: tool.name, args: {} });
  const text = outcome.kind === "result" ? textIn(outcome.content) : JSON.stringify(outcome);
  return { outcome, text, charges: host.charges.length };
}

test("a tool reads the tenant's secret and the operator's", async () => {
  let read: string[] = [];
  const { charges } = await callThat(async ({ secrets }) => {
    read = [await secrets.get("shipping_api_key"), await secrets.get("carrier_account")];
    return { data: { text: "done" } };
  });
  expect(read).toEqual([SECRET, OPERATORS]);
  expect(charges).toBe(1);
});

test.each([
  ["the tenant has not set", "shipping_api_key", { secrets: {} }, "sets it at https://x.example/app/acme/secrets."],
  ["the operator has not set", "carrier_account", { operator: "" }, "Ask support: support@example.com."],
])("a secret that %s fails the call with its name and who sets it, and costs nothing", async (_, name, more, where) => {
  const { outcome, text, charges } = await callThat(async ({ secrets }) => {
    await secrets.get(name);
    return { data: { text: "done" } };
  }, more);
  expect(outcome).toMatchObject({ kind: "result", isError: true, failure: "secret_missing", receipt: undefined });
  expect(text).toMatch(/^secret_missing: .*The call was not charged\./);
  expect(text).toContain(name);
  expect(text).toContain(where);
  expect(charges).toBe(0);
});

test("a tool reads no secret that it does not declare, and none of Tollgate's own", async () => {
  for (const name of ["carrier_account", "ENCRYPTION_KEYS", "PUBLIC_URL", "__proto__", "toString"]) {
    const { outcome } = await callThat(async ({ secrets }) => ({ data: { text: await secrets.get(name) } }), {
      declared: ["shipping_api_key"],
    });
    expect(outcome, name).toMatchObject({ isError: true, failure: "tool_failed" });
  }
  expect(lines.join("\n")).toContain("does not declare");
});

test("a value that was encrypted for another tenant or another name is no secret of this one", async () => {
  for (const purpose of [
    tenantSecretPurpose("other" as typeof tenantId, "shipping_api_key"),
    "tenant_secret:acme:other",
  ]) {
    const shipping_api_key = await encryptSecret({ ENCRYPTION_KEYS: KEYS }, purpose, SECRET);
    const { outcome, text } = await callThat(
      async ({ secrets }) => ({ data: { text: await secrets.get("shipping_api_key") } }),
      { secrets: { shipping_api_key } },
    );
    expect(outcome).toMatchObject({ failure: "tool_failed" });
    expect(text).not.toContain("decrypt");
  }
});

const inBase64 = (text: string): string => Buffer.from(text).toString("base64");
const after =
  (then: (value: string, context: ToolContext) => Awaited<ReturnType<Run>>): Run =>
  async (context) =>
    then(await context.secrets.get("shipping_api_key"), context);

test.each<[string, Run]>([
  ["in the text", after((value) => ({ data: { text: "" }, text: `The key is ${value}.` }))],
  ["in the data", after((value) => ({ data: { text: value } }))],
  ["in a failure's text", after((value) => ({ isError: true, text: `${value} is wrong` }))],
  ["in base64", after((value) => ({ data: { text: inBase64(value) } }))],
  ["in base64 after one byte", after((value) => ({ data: { text: inBase64(`:${value}`) } }))],
  ["in base64 between bytes", after((value) => ({ data: { text: inBase64(`u:${value} and more`) } }))],
  [
    "in a question to the person",
    async (context) => {
      const message = `Is ${await context.secrets.get("shipping_api_key")} right?`;
      await context.ask({ message, schema: z.strictObject({ ok: z.boolean().describe("Yes") }) });
      return { data: { text: "" } };
    },
  ],
  [
    "in the bytes of a resource",
    after((value) => ({
      data: { text: "" },
      content: [{ type: "resource", resource: { uri: "x:1", blob: new TextEncoder().encode(`key: ${value}.`) } }],
    })),
  ],
  ["in a URL", after((value) => ({ data: { text: `https://x.example/?key=${encodeURIComponent(value)}` } }))],
  ["in JSON", after((value) => ({ data: { text: JSON.stringify({ value }) } }))],
])("a result that has a secret %s fails the call, is not charged and does not leave", async (_, run) => {
  const { outcome, text, charges } = await callThat(run);
  expect(outcome).toMatchObject({ isError: true, failure: "secret_in_result", data: undefined, receipt: undefined });
  expect(charges).toBe(0);
  for (const form of [SECRET, inBase64(SECRET), encodeURIComponent(SECRET)])
    expect([text, ...lines].join("\n")).not.toContain(form);
  expect(lines.join("\n")).toContain("secret_in_result");
});

test("a log line and the logged error of a failed tool have no value that the call has read", async () => {
  const short = "k-7";
  const purpose = tenantSecretPurpose(tenantId, "shipping_api_key");
  for (const value of [SECRET, short]) {
    const shipping_api_key = await encryptSecret({ ENCRYPTION_KEYS: KEYS }, purpose, value);
    const { text } = await callThat(
      async (context) => {
        context.log("before", { note: "no secret was read yet" });
        const key = await context.secrets.get("shipping_api_key");
        context.log(`used ${key}`, { key, url: `https://x.example/${encodeURIComponent(key)}`, [key]: 1, ok: true });
        throw new AppError("database_unavailable", `no access with ${key}`);
      },
      { secrets: { shipping_api_key } },
    );
    expect(text).toMatch(/^database_unavailable/);
    const logged = lines.join("\n");
    expect(logged).toContain("used [secret]");
    expect(logged).toContain("no access with [secret]");
    expect(logged).toContain('"ok":true');
    for (const form of [value, JSON.stringify(value).slice(1, -1), encodeURIComponent(value)])
      expect(logged).not.toContain(form);
  }
});

test("a problem that a tool explains reaches the client without the value", async () => {
  const { text } = await callThat(
    after((value) => {
      throw new ToolProblem("secret_missing", `${value} was refused by the service.`, "permanent");
    }),
  );
  expect(text).toContain("[secret] was refused by the service.");
});

test("a short value appears in results by chance, and fails none", () => {
  const secrets = new CallSecrets({ name: "t", secrets: ["pin"] }, async () => "1234567");
  return secrets.get("pin").then(() => {
    expect(secrets.isIn({ order: 1234567, text: "1234567" })).toBe(false);
    expect(secrets.hide("order 1234567")).toBe("order [secret]");
    expect(secrets.hasAny("Bearer 1234567")).toBe(true);
  });
});

test("a value that nothing has read is not searched for, and each is read once", async () => {
  let reads = 0;
  const secrets = new CallSecrets({ name: "t", secrets: ["key"] }, async () => `value-number-${(reads += 1)}`);
  expect(secrets.isIn("value-number-1")).toBe(false);
  expect([await secrets.get("key"), await secrets.get("key"), reads]).toEqual(["value-number-1", "value-number-1", 1]);
  expect(secrets.isIn({ a: [{ b: "x value-number-1 y" }] })).toBe(true);
  expect(secrets.isIn({ "value-number-1": 1 })).toBe(true);
});

test.each([
  ["", false],
  ["  ", false],
  ["a", true],
  ["ä".repeat(2_048), true],
  ["ä".repeat(2_049), false],
])("a secret has 1 to 4,096 bytes: %#", (value, isTaken) => {
  expect(SecretValue.safeParse(value).success).toBe(isTaken);
});

test("white space around a value is dropped, and a key in several lines stays as it is", () => {
  expect(SecretValue.parse(" key\n")).toBe("key");
  expect(SecretValue.parse("-----BEGIN KEY-----\nMIIB\n-----END KEY-----\n")).toBe(
    "-----BEGIN KEY-----\nMIIB\n-----END KEY-----",
  );
});
