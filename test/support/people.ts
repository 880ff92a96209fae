// People of a tenant as flow tests use them: the operator adds the first owner, who invites the others by mail.
import { randomUUID } from "node:crypto";
import { expect } from "vitest";
import * as z from "zod";
import { aJwt, aTenant, operator, system } from "./flow.ts";

export interface Person {
  subject: string;
  email: string;
}
export const aPerson = (name = "person"): Person => {
  const subject = `${name}-${randomUUID()}`;
  return { subject, email: `${subject}@people.example` };
};

export const tokenOf = (
  { subject, email }: Person,
  tenantId: string,
  scopes = ["tools:read", "tenant:admin"],
): Promise<string> => aJwt({ tenant_id: tenantId, sub: subject, email, scopes });

/** Sends a JSON request to the product as the holder of the token. */
export function send(
  method: string,
  path: string,
  token: string,
  body?: unknown,
  headers: Record<string, string> = {},
) {
  return fetch(`${system.publicUrl}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${token}`,
      ...(body !== undefined && { "content-type": "application/json" }),
      ...headers,
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
}

/** The token of the newest mail to the address. */
export async function mailedToken(email: string): Promise<string> {
  const Mails = z.object({ mails: z.array(z.object({ subject: z.string(), text: z.string() })) });
  const { mails } = Mails.parse(
    await (await fetch(`${system.mailboxUrl}/mails?to=${encodeURIComponent(email)}`)).json(),
  );
  const token = /\/invitation\?token=(?<token>\S+)/.exec(mails[0]?.text ?? "")?.groups?.["token"];
  if (token === undefined) throw new Error(`no invitation was mailed to ${email}`);
  return token;
}

export const acceptAs = async (person: Person, tenantId: string, token?: string): Promise<Response> =>
  send("POST", "/api/invitations/accept", await tokenOf(person, tenantId), {
    token: token ?? (await mailedToken(person.email)),
  });

/** A tenant with an owner who has signed in, whom the operator has added. */
export async function anOwnedTenant(
  overrides: Parameters<typeof aTenant>[0] = {},
): Promise<{ id: string; apiKey: string; owner: Person; ownerToken: string }> {
  const tenant = await aTenant(overrides);
  const owner = aPerson("owner");
  const added = await operator("POST", `/tenants/${tenant.id}/members`, { email: owner.email });
  expect(added.status, await added.clone().text()).toBe(201);
  expect((await acceptAs(owner, tenant.id)).status).toBe(200);
  return { ...tenant, owner, ownerToken: await tokenOf(owner, tenant.id) };
}

/** Invites a person as the owner, accepts as the person, and returns the person's token and member id. */
export async function aMember(
  tenant: { id: string; ownerToken: string },
  role: string,
  person = aPerson(role),
): Promise<{ person: Person; token: string; memberId: string }> {
  const invited = await send("POST", `/api/tenants/${tenant.id}/invitations`, tenant.ownerToken, {
    email: person.email,
    role,
  });
  expect(invited.status, await invited.clone().text()).toBe(201);
  const accepted = await acceptAs(person, tenant.id);
  const membership = (await accepted.json()) as { memberId: string; role: string; delivered: boolean };
  expect(membership).toMatchObject({ role, delivered: true });
  return { person, token: await tokenOf(person, tenant.id), memberId: membership.memberId };
}
