// The local mailbox: it keeps what it got, and its page shows it as text.
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Mailbox, startMailbox } from "../../dev/mail.ts";

let mailbox: Mailbox;
beforeEach(async () => {
  mailbox = await startMailbox({ port: 0 });
});
afterEach(() => mailbox.close());

const post = (mail: unknown): Promise<Response> =>
  fetch(`${mailbox.url}/mails`, { method: "POST", body: JSON.stringify(mail) });
const aMail = { from: "tollgate@mail.example", to: "ada@acme.example", subject: "Hello", text: "One\nTwo" };

test("mails are listed by recipient, the newest first", async () => {
  for (const [to, subject] of [
    ["ada@acme.example", "1"],
    ["ben@acme.example", "2"],
    ["ada@acme.example", "3"],
  ])
    expect((await post({ ...aMail, to, subject })).status).toBe(204);
  const { mails } = (await (await fetch(`${mailbox.url}/mails?to=ada@acme.example`)).json()) as {
    mails: { subject: string }[];
  };
  expect(mails.map(({ subject }) => subject)).toEqual(["3", "1"]);
});

test("the page escapes a mail, and links only to this machine", async () => {
  const link = "http://127.0.0.1:8787/invitation?token=tgi_acme.a-b.c_d.e";
  await post({ ...aMail, subject: "<script>1</script>", text: `<img src=x> ${link} https://evil.example/` });
  const page = await (await fetch(mailbox.url)).text();
  expect(page).not.toMatch(/<script|<img/);
  expect(page).toContain("&lt;script&gt;1&lt;/script&gt;");
  expect([...page.matchAll(/href="(?<href>[^"]*)"/g)].map(({ groups }) => groups?.["href"])).toEqual([link]);
});

test("a header with a second line is refused, and a mailbox that takes no mails says so", async () => {
  expect((await post({ ...aMail, subject: "a\r\nBcc: b@c.example" })).status).toBe(400);
  await fetch(`${mailbox.url}/mails`, { method: "PUT", body: JSON.stringify({ takesMails: false }) });
  expect((await post(aMail)).status).toBe(503);
});
