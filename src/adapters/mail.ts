// Mail, through Cloudflare's e-mail binding or, where MAIL_URL is set, an HTTP service such as the local mailbox. Mails are plain
// text: nothing of a tenant's can become HTML. Control characters never reach a header.
import { OutsideFailure } from "../core/errors.ts";

/** A person waits for the answer, and an invitation also works without its mail. */
const MAIL_TIMEOUT_MS = 5_000;
/** Longer subjects are cut by mail programs anyway. */
const MAX_SUBJECT_CHARS = 150;

export interface Mail {
  to: string;
  subject: string;
  text: string;
}

/** The settings that mail needs. A deployment may leave the binding out. */
export interface MailSettings {
  EMAIL?: Pick<SendEmail, "send">;
  MAIL_FROM: string;
  MAIL_URL: string;
}

/** Whether this deployment sends mail. */
export function sendsMail({ EMAIL, MAIL_FROM, MAIL_URL }: MailSettings): boolean {
  return MAIL_URL !== "" || (MAIL_FROM !== "" && EMAIL !== undefined);
}

/** Sends one mail. Throws `OutsideFailure` when the service does not take it. Its text never names the recipient. */
export async function sendMail(settings: MailSettings, mail: Mail): Promise<void> {
  const { EMAIL, MAIL_FROM, MAIL_URL } = settings;
  const message = { from: MAIL_FROM, to: addressOf(mail.to), subject: subjectLine(mail.subject), text: mail.text };
  try {
    if (MAIL_URL !== "") await post(MAIL_URL, message);
    else await EMAIL?.send(message);
  } catch (error) {
    if (error instanceof OutsideFailure) throw error;
    // The binding's errors have a code. Their text may quote the address.
    const code = typeof error === "object" && error !== null && "code" in error ? String(error.code) : "no answer";
    throw new OutsideFailure("internal", `The mail service did not take a mail: ${code}`, "temporary");
  }
}

/** A subject of one line, without control characters. */
export function subjectLine(subject: string): string {
  const line = subject.replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]+/gu, " ").trim();
  return Array.from(line).slice(0, MAX_SUBJECT_CHARS).join("");
}

/** The one address of a recipient. Throws for a text that could name two, or end a header line. */
function addressOf(to: string): string {
  if (/^[^\s\p{Cc},;<>"()[\]\\@]+@[^\s\p{Cc},;<>"()[\]\\@]+$/u.test(to)) return to;
  throw new OutsideFailure("bad_request", "A mail needs one plain address", "permanent");
}

async function post(mailUrl: string, message: Mail & { from: string }): Promise<void> {
  const response = await fetch(`${mailUrl}/mails`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(message),
    signal: AbortSignal.timeout(MAIL_TIMEOUT_MS),
  });
  await response.body?.cancel();
  if (!response.ok) throw new OutsideFailure("internal", `The mail service answered ${response.status}`, "temporary");
}
