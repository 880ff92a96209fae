// Which clients Tollgate asks to describe themselves (CIMD). It fetches the client's document for a stranger, so the address must
// be one of the public internet. The platform refuses private addresses, also after the look-up of a name; this rule comes
// first, and does not depend on where Tollgate runs.
import { decodeJwt } from "jose";
import { PublicUrl } from "../../core/text/web-url.ts";

/** Whether a client id is a URL at an address that Tollgate must not fetch. */
export function isPrivateClientUrl(clientId: string): boolean {
  return /^https?:/i.test(clientId.trim()) && !PublicUrl.safeParse(clientId).success;
}

/** Every client id that a request to the token endpoint names: in its form, in its header, and in its assertion (RFC 7523). */
export function clientIdsOf(authorization: string | null, body: string): string[] {
  const form = new URLSearchParams(body);
  const assertions = form.getAll("client_assertion").flatMap((assertion) => readable(() => decodeJwt(assertion).iss));
  const basic = /^Basic\s+(?<credentials>\S+)/i.exec(authorization ?? "")?.groups?.["credentials"];
  const user = basic === undefined ? [] : readable(() => decodeURIComponent(atob(basic).split(":", 1)[0] ?? ""));
  return [...form.getAll("client_id"), ...assertions, ...user];
}

/** The text, or none where it cannot be read: such a request names no client. */
function readable(read: () => unknown): string[] {
  try {
    const text = read();
    return typeof text === "string" ? [text] : [];
  } catch {
    return [];
  }
}
