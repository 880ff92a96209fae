// The consent form: who may submit it, and what a second submission gets.
import { expect, test } from "vitest";
import { toBase64Url } from "../../src/core/keys/credentials.ts";
import { type ClaimPort, bindingOf, isBound, isOwnForm, submitOnce } from "../../src/identity/oauth/consent.ts";
import { RegistryEntries } from "../../src/identity/oauth/entries.ts";
import { newSessionToken, sessionCookie, sessionTokenOf } from "../../src/identity/sessions/sessions.ts";
import { safePath } from "../../src/pages/sign-in/sign-in.tsx";
import { sqlitePort } from "../support/sqlite-port.ts";

const PUBLIC_URL = "https://tollgate.example";

test.each<[origin: string | undefined, site: string | undefined, isOwn: boolean]>([
  [PUBLIC_URL, undefined, true],
  [PUBLIC_URL, "cross-site", true], // the browser's word about the origin counts
  ["https://evil.example", "same-origin", false],
  ["https://tollgate.example.evil.example", undefined, false],
  ["http://tollgate.example", undefined, false],
  ["https://tollgate.example:8443", undefined, false],
  ["null", undefined, false],
  ["null", "same-origin", true], // a browser that hides the origin
  ["null", "cross-site", false],
  [undefined, "same-origin", true],
  [undefined, "same-site", false],
  [undefined, "none", false],
  [undefined, undefined, false],
])("a form with Origin %s and Sec-Fetch-Site %s is ours: %s", (origin, site, isOwn) => {
  expect(isOwnForm(PUBLIC_URL, { origin, site })).toBe(isOwn);
});

const aHandle = (): string => toBase64Url(crypto.getRandomValues(new Uint8Array(32)));

test("a form fits only to its handle and the session that saw it", async () => {
  const [handle, token] = [aHandle(), newSessionToken()];
  const binding = await bindingOf(handle, token);
  expect(await isBound(binding, handle, token)).toBe(true);
  expect(await isBound(binding, handle, newSessionToken())).toBe(false);
  expect(await isBound(binding, aHandle(), token)).toBe(false);
  expect(await isBound("", handle, token)).toBe(false);
});

function registryPorts() {
  const entries = new RegistryEntries(sqlitePort(), () => Date.now());
  const port: ClaimPort = {
    claim: async (key, entry) => entries.claim(key, entry),
    get: async (key) => entries.get(key),
    put: async (key, entry) => entries.put(key, entry),
    delete: async (key) => entries.delete(key),
  };
  const wait = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  return { ports: { registry: () => port, now: () => Date.now(), wait }, entries };
}

test("a form that is submitted twice, also at once, does its work once and answers the same", async () => {
  const { ports } = registryPorts();
  const handle = aHandle();
  let runs = 0;
  const work = async (): Promise<string> => {
    runs += 1;
    await new Promise((resolve) => setTimeout(resolve, 5));
    return "https://client.example/callback?code=c";
  };
  // The second one polls while the first one works.
  const patient = { ...ports, wait: () => new Promise<void>((resolve) => setTimeout(resolve, 5)) };
  const both = await Promise.all([submitOnce(patient, handle, work), submitOnce(patient, handle, work)]);
  const third = await submitOnce(ports, handle, work);
  expect([...both, third]).toEqual(Array(3).fill("https://client.example/callback?code=c"));
  expect(runs).toBe(1);
});

test("a submission that fails leaves the form usable, and one that never answers gives the next one none", async () => {
  const { ports } = registryPorts();
  const handle = aHandle();
  await expect(submitOnce(ports, handle, () => Promise.reject(new Error("an outage")))).rejects.toThrow("an outage");
  expect(await submitOnce(ports, handle, async () => "done")).toBe("done");
  const silent = aHandle();
  void submitOnce(ports, silent, () => new Promise(() => undefined));
  await new Promise((resolve) => setTimeout(resolve, 10));
  expect(await submitOnce(ports, silent, async () => "second")).toBeUndefined();
});

test("the stored answer has nothing that a reader of the registry can use, and made-up handles store nothing", async () => {
  const stored: string[] = [];
  const { ports, entries } = registryPorts();
  const spying = {
    ...ports.registry(),
    put: async (key: string, entry: { value: string }) => void stored.push(key, entry.value),
  };
  await submitOnce({ ...ports, registry: () => spying }, aHandle(), async () => "https://client.example/?code=secret");
  expect(stored.join(" ")).not.toContain("secret");
  for (const handle of ["", "x", `${aHandle()}x`, "../../grant"])
    expect(await submitOnce(ports, handle, async () => "done")).toBeUndefined();
  expect(entries.get("consent:")).toBeNull();
});

test.each([
  ["/app", "/app"],
  ["/app?tab=keys", "/app?tab=keys"],
  ["//evil.example", "/sign-in"],
  ["/\\evil.example", "/sign-in"],
  ["/app\\..", "/sign-in"],
  ["https://evil.example", "/sign-in"],
  ["javascript:alert(1)", "/sign-in"],
  ["/a\r\nset-cookie: x", "/sign-in"],
  ["", "/sign-in"],
  [undefined, "/sign-in"],
])("a sign-in that asks to return to %j returns to %s", (asked, path) => {
  expect(safePath(asked)).toBe(path);
});

test("a session's cookie cannot be set by another host, read by script or sent by another site's form", () => {
  const token = newSessionToken();
  const cookie = sessionCookie(token);
  expect(cookie).toMatch(/^__Host-/);
  for (const part of ["Secure", "HttpOnly", "SameSite=Lax", "Path=/"]) expect(cookie.split("; ")).toContain(part);
  expect(cookie).not.toMatch(/domain/i);
  expect(sessionTokenOf(`other=1; ${cookie.split(";")[0]}; last=2`)).toBe(token);
  for (const header of [
    undefined,
    "",
    "__Host-tollgate-session=",
    "__Host-tollgate-session=short",
    `tollgate-session=${token}`,
    `__Host-tollgate-session=${token}=`,
    `__Host-tollgate-session=${token}=x`,
    `__Host-tollgate-session="${token}"`,
    `x__Host-tollgate-session=${token}`,
  ])
    expect(sessionTokenOf(header)).toBeUndefined();
});
