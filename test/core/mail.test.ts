// Mails: the sender's text stays text, names cannot make a mail say something else, and no header gets a second line.
import fc from "fast-check";
import { expect, onTestFinished, test, vi } from "vitest";
import { type MailSettings, sendMail, sendsMail, subjectLine } from "../../src/adapters/mail.ts";
import { tenantRoles } from "../../src/core/actor.ts";
import { invitationMail, plainName } from "../../src/identity/members/invitation-mail.ts";

/** Any code unit, halves of surrogate pairs included. */
const anyCharacter = fc.integer({ min: 0, max: 0xffff }).map((code) => String.fromCharCode(code));

const off: MailSettings = { MAIL_FROM: "", MAIL_URL: "" };
const url = "https://tollgate.example/invitation?token=tgi_acme.x.y.z";
const anInvitation = (tenantName: string) =>
  invitationMail({ to: "ada@acme.example", product: "Tollgate", tenantName, role: "admin", url, expiresAtMs: 1.8e12 });

test.each([
  [off, false],
  [{ ...off, MAIL_FROM: "a@b.example" }, false],
  [{ ...off, EMAIL: { send: vi.fn() } }, false],
  [{ ...off, MAIL_FROM: "a@b.example", EMAIL: { send: vi.fn() } }, true],
  [{ ...off, MAIL_URL: "http://127.0.0.1:1" }, true],
])("mail is on only with a sender and a way: case %#", (settings, on) => {
  expect(sendsMail(settings)).toBe(on);
});

test("the binding gets the sender, one recipient, a subject of one line and plain text only", async () => {
  const send = vi.fn(() => Promise.resolve({ messageId: "1" }));
  await sendMail(
    { EMAIL: { send }, MAIL_FROM: "tollgate@mail.example", MAIL_URL: "" },
    { to: "ada@acme.example", subject: "Hello\r\nBcc: eve@evil.example", text: "<b>text</b>\n" },
  );
  expect(send.mock.calls).toEqual([
    [
      {
        from: "tollgate@mail.example",
        to: "ada@acme.example",
        subject: "Hello Bcc: eve@evil.example",
        text: "<b>text</b>\n",
      },
    ],
  ]);
});

test("a failure names neither the recipient nor the service's text", async () => {
  const send = (): Promise<never> =>
    Promise.reject(Object.assign(new Error("ada@acme.example is suppressed"), { code: "E_RECIPIENT_SUPPRESSED" }));
  const mail = { to: "ada@acme.example", subject: "s", text: "t" };
  const failed: unknown = await sendMail({ ...off, MAIL_FROM: "a@b.example", EMAIL: { send } }, mail).catch(
    (error: unknown) => error,
  );
  expect(String(failed)).toContain("E_RECIPIENT_SUPPRESSED");
  expect(String(failed)).not.toContain("ada");
  const asked = vi.spyOn(globalThis, "fetch").mockResolvedValue(new Response(null, { status: 503 }));
  onTestFinished(() => asked.mockRestore());
  await expect(sendMail({ ...off, MAIL_URL: "http://mail.example" }, mail)).rejects.toThrow("answered 503");
});

test.each(["a@b.example, c@d.example", "a@b.example\r\nBcc: c@d.example", "Ada <a@b.example>", "a@b@c", "a", ""])(
  "%j is no recipient",
  async (to) => {
    const send = vi.fn();
    await expect(
      sendMail({ ...off, MAIL_FROM: "a@b.example", EMAIL: { send } }, { to, subject: "s", text: "t" }),
    ).rejects.toThrow("one plain address");
    expect(send).not.toHaveBeenCalled();
  },
);

test("a subject is one line of bounded length for any text", () => {
  fc.assert(
    fc.property(fc.string({ unit: anyCharacter, maxLength: 200 }), (text) => {
      const subject = subjectLine(text);
      expect(/[\p{Cc}\p{Cf}\u2028\u2029]/u.test(subject)).toBe(false);
      expect(Array.from(subject).length).toBeLessThanOrEqual(150);
    }),
  );
});

test("an invitation has one link, which is Tollgate's own, with any name of the account", () => {
  const words = fc.constantFrom(
    "Acme",
    "http://evil.example",
    "www.evil.example",
    "evil.example/x",
    "a@b.example",
    '"',
    "\r\n",
    "<a>",
    "O'Neill",
  );
  fc.assert(
    fc.property(
      fc.array(fc.oneof(words, fc.string({ unit: anyCharacter }))).map((parts) => parts.join(" ")),
      (name) => {
        const { subject, text } = anInvitation(name);
        expect(text.match(/\/\/|www\./g)).toEqual(["//"]);
        expect(text.split("\n")).toHaveLength(11);
        expect(subjectLine(subject)).toBe(subject);
        expect(plainName(name).length).toBeGreaterThan(0);
      },
    ),
  );
});

test("an invitation says in words what the role may do", () => {
  for (const role of tenantRoles) {
    const { subject, text } = invitationMail({
      ...{ to: "ada@acme.example", product: "Tollgate", tenantName: "Acme GmbH & Co.", role, url, expiresAtMs: 1.8e12 },
    });
    expect(subject).toBe('Invitation to "Acme GmbH & Co." on Tollgate');
    expect(text).toContain(`Your role will be ${role}: you may `);
    expect(text).toContain(`\n${url}\n`);
    expect(text).toContain("until 2027-01-15");
  }
});
