// A tenant's people: invited by mail, signed in at an issuer, with a role each. A change is in force on the very next request.
import { expect, test } from "vitest";
import * as z from "zod";
import { signUp } from "../../dev/demo.ts";
import { connectControl } from "../../src/adapters/neon.ts";
import { type SignIn, membersStore } from "../../src/identity/members/members-store.ts";
import {
  callTool,
  controlRows,
  databaseFaults,
  modernMeta,
  operator,
  postMcp,
  system,
  until,
} from "../support/flow.ts";
import {
  type Person,
  aMember,
  aPerson,
  acceptAs,
  anOwnedTenant,
  mailedToken,
  send,
  tokenOf,
} from "../support/people.ts";

const Invited = z.object({ id: z.string(), email: z.string(), mail: z.string(), url: z.string().optional() });
const Members = z.object({
  members: z.array(z.object({ id: z.string(), email: z.string().nullable(), role: z.string(), isBound: z.boolean() })),
});

const membersOf = async (tenant: { id: string; ownerToken: string }) =>
  Members.parse(await (await send("GET", `/api/tenants/${tenant.id}/members`, tenant.ownerToken)).json()).members;

test("a removed member is refused on the very next call and request, and is back after a new invitation", async () => {
  const tenant = await anOwnedTenant();
  const { person, token, memberId } = await aMember(tenant, "admin");
  expect((await callTool(token, "get_usage")).isError).toBeFalsy();
  expect((await send("GET", `/api/tenants/${tenant.id}/usage`, token)).status).toBe(200);
  const removed = await send("DELETE", `/api/tenants/${tenant.id}/members/${memberId}`, tenant.ownerToken);
  expect(await removed.json()).toEqual({ removed: true, delivered: true });
  const message = { jsonrpc: "2.0", id: 1, params: { name: "get_usage", arguments: {}, _meta: modernMeta } };
  for (const method of ["tools/call", "tools/list"]) {
    const answer = await postMcp(token, { ...message, method });
    expect(answer.status, method).toBe(401);
    const challenge = answer.headers.get("www-authenticate");
    expect(challenge, method).toContain('error="invalid_token"');
    expect(challenge, method).toContain("Your membership of this account has ended.");
  }
  const refused = await send("GET", `/api/tenants/${tenant.id}/usage`, token);
  expect({ status: refused.status, body: await refused.json() }).toMatchObject({
    status: 401,
    body: { code: "member_removed" },
  });
  // A linked user who never was a member works as before, and so does a key.
  const stranger = await tokenOf(aPerson("stranger"), tenant.id);
  for (const other of [stranger, tenant.apiKey]) expect((await callTool(other, "get_usage")).isError).toBeFalsy();
  const again = await aMember(tenant, "member", person);
  expect(again.memberId).not.toBe(memberId);
  expect((await callTool(token, "get_usage")).isError).toBeFalsy();
});

test("a member leaves by themselves and is refused on the very next request, and the last owner cannot leave", async () => {
  const tenant = await anOwnedTenant();
  const leave = (token: string): Promise<Response> => send("DELETE", `/api/tenants/${tenant.id}/members/me`, token);
  const refused = await leave(tenant.ownerToken);
  expect({ status: refused.status, body: await refused.json() }).toMatchObject({
    status: 409,
    body: { code: "conflict", detail: expect.stringContaining("last owner") },
  });
  const { token, memberId } = await aMember(tenant, "billing");
  expect(await (await leave(token)).json()).toEqual({ removed: true, delivered: true });
  for (const again of [await leave(token), await send("GET", `/api/tenants/${tenant.id}/usage`, token)])
    expect({ status: again.status, body: await again.json() }).toMatchObject({
      status: 401,
      body: { code: "member_removed" },
    });
  expect((await membersOf(tenant)).map(({ role }) => role)).toEqual(["owner"]);
  // A key is no member.
  expect((await leave(tenant.apiKey)).status).toBe(403);
  await until(async () => {
    const [row] = await controlRows(
      `SELECT actor_kind, actor_id, target FROM audit_events WHERE tenant_id = $1 AND action = 'leaveTenant' AND outcome = 'succeeded'`,
      [tenant.id],
    );
    return row?.["actor_id"] === memberId && row["target"] === memberId;
  }, "the row of the audit log");
});

test("an invitation works once, and neither for others nor after it was revoked or replaced or has expired", async () => {
  const tenant = await anOwnedTenant();
  const path = `/api/tenants/${tenant.id}/invitations`;
  const { person } = await aMember(tenant, "developer");
  const used = await mailedToken(person.email);
  // The person who accepted it sees the membership again; all others see that it was used.
  expect((await acceptAs(person, tenant.id, used)).status).toBe(200);
  const reused = await acceptAs(aPerson(), tenant.id, used);
  expect({ status: reused.status, body: await reused.json() }).toMatchObject({
    status: 410,
    body: { code: "invitation_ended" },
  });

  const guest = aPerson("guest");
  const invite = async (): Promise<z.infer<typeof Invited>> =>
    Invited.parse(await (await send("POST", path, tenant.ownerToken, { email: guest.email.toUpperCase() })).json());
  await invite();
  const replaced = await mailedToken(guest.email);
  const { id, url, mail, email } = await invite();
  expect({ url, mail, email }).toEqual({ url: undefined, mail: "sent", email: guest.email });
  expect((await acceptAs(guest, tenant.id, replaced)).status).toBe(410);
  const revoked = await mailedToken(guest.email);
  expect((await send("DELETE", `${path}/${id}`, tenant.ownerToken)).status).toBe(200);
  expect((await acceptAs(guest, tenant.id, revoked)).status).toBe(410);
  await invite();
  await controlRows(`UPDATE invitations SET expires_at = now() WHERE tenant_id = $1 AND accepted_at IS NULL`, [
    tenant.id,
  ]);
  expect((await acceptAs(guest, tenant.id)).status).toBe(410);
  for (const forged of ["tgi_x.y.z.w", `${replaced.slice(0, -2)}AA`, tenant.apiKey])
    expect((await acceptAs(guest, tenant.id, forged)).status, forged).toBe(404);
  const { invitations } = (await (await send("GET", path, tenant.ownerToken)).json()) as {
    invitations: { state: string }[];
  };
  expect(invitations.map(({ state }) => state).toSorted()).toEqual([
    "accepted",
    "accepted",
    "expired",
    "revoked",
    "revoked",
  ]);
});

test("an admin gets no kept answer about an invitation that the admin could not make", async () => {
  const tenant = await anOwnedTenant();
  const admin = await aMember(tenant, "admin");
  const body = { email: aPerson().email, role: "owner" };
  const invite = (token: string): Promise<Response> =>
    send("POST", `/api/tenants/${tenant.id}/invitations`, token, body, { "idempotency-key": "invite-1" });
  expect((await invite(tenant.ownerToken)).status).toBe(201);
  expect((await invite(admin.token)).status).toBe(403);
});

test("twenty people who open one link at once get one membership", async () => {
  const tenant = await anOwnedTenant();
  const email = aPerson().email;
  await send("POST", `/api/tenants/${tenant.id}/invitations`, tenant.ownerToken, { email, role: "member" });
  const token = await mailedToken(email);
  const answers = await Promise.all(Array.from({ length: 20 }, () => acceptAs(aPerson(), tenant.id, token)));
  expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
  expect(answers.filter(({ status }) => status === 410)).toHaveLength(19);
  expect(await membersOf(tenant)).toHaveLength(2);
  // The same person who presses the button several times sees the membership each time.
  const hasty = aPerson("hasty");
  await send("POST", `/api/tenants/${tenant.id}/invitations`, tenant.ownerToken, { email: hasty.email });
  const presses = await Promise.all(Array.from({ length: 5 }, () => acceptAs(hasty, tenant.id)));
  expect(presses.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
  expect(await membersOf(tenant)).toHaveLength(3);
});

test("an admin makes no owner and changes none, and the last owner stays", async () => {
  const tenant = await anOwnedTenant();
  const path = `/api/tenants/${tenant.id}`;
  const admin = await aMember(tenant, "admin");
  const member = await aMember(tenant, "member");
  const ownerId = (await membersOf(tenant)).find(({ role }) => role === "owner")?.id ?? "";
  const byAdmin = async (method: string, where: string, body?: unknown): Promise<unknown> => {
    const { code } = (await (await send(method, path + where, admin.token, body)).json()) as { code?: string };
    return code;
  };
  expect(await byAdmin("POST", "/invitations", { email: aPerson().email, role: "owner" })).toBe("role_missing");
  expect(await byAdmin("PATCH", `/members/${member.memberId}`, { role: "owner" })).toBe("role_missing");
  expect(await byAdmin("PATCH", `/members/${admin.memberId}`, { role: "owner" })).toBe("role_missing");
  expect(await byAdmin("PATCH", `/members/${ownerId}`, { role: "member" })).toBe("role_missing");
  expect(await byAdmin("DELETE", `/members/${ownerId}`)).toBe("role_missing");
  expect(await byAdmin("PATCH", `/members/${member.memberId}`, { role: "billing" })).toBeUndefined();
  // In force on the next request: no tool, but the plan.
  expect(
    (await postMcp(member.token, { jsonrpc: "2.0", id: 1, method: "tools/list", params: { _meta: modernMeta } }))
      .status,
  ).toBe(403);
  expect((await callTool(member.token, "get_usage")).refusal?.code).toBe("role_missing");
  expect((await send("GET", `${path}/plan`, member.token)).status).toBe(200);
  expect((await send("GET", `${path}/members`, member.token)).status).toBe(403);

  for (const [method, body] of [
    ["DELETE", undefined],
    ["PATCH", { role: "admin" }],
  ] as const)
    expect((await send(method, `${path}/members/${ownerId}`, tenant.ownerToken, body)).status, method).toBe(409);
  expect((await operator("DELETE", `/tenants/${tenant.id}/members/${ownerId}`)).status).toBe(409);
  expect((await send("PATCH", `${path}/members/${admin.memberId}`, tenant.ownerToken, { role: "owner" })).status).toBe(
    200,
  );
  // Two owners who remove each other at once leave one.
  const both = await Promise.all([
    send("DELETE", `${path}/members/${ownerId}`, admin.token),
    send("DELETE", `${path}/members/${admin.memberId}`, tenant.ownerToken),
  ]);
  expect(Math.min(...both.map(({ status }) => status))).toBe(200);
  const owners = await controlRows(
    `SELECT id FROM members WHERE tenant_id = $1 AND role = 'owner' AND removed_at IS NULL`,
    [tenant.id],
  );
  expect(owners).toHaveLength(1);
});

test("another tenant's members and invitations are not there, for its owner and under its path", async () => {
  const [tenant, other] = await Promise.all([anOwnedTenant(), anOwnedTenant()]);
  const { memberId } = await aMember(other, "member");
  const guest = aPerson();
  const invited = await send("POST", `/api/tenants/${other.id}/invitations`, other.ownerToken, { email: guest.email });
  const { id } = Invited.parse(await invited.json());
  for (const [method, path, body] of [
    ["DELETE", `members/${memberId}`, undefined],
    ["PATCH", `members/${memberId}`, { role: "member" }],
    ["DELETE", `invitations/${id}`, undefined],
  ] as const)
    for (const place of [tenant.id, other.id])
      expect(
        (await send(method, `/api/tenants/${place}/${path}`, tenant.ownerToken, body)).status,
        `${method} ${path}`,
      ).toBe(404);
  expect((await operator("DELETE", `/tenants/${tenant.id}/members/${memberId}`)).status).toBe(404);
  expect((await acceptAs(guest, other.id)).status).toBe(200);
});

test("the buyer becomes the first owner by the order's address, once", async () => {
  const buyer = aPerson("buyer");
  const order = await signUp(system.publicUrl, { plan: "free", name: "Bought", email: buyer.email });
  const path = `/api/tenants/${order.tenantId}/owner`;
  const invited = await send("POST", path, order.setupToken, undefined, { "idempotency-key": "first-owner-1" });
  const first = Invited.parse(await invited.json());
  expect({ status: invited.status, mail: first.mail, email: first.email }).toEqual({
    status: 201,
    mail: "sent",
    email: buyer.email,
  });
  // The same key gets the same answer and sends no second mail.
  const again = await send("POST", path, order.setupToken, undefined, { "idempotency-key": "first-owner-1" });
  expect(Invited.parse(await again.json())).toEqual(first);
  const mailbox = await fetch(`${system.mailboxUrl}/mails?to=${encodeURIComponent(buyer.email)}`);
  expect(((await mailbox.json()) as { mails: unknown[] }).mails).toHaveLength(1);
  const page = await fetch(`${system.publicUrl}/invitation?token=${await mailedToken(buyer.email)}`);
  expect(await page.text()).toContain("Bought");
  expect((await acceptAs(buyer, order.tenantId)).status).toBe(200);
  expect(
    (await send("GET", `/api/tenants/${order.tenantId}/members`, await tokenOf(buyer, order.tenantId))).status,
  ).toBe(200);
  expect((await send("POST", path, order.setupToken)).status).toBe(409);
});

test("the link is in the answer while the mail service is away, and only then", async () => {
  const tenant = await anOwnedTenant();
  const guest = aPerson();
  const takesMails = (takes: boolean): Promise<Response> =>
    fetch(`${system.mailboxUrl}/mails`, { method: "PUT", body: JSON.stringify({ takesMails: takes }) });
  await takesMails(false);
  let invited: z.infer<typeof Invited>;
  try {
    const answer = await send("POST", `/api/tenants/${tenant.id}/invitations`, tenant.ownerToken, {
      email: guest.email,
    });
    invited = Invited.parse(await answer.json());
  } finally {
    await takesMails(true);
  }
  expect(invited.mail).toBe("failed");
  const token = new URL(invited.url ?? "").searchParams.get("token") ?? "";
  expect((await acceptAs(guest, tenant.id, token)).status).toBe(200);
});

test("an invitation and a member whose answer was lost are made once", async () => {
  const tenant = await anOwnedTenant();
  const guest = aPerson();
  await databaseFaults([{ kind: "lose-after", sql: "INTO invitations", times: 1 }]);
  const invited = await send("POST", `/api/tenants/${tenant.id}/invitations`, tenant.ownerToken, {
    email: guest.email,
  });
  await databaseFaults([]);
  expect(invited.status).toBe(201);
  expect((await acceptAs(guest, tenant.id)).status).toBe(200);
  const rows = await controlRows(
    `SELECT accepted_at IS NOT NULL AS accepted FROM invitations WHERE tenant_id = $1 AND email = $2`,
    [tenant.id, guest.email],
  );
  expect(rows).toEqual([{ accepted: true }]);
});

test("an inviter who is removed leaves no open invitation", async () => {
  const tenant = await anOwnedTenant();
  const admin = await aMember(tenant, "admin");
  const [guest, colleague] = [aPerson("guest"), aPerson("colleague")];
  const path = `/api/tenants/${tenant.id}/invitations`;
  await send("POST", path, admin.token, { email: guest.email });
  await send("POST", path, tenant.ownerToken, { email: colleague.email });
  expect((await send("DELETE", `/api/tenants/${tenant.id}/members/${admin.memberId}`, tenant.ownerToken)).status).toBe(
    200,
  );
  expect((await acceptAs(guest, tenant.id)).status).toBe(410);
  expect((await acceptAs(colleague, tenant.id)).status).toBe(200);
});

test("a sign-in binds and joins by proved addresses and linked organisations only, and never brings a removed person back", async () => {
  const [tenant, other] = await Promise.all([anOwnedTenant(), anOwnedTenant()]);
  const store = membersStore(
    connectControl({ CONTROL_DATABASE_URL: system.serviceUrl, NEON_FETCH_ENDPOINT: `${system.proxyUrl}/sql` }),
  );
  const elsewhere = `https://directory-of-${tenant.id}.example`;
  await controlRows(`INSERT INTO tenant_links (issuer, organisation, tenant_id) VALUES ($1, 'staff', $2)`, [
    elsewhere,
    tenant.id,
  ]);
  const signIn = (person: Person, more: Partial<SignIn> = {}) =>
    store.recordSignIn({
      ...{ issuer: elsewhere, subject: person.subject, email: person.email, emailVerified: true, name: "A name" },
      ...{ organisation: "staff", nowMs: Date.now(), ...more },
    });
  const tenantsOf = ({ memberships }: Awaited<ReturnType<typeof signIn>>): unknown =>
    Object.fromEntries(memberships.map(({ tenantId, role }) => [tenantId, role]));

  // Joins the tenant of the organisation, and not the other one that invited the same address.
  const guest = aPerson("guest");
  for (const { id, ownerToken } of [tenant, other])
    await send("POST", `/api/tenants/${id}/invitations`, ownerToken, { email: guest.email, role: "developer" });
  const first = await signIn(guest);
  expect([tenantsOf(first), first.changed]).toEqual([{ [tenant.id]: "developer" }, [tenant.id]]);
  expect((await signIn(guest)).changed).toEqual([]);
  const trusted = { linksMembers: true, verifiesEmails: true };
  expect(tenantsOf(await signIn(guest, { rules: trusted, emailVerified: false }))).toEqual({
    [tenant.id]: "developer",
  });
  expect(tenantsOf(await signIn(guest, { rules: trusted }))).toEqual({
    ...{ [tenant.id]: "developer", [other.id]: "developer" },
  });

  // An owner whom the operator has added signs in under the address.
  const owner = aPerson("second-owner");
  await operator("POST", `/tenants/${other.id}/members`, { email: owner.email });
  expect(tenantsOf(await signIn(owner, { organisation: null }))).toEqual({});
  expect(tenantsOf(await signIn(owner, { organisation: null, rules: trusted }))).toEqual({ [other.id]: "owner" });

  // An address that is not proved takes nothing, and stands in the way of none.
  const rival = { ...aPerson("rival"), email: owner.email };
  expect(tenantsOf(await signIn(rival, { emailVerified: false }))).toEqual({ [tenant.id]: "member" });
  expect(tenantsOf(await signIn(aPerson(), { rules: { linksMembers: false, verifiesEmails: false } }))).toEqual({});

  // A removed person does not join again by the organisation.
  const { memberId } = first.memberships[0] ?? { memberId: "" };
  expect((await send("DELETE", `/api/tenants/${tenant.id}/members/${memberId}`, tenant.ownerToken)).status).toBe(200);
  expect(tenantsOf(await signIn(guest))).toEqual({ [other.id]: "developer" });
  await send("POST", `/api/tenants/${tenant.id}/invitations`, tenant.ownerToken, { email: guest.email });
  expect(tenantsOf(await signIn(guest))).toEqual({ [tenant.id]: "member", [other.id]: "developer" });
});
