// Enterprise-managed authorization: a client that the organisation's provider vouches for gets a token without a browser, for a member
// of that organisation who has signed in once, and no other.
import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { childEnvironment } from "../../dev/child-environment.ts";
import { vouchedAgent } from "../../dev/id-jag-agent.ts";
import { servedAt } from "../../dev/issuer/public-names.ts";
import { callTool, operator, system } from "../support/flow.ts";
import { aCompany, providerPath, setProvider, signInAt } from "../support/own-providers.ts";
import { anOwnedTenant, send } from "../support/people.ts";
import { Browser, aPerson } from "../support/sign-in.ts";

const anAgentAt = (issuer: string) =>
  vouchedAgent({
    publicUrl: system.publicUrl,
    providerUrl: servedAt(issuer, system.issuerUrl) ?? "",
    browser: () => new Browser(),
  });

test("a client gets a token by the organisation's assertion, until the member or the provider is removed", async () => {
  const { tenant, issuer, domain, slug } = await aCompany();
  const sub = await aPerson([], { email: `ada-${randomUUID()}@${domain}` });
  const agent = await anAgentAt(issuer);

  // The provider vouches for a person whom Tollgate does not know yet.
  expect(await agent.exchange(await agent.assertionOf(sub))).toMatchObject({ status: 400, error: "invalid_grant" });
  await signInAt(slug, sub);
  const assertion = await agent.assertionOf(sub);
  const { status, access } = await agent.exchange(assertion);
  expect([status, access.startsWith(`tgo_${tenant.id}.`)]).toEqual([200, true]);
  expect((await callTool(access, "get_usage")).isError).toBeFalsy();
  expect(await agent.exchange(assertion)).toMatchObject({ status: 400, error: "invalid_grant" });
  // The admins see the grant and the act.
  const { grants } = (await (await send("GET", `/api/tenants/${tenant.id}/grants`, tenant.ownerToken)).json()) as {
    grants: { clientName: string; memberId: string }[];
  };
  expect(grants).toEqual([expect.objectContaining({ clientName: "An agent", scopes: ["tools:read"] })]);
  await expect
    .poll(async () => (await send("GET", `/api/tenants/${tenant.id}/audit`, tenant.ownerToken)).text())
    .toContain("assertion.grant");

  const memberId = grants[0]?.memberId ?? "";
  const next = await agent.assertionOf(sub);
  expect((await operator("DELETE", `/tenants/${tenant.id}/members/${memberId}`)).status).toBe(200);
  await expect(callTool(access, "get_usage")).rejects.toThrow("401");
  expect(await agent.exchange(next)).toMatchObject({ status: 400, error: "invalid_grant" });

  const other = await aPerson([], { email: `bo-${randomUUID()}@${domain}` });
  await signInAt(slug, other);
  const second = await agent.exchange(await agent.assertionOf(other));
  expect((await callTool(second.access, "get_usage")).isError).toBeFalsy();
  const last = await agent.assertionOf(other);
  expect((await send("DELETE", providerPath(tenant), tenant.ownerToken)).status).toBe(200);
  await expect(callTool(second.access, "get_usage")).rejects.toThrow("401");
  expect(await agent.exchange(last)).toMatchObject({ status: 400, error: "invalid_grant" });
});

test("an organisation's assertion opens no other organisation, and none where it is not switched on", async () => {
  const [own, other] = [await aCompany(), await aCompany({ idJag: false })];
  const agent = await anAgentAt(own.issuer);
  const otherAgent = await anAgentAt(other.issuer);
  // The same person, a member of the other organisation alone.
  const sub = await aPerson([], { email: `eve-${randomUUID()}@${other.domain}` });
  await signInAt(other.slug, sub);
  expect(await agent.exchange(await agent.assertionOf(sub))).toMatchObject({ status: 400, error: "invalid_grant" });
  expect(await otherAgent.exchange(await otherAgent.assertionOf(sub))).toMatchObject({ error: "invalid_grant" });
  // Switched on, with the same people: no sign-in is needed again.
  await setProvider(other.tenant, { ...other.settings, idJag: true });
  const { access } = await otherAgent.exchange(await otherAgent.assertionOf(sub));
  expect(access.startsWith(`tgo_${other.tenant.id}.`)).toBe(true);
  // Assertions for another server or client, and of another agent's client.
  for (const more of [{ audience: "https://other.example" }, { audience_client_id: "another" }])
    expect((await otherAgent.exchange(await otherAgent.assertionOf(sub, more))).status).toBe(400);
  expect((await agent.exchange(await otherAgent.assertionOf(sub))).status).toBe(400);
});

/** Runs `npm run demo:id-jag` for a tenant of this system. */
async function demonstrate(tenant: { id: string }): Promise<{ code: unknown; output: string }> {
  const dir = await mkdtemp(join(tmpdir(), "tollgate-id-jag-"));
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  const demo = {
    ...{ baseUrl: system.publicUrl, operator: { token: system.operatorToken }, issuer: { url: system.issuerUrl } },
    tenants: [{ id: tenant.id, name: "Acme" }],
  };
  await writeFile(join(dir, "demo.json"), JSON.stringify(demo), { mode: 0o600 });
  const root = resolve(import.meta.dirname, "../..");
  const args = ["--import", join(root, "cli/register-app.ts"), join(root, "dev/demo-id-jag.ts")];
  return new Promise((done) => {
    execFile(process.execPath, args, { cwd: root, env: childEnvironment({ TOLLGATE_DIR: dir }) }, (error, out, err) =>
      done({ code: error === null ? 0 : error.code, output: out + err }),
    );
  });
}

test("npm run demo:id-jag shows it on a running system, twice, and leaves no provider", async () => {
  const tenant = await anOwnedTenant();
  for (const run of ["first", "second"]) {
    const { code, output } = await demonstrate(tenant);
    expect(code, `${run}: ${output}`).toBe(0);
    for (const words of [
      "refused: invalid_grant",
      `tgo_${tenant.id}`.slice(0, 12),
      "Plan free.",
      "the next call with the same token is refused: 401",
    ])
      expect(output).toContain(words);
  }
  expect((await operator("GET", `/tenants/${tenant.id}/provider`)).status).toBe(404);
  // A provider that the tenant has set up is not replaced.
  const { tenant: other } = await aCompany();
  expect(await demonstrate(other)).toMatchObject({ code: 2, output: expect.stringContaining("has a provider") });
});
