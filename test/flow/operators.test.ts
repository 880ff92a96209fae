// The operator's people: real tokens of the local issuer open what their role permits; search over all tenants; an operator who
// acts as a tenant's admin, and what such a credential cannot do.
import { expect, test } from "vitest";
import { aJwt, aTenant, operator, system, until } from "../support/flow.ts";

interface Answer {
  status: number;
  body: Record<string, unknown>;
}

const tokenOf = (role: string | undefined): Promise<string> =>
  aJwt({ sub: `a-${role}`, scope: "admin:global", ...(role !== undefined && { roles: [role] }) });

async function as(token: string, method: string, path: string, body?: unknown): Promise<Answer> {
  const response = await fetch(`${system.publicUrl}${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

test("people of the operator's issuer do what their role permits, and a customer's token opens nothing", async () => {
  const { id } = await aTenant();
  const [viewer, support, admin] = await Promise.all(["viewer", "support", "admin"].map(tokenOf));
  const tenant = `/admin/api/tenants/${id}`;
  for (const token of [viewer, support, admin])
    expect((await as(String(token), "GET", tenant)).body).toMatchObject({ id, state: "active" });
  expect((await as(String(viewer), "GET", tenant)).body).not.toHaveProperty("monitorToken");
  expect((await as(String(support), "GET", tenant)).body).toHaveProperty("monitorToken");
  expect(await as(String(viewer), "POST", `${tenant}/suspend`)).toMatchObject({
    status: 403,
    body: { code: "role_missing", detail: "This needs the role support. You have the role viewer." },
  });
  expect((await as(String(support), "POST", `${tenant}/suspend`)).body).toMatchObject({ state: "suspended" });
  expect((await as(String(support), "POST", `${tenant}/resume`)).body).toMatchObject({ state: "active" });
  expect(await as(String(support), "POST", `${tenant}/keys`, {})).toMatchObject({ status: 403 });
  expect(await as(String(admin), "POST", `${tenant}/keys`, {})).toMatchObject({ status: 201 });

  const customer = await aJwt({ tenant_id: id, scope: "tools:read", roles: ["admin"] });
  expect(await as(customer, "GET", tenant)).toMatchObject({ status: 401 });
  const otherApi = await aJwt({ scope: "admin:global", roles: ["admin"], aud: `${system.publicUrl}/mcp/` });
  expect(await as(otherApi, "GET", tenant)).toMatchObject({ status: 401 });
  // The local issuer also serves scripts, which name no role.
  expect(await as(await tokenOf(undefined), "GET", tenant)).toMatchObject({ status: 200 });
});

test("Cloudflare Access lets a person in, and a use of the operator token is an alarm where it is for emergencies", async () => {
  const team = "https://acme.cloudflareaccess.com";
  const assertion = await aJwt({ iss: team, aud: ["the-aud"], type: "app", sub: "1", email: "ada@example.com" });
  const access = { team, audience: "the-aud", roles: { "ada@example.com": "viewer" } };
  const certsUrl = `${system.issuerUrl}/.well-known/jwks.json`;
  const withVars = async (path: string, vars: unknown, headers: Record<string, string>): Promise<Answer> => {
    const query = new URLSearchParams({ path, vars: JSON.stringify(vars) });
    const response = await fetch(`${system.publicUrl}/test/with-vars?${query.toString()}`, { headers });
    return { status: response.status, body: (await response.json()) as Record<string, unknown> };
  };
  const OPERATOR_ACCESS = JSON.stringify({ ...access, certsUrl });
  const byAccess = await withVars("/admin/api/billing", { OPERATOR_ACCESS }, { "cf-access-jwt-assertion": assertion });
  expect(byAccess).toMatchObject({ status: 200 });
  expect(await withVars("/admin/api/billing", {}, { "cf-access-jwt-assertion": assertion })).toMatchObject({
    status: 401,
  });

  const uses = ({ body }: Answer): unknown =>
    (body["indicators"] as { name: string }[]).find(({ name }) => name === "operatorTokenUses");
  const byToken = { authorization: `Bearer ${system.operatorToken}` };
  expect(uses(await withVars("/admin/api/billing", {}, byToken))).toMatchObject({ value: null, level: "ok" });
  const emergency = { OPERATOR_TOKEN_USE: "break-glass" };
  expect(await withVars("/admin/api/billing", emergency, byToken)).toMatchObject({ status: 200 });
  await expect
    .poll(async () => uses(await withVars("/admin/api/billing", emergency, byToken)), { timeout: 30_000 })
    .toMatchObject({ value: expect.any(Number), level: "warning" });
  const off = { OPERATOR_TOKEN_USE: "off" };
  expect(await withVars("/admin/api/billing", off, byToken)).toMatchObject({ status: 401 });
});

test("tenants are found by a part of name, address or id, and by state, plan, strategy and region", async () => {
  const mark = crypto.randomUUID().slice(0, 8);
  const create = async (body: Record<string, unknown>): Promise<string> =>
    ((await (await operator("POST", "/tenants", { plan: "free", name: "x", ...body })).json()) as { id: string }).id;
  const ids = await Promise.all([
    create({ name: `Söhne & ${mark.toUpperCase()} 100%` }),
    create({ email: `it@${mark}.example` }),
    create({ id: `t-${mark}_x`, plan: "pro" }),
  ]);
  const find = async (query: Record<string, string>): Promise<Answer & { ids: string[] }> => {
    const answer = await as(system.operatorToken, "GET", `/admin/api/tenants?${new URLSearchParams(query).toString()}`);
    const tenants = (answer.body["tenants"] ?? []) as { id: string }[];
    return { ...answer, ids: tenants.map(({ id }) => id) };
  };
  expect((await find({ q: mark })).ids).toEqual(ids.toSorted());
  expect((await find({ q: `söhne & ${mark}` })).ids).toEqual([ids[0]]);
  expect((await find({ q: `@${mark}.EX` })).ids).toEqual([ids[1]]);
  expect((await find({ q: `${mark} 100%` })).ids).toEqual([ids[0]]);
  for (const q of [`${mark}_100`, `${mark}%`, `${mark}\\`, `${mark}' OR '1'='1`])
    expect((await find({ q })).ids, q).toEqual([]);
  expect((await find({ q: mark, plan: "pro" })).ids).toEqual([ids[2]]);
  expect((await find({ q: mark, strategy: "shared" })).ids.toSorted()).toEqual([ids[0], ids[1]].toSorted());
  await until(async () => (await find({ q: mark, state: "active" })).ids.length === 3, "all three are active");
  expect((await find({ q: mark, state: "gone" })).ids).toEqual([]);
  const first = await find({ q: mark, limit: "2" });
  expect([first.ids.length, first.body["next"]]).toEqual([2, first.ids[1]]);
  expect((await find({ q: mark, limit: "2", after: String(first.body["next"]) })).ids).toHaveLength(1);
  const { body } = await find({ region: "atlantis" });
  expect(body).toMatchObject({ code: "bad_request", detail: expect.stringMatching(/^region: must be one of "\S+"/) });
  const region = /"(?<region>[^"]+)"/.exec(String(body["detail"]))?.groups?.["region"] ?? "";
  expect((await find({ q: mark, region })).ids).toEqual(ids.toSorted());
  for (const [name, known] of Object.entries({ state: '"active"', plan: '"pro"', strategy: '"schema"' }))
    expect((await find({ [name]: "made-up" })).body).toMatchObject({
      ...{ code: "bad_request", detail: expect.stringMatching(new RegExp(`^${name}: must be one of .*${known}`)) },
    });
});

test("an impersonation acts for a tenant for ten minutes, and is refused on the request after its end", async () => {
  const [tenant, other] = await Promise.all([aTenant(), aTenant()]);
  const support = await aJwt({ sub: "sam", name: "Sam", scope: "admin:global", roles: ["support"] });
  const path = `/admin/api/tenants/${tenant.id}/impersonations`;
  expect(await as(support, "POST", path, {})).toMatchObject({ status: 400 });
  expect(await as(await tokenOf("viewer"), "POST", path, { reason: "curious" })).toMatchObject({ status: 403 });
  const started = await as(support, "POST", path, { reason: "Ticket 4711" });
  expect(started).toMatchObject({
    status: 201,
    body: { tenantId: tenant.id, reason: "Ticket 4711", operator: { id: "sam", name: "Sam", through: "oidc" } },
  });
  const { token, id, expiresAt } = started.body as { token: string; id: string; expiresAt: string };
  const leftMs = Date.parse(expiresAt) - Date.now();
  expect(leftMs).toBeGreaterThan(9 * 60_000);
  expect(leftMs).toBeLessThanOrEqual(10 * 60_000);

  const own = `/api/tenants/${tenant.id}`;
  for (const read of ["", "/usage", "/plan", "/configuration", "/status"])
    expect(await as(token, "GET", own + read), read).toMatchObject({ status: 200 });
  expect(await as(token, "PATCH", own, { name: "Renamed by support" })).toMatchObject({ status: 200 });

  const running = async (at: string): Promise<unknown[]> =>
    ((await as(support, "GET", at)).body["impersonations"] as { id: string }[]).map((each) => each.id);
  expect(await running(path)).toEqual([id]);
  expect(await running("/admin/api/impersonations?limit=100")).toContain(id);
  expect(await as(support, "DELETE", `/admin/api/tenants/${other.id}/impersonations/${id}`)).toMatchObject({
    status: 404,
  });
  expect(await as(token, "GET", own)).toMatchObject({ status: 200 });
  expect(await as(support, "DELETE", `${path}/${id}`)).toMatchObject({
    status: 200,
    body: { endedAt: expect.any(String) },
  });
  expect(await as(token, "GET", own)).toMatchObject({ status: 401, body: { code: "token_expired" } });
  expect(await running(path)).toEqual([]);
});
