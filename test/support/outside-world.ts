// The outside world of a tool that asks other services: a table of addresses and answers in the place of the network.
import { expect, vi } from "vitest";
import { type Outside, fetchOutside } from "../../src/adapters/tool-fetch.ts";
import type { ToolRequest } from "../../src/tools/tool.ts";

export const HOSTS = ["api.example.com", "*.cdn.example.com", "odd.example.com:8443"];
export const SECRET = "key-of-the-tenant";
/** The bindings of a deployment. */
export const env = {
  DNS_URL: "https://dns.example/query",
  PUBLIC_URL: "https://tollgate.example",
  TOOL_HOSTS_LOCAL: "",
};

interface Sent {
  url: string;
  method: string;
  headers: Headers;
  body: string;
}

/** The outside world: the addresses of names, one list for each look-up, and the answers to requests. */
export function world({
  addresses = {},
  answer = () => new Response("ok"),
}: {
  addresses?: Record<string, string[][]>;
  answer?: (sent: Sent, init: RequestInit) => Response | Promise<Response>;
} = {}) {
  const sent: Sent[] = [];
  const lookedUp: string[] = [];
  vi.spyOn(globalThis, "fetch").mockImplementation(async (input, init = {}) => {
    const url = new URL(input instanceof Request ? input.url : String(input));
    if (url.href.startsWith(env.DNS_URL)) {
      const [name = "", type = ""] = [url.searchParams.get("name"), url.searchParams.get("type")].map(String);
      if (type === "A") lookedUp.push(name);
      const lists = addresses[name] ?? [["93.184.216.34"]];
      const list = lists[Math.min(lookedUp.filter((each) => each === name).length, lists.length) - 1] ?? [];
      const data = list.filter((each) => each.includes(":") === (type === "AAAA"));
      return Response.json({ Status: 0, Answer: data.map((each) => ({ type: type === "A" ? 1 : 28, data: each })) });
    }
    const body = init.body instanceof Uint8Array ? new TextDecoder().decode(init.body) : "";
    const request = { url: url.href, method: init.method ?? "GET", headers: new Headers(init.headers), body };
    sent.push(request);
    expect(init).toMatchObject({ redirect: "manual", cache: "no-store" });
    return answer(request, init);
  });
  return { sent, lookedUp };
}
/** A request of a tool that declares `HOSTS`. */
export function ask(url: string, request: ToolRequest = {}, own: Partial<Outside> = {}): Promise<Response> {
  const outside: Outside = {
    ...{ env, hosts: HOSTS, isReadOnly: true, signal: new AbortController().signal },
    hasSecret: (text) => text.includes(SECRET),
    ...own,
  };
  return fetchOutside(url, request, outside);
}

/** The code and the words of a refusal. */
export async function problemOf(work: Promise<Response>): Promise<{ code: string; message: string; kind: string }> {
  const error: unknown = await work.then(
    (response) => ({ code: `answered ${response.status}` }),
    (thrown: unknown) => thrown,
  );
  const { code, message = "", kind = "" } = error as { code: string; message?: string; kind?: string };
  return { code, message, kind };
}
