// What a failed call tells about its cause: everything to a developer on the own machine, nothing in a deployment.
import { expect, test, vi } from "vitest";
import { SqlError } from "../../src/adapters/neon.ts";
import { type CallHost } from "../../src/calls/run-call.ts";
import { isLoopback } from "../../src/core/text/web-url.ts";
import { rowsThat, startHost } from "../support/call-host.ts";

const FILES = { list: async () => ({ objects: [], truncated: false }) } as never;
const postgres = Object.assign(new Error('relation "reminders" does not exist'), { hint: "Create it." });
const failing = (PUBLIC_URL: string, error: Error) => {
  const host: Partial<CallHost> = {
    env: { FILES, PUBLIC_URL, ENCRYPTION_KEYS: "", DNS_URL: "", TOOL_HOSTS_LOCAL: "" },
    rows: rowsThat(() => Promise.reject(error)),
  };
  return startHost({ host });
};

test.each(["http://127.0.0.1:8787", "http://localhost:8787", "http://[::1]:8787"])(
  "on %s a failed statement tells PostgreSQL's words, and is not charged",
  async (publicUrl) => {
    const warn = vi.spyOn(console, "warn").mockImplementation(() => undefined);
    const { call, charges } = failing(publicUrl, new SqlError("42P01", undefined, postgres));
    const outcome = await call();
    expect(outcome).toMatchObject({ kind: "result", failure: "tool_failed", receipt: undefined });
    expect(JSON.stringify(outcome)).toContain(
      String.raw`PostgreSQL: relation \"reminders\" does not exist (SQLSTATE 42P01). Hint: Create it.`,
    );
    expect(charges).toEqual([]);
    // The log never quotes it.
    expect(JSON.stringify(warn.mock.calls)).not.toContain("reminders");
    warn.mockRestore();
  },
);

test.each([
  "https://tools.example.com",
  "https://127.0.0.1.example.com",
  "https://localhost.example.com",
  "http://10.0.0.1",
])("on %s a failed call tells neither PostgreSQL's words nor an exception's", async (publicUrl) => {
  const warn = vi.spyOn(console, "warn").mockImplementation(() => undefined);
  for (const error of [new SqlError("42P01", undefined, postgres), new Error("reminders of Acme")]) {
    const outcome = await failing(publicUrl, error).call();
    expect(outcome).toMatchObject({
      content: [{ text: "tool_failed: The tool failed and was not charged. Trying again may help." }],
    });
  }
  warn.mockRestore();
});

test("an exception of the tool's own is told on the own machine, too", async () => {
  const warn = vi.spyOn(console, "warn").mockImplementation(() => undefined);
  const outcome = await failing("http://127.0.0.1:1", new RangeError("limit of -1")).call();
  expect(outcome).toMatchObject({ content: [{ text: expect.stringContaining("RangeError: limit of -1") as unknown }] });
  warn.mockRestore();
});

test("only the names of the loopback interface are the own machine", () => {
  expect(["http://127.0.0.1:1", "https://localhost/x", "http://[::1]"].every(isLoopback)).toBe(true);
  expect(["https://example.com", "http://localhost@example.com", "no url", ""].some(isLoopback)).toBe(false);
});
