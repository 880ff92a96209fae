// `npm run demo:id-jag`: an agent calls a tool by the word of its person's organisation (ID-JAG), on the system that `npm start` runs. A
// customer of the demonstration gets a provider of its own for it, with a public name that the local issuer serves.
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import * as z from "zod";
import { readFlags, refuse } from "../cli/flags.ts";
import { PlainBrowser } from "../test/support/plain-browser.ts";
import { registerClient, vouchedAgent } from "./id-jag-agent.ts";
import { publicIssuer, servedAt } from "./issuer/public-names.ts";

const command = "npm run demo:id-jag";
const { values: flags } = readFlags({
  command,
  help: `
npm run demo:id-jag [-- FLAGS]   an agent without a browser, on the system that npm start runs

A customer of the demonstration gets a provider of its own that vouches for agents. A person signs in there once. From then on their
agent exchanges the provider's assertions for tokens, and calls a tool. At the end the provider is removed, and the call is refused.

  --tenant ID   the customer (the first one)
  --keep        leaves the provider, to look at it at /app
  --help        this text

TOLLGATE_DIR (.dev) names the system.`,
  flags: { tenant: { type: "string" }, keep: { type: "boolean", default: false } },
});

const Demo = z.object({
  baseUrl: z.url(),
  operator: z.object({ token: z.string() }),
  tenants: z.array(z.object({ id: z.string(), name: z.string() })),
  issuer: z.object({ url: z.url() }).optional(),
});
const Provider = z.object({
  slug: z.string(),
  domains: z.array(z.object({ record: z.object({ name: z.string(), value: z.string() }) })),
});
const Called = z.object({ result: z.object({ content: z.array(z.object({ text: z.string() })) }) });

const print = (line: string): void => void process.stdout.write(`${line}\n`);
const done = (what: string, detail: string): void => print(`  ✓ ${what.padEnd(34)} ${detail}`);

const demo = readDemo();
const { baseUrl, issuer } = demo;
if (issuer === undefined) refuse(command, "Real providers replace the local issuer in .dev.vars");
const tenant = flags.tenant === undefined ? demo.tenants[0] : demo.tenants.find(({ id }) => id === flags.tenant);
if (tenant === undefined) refuse(command, "The demonstration has no such customer");
await demonstrate(tenant, issuer.url);

function readDemo(): z.infer<typeof Demo> {
  const file = join(resolve(process.env["TOLLGATE_DIR"] ?? ".dev"), "demo.json");
  try {
    return Demo.parse(JSON.parse(readFileSync(file, "utf8")));
  } catch {
    return refuse(command, `${file} is not there, so no system runs: start it with npm start`);
  }
}

/** Asks the operator's API. Throws when the answer's status is another one than `expected`. */
async function operator(method: string, path: string, expected: number, body?: unknown): Promise<unknown> {
  const response = await fetch(`${baseUrl}/admin/api${path}`, {
    method,
    headers: { authorization: `Bearer ${demo.operator.token}`, "content-type": "application/json" },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  if (response.status !== expected) throw new Error(`${method} ${path} answered ${response.status}: ${text}`);
  return text === "" ? undefined : JSON.parse(text);
}

async function put(url: string, body: unknown): Promise<void> {
  const headers = { "content-type": "application/json" };
  const response = await fetch(url, { method: "PUT", headers, body: JSON.stringify(body) });
  await response.body?.cancel();
  if (!response.ok) throw new Error(`PUT ${url} answered ${response.status}`);
}

async function demonstrate({ id, name }: { id: string; name: string }, issuerUrl: string): Promise<void> {
  const path = `/tenants/${id}/provider`;
  await operator("GET", path, 404).catch(() =>
    refuse(command, `${name} has a provider of its own, which this would replace: DELETE /admin/api${path} removes it`),
  );
  const publicName = publicIssuer(id);
  const providerUrl = servedAt(publicName, issuerUrl) ?? "";
  const domain = `${id}.example`;

  print(`${name} (${id}) and its agent`);
  const own = await registerClient(`${providerUrl}/register`, "Tollgate", `${baseUrl}/oauth/callback`);
  const settings = { kind: "oidc", issuer: publicName, ...own, domains: [domain], idJag: true };
  const { slug, domains } = Provider.parse(await operator("PUT", path, 200, settings));
  done("a provider of its own", `${publicName}, with "idJag": true`);
  try {
    for (const { record } of domains) await put(`${issuerUrl}/dns/names/${record.name}`, [record.value]);
    await operator("POST", `${path}/domains`, 200);
    done("a proved domain", `${domain}, by a TXT record of the local DNS`);

    const sub = `nora-${id}`;
    await put(`${issuerUrl}/people/${sub}`, { name: "Nora Berg", email: `nora@${domain}` });
    const browser = new PlainBrowser({ publicUrl: baseUrl, issuerUrl });
    const agent = await vouchedAgent({ publicUrl: baseUrl, providerUrl, browser: () => browser });
    const early = await agent.exchange(await agent.assertionOf(sub));
    if (early.status !== 400) throw new Error(`An assertion for an unknown person was answered with ${early.status}.`);
    done("before the first sign-in", `the assertion is refused: ${early.error}`);

    await browser.signIn(`${baseUrl}/sign-in?organisation=${slug}`, { sub });
    done("Nora signs in once", `${baseUrl}/sign-in?organisation=${slug}`);
    const { access, scope, lifetimeS, status, error } = await agent.exchange(await agent.assertionOf(sub));
    if (status !== 200) throw new Error(`The assertion was answered with ${status}: ${error}`);
    done(
      "the agent exchanges an assertion",
      `${access.slice(0, 12)}…, ${scope}, for ${lifetimeS} s, without a browser`,
    );
    const called = await call(access);
    if (called.status !== 200) throw new Error(`The call was answered with ${called.status}: ${called.text}`);
    done("it calls get_usage", called.text);
    if (flags.keep) {
      print(`\nThe provider stays. DELETE /admin/api${path} removes it.`);
      return;
    }
    await operator("DELETE", path, 200);
    const after = await call(access);
    if (after.status !== 401) throw new Error(`After the provider's end the call was answered with ${after.status}.`);
    done("the provider is removed", "the next call with the same token is refused: 401");
  } catch (error) {
    await operator("DELETE", path, 200).catch(() => undefined);
    throw error;
  }
}

/** One call of a tool. The older MCP revision answers a single request. */
async function call(token: string): Promise<{ status: number; text: string }> {
  const response = await fetch(`${baseUrl}/mcp`, {
    method: "POST",
    headers: {
      ...{ authorization: `Bearer ${token}`, "content-type": "application/json" },
      accept: "application/json, text/event-stream",
    },
    body: JSON.stringify({
      ...{ jsonrpc: "2.0", id: 1, method: "tools/call" },
      params: { name: "get_usage", arguments: {} },
    }),
  });
  if (!response.ok) return { status: response.status, text: await response.text() };
  const [content] = Called.parse(await response.json()).result.content;
  const sentences = content?.text.split(/(?<=\.)\s/) ?? [];
  return { status: response.status, text: sentences.slice(0, 2).join(" ") };
}
