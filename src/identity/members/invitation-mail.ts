// The text of an invitation. Pure. Names come from tenants, who could use them to make the operator's mails say something else, so
// a name is one short line in quotes that names no address.
import type { Mail } from "../../adapters/mail.ts";
import type { TenantRole } from "../../core/actor.ts";

/** Long enough for a company's name, too short for a message. */
const MAX_NAME_CHARS = 60;

/** What a role may do, for a person who has never seen the product. */
const does: Readonly<Record<TenantRole, string>> = {
  owner: "manage everything, and close the account",
  admin: "manage everything but the closing of the account",
  developer: "use the tools and manage API keys",
  member: "use the tools",
  billing: "see usage, and manage the plan and invoices",
};

/** The mail for the person who is invited. */
export function invitationMail(invitation: {
  to: string;
  product: string;
  tenantName: string;
  role: TenantRole;
  url: string;
  expiresAtMs: number;
}): Mail {
  const { to, product, role, url, expiresAtMs } = invitation;
  const name = plainName(invitation.tenantName);
  const until = new Date(expiresAtMs).toISOString().slice(0, 10);
  return {
    to,
    subject: `Invitation to "${name}" on ${product}`,
    text: [
      "Hello,",
      "",
      `you are invited to the account "${name}" on ${product}. Your role will be ${role}: you may ${does[role]}.`,
      "",
      "Open this link to accept:",
      "",
      url,
      "",
      `The link works once, until ${until}. It is meant for you alone: do not pass it on.`,
      "If you do not know this account, ignore this mail. Nothing happens then.",
      "",
    ].join("\n"),
  };
}

/** A name of a tenant as mails show it. Of a name that holds an address of a page or of a person, the address is left out. */
export function plainName(name: string): string {
  const plain = name
    .replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029"<>]+/gu, " ")
    .replaceAll(/\S*(?:\/\/|www\.|@|\.\w+\/)\S*/giu, "")
    .replaceAll(/\s+/gu, " ")
    .trim();
  return Array.from(plain).slice(0, MAX_NAME_CHARS).join("").trim() || "an account";
}
