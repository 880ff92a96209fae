// Stand-in for a mail service: a mailbox that keeps every mail in memory and shows the mails on a page.
// Invariants: nothing leaves this machine; a mail is text, and the page escapes all of it; only links to this machine can be
// clicked.
import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { html } from "hono/html";
import { z } from "zod";
import { serveOnLoopback } from "./loopback.ts";

/** Far more than a session at the keyboard makes. A test reads its mails by their recipient. */
const MAX_MAILS = 1_000;
const MAX_BODY_BYTES = 64 * 1024;

const line = z.string().regex(/^[^\p{Cc}]*$/u, "has control characters");
const Mail = z.strictObject({ from: line, to: line.min(3), subject: line, text: z.string() });
const Refusing = z.strictObject({ takesMails: z.boolean() });

export interface ReceivedMail extends z.output<typeof Mail> {
  at: string;
}

export interface Mailbox {
  url: string;
  close(): Promise<void>;
}

/**
 * Starts the mailbox on 127.0.0.1; port 0 takes a free one. `POST /mails` takes a mail, unless `PUT /mails` with
 * `{ takesMails: false }` came before. `GET /mails?to=` lists them, newest first. `GET /` is the page.
 */
export async function startMailbox({ port }: { port: number }): Promise<Mailbox> {
  const mails: ReceivedMail[] = [];
  let takesMails = true;
  const newestFirst = (to: string | undefined): ReceivedMail[] =>
    mails.filter((mail) => to === undefined || mail.to === to).toReversed();

  const app = new Hono();
  const limit = bodyLimit({ maxSize: MAX_BODY_BYTES, onError: (c) => c.json({ error: "body too large" }, 413) });
  app.post("/mails", limit, async (c) => {
    if (!takesMails) return c.json({ error: "the mailbox takes no mails" }, 503);
    mails.push({ ...Mail.parse(await c.req.json()), at: new Date().toISOString() });
    if (mails.length > MAX_MAILS) mails.shift();
    return c.body(null, 204);
  });
  app.put("/mails", limit, async (c) => {
    ({ takesMails } = Refusing.parse(await c.req.json()));
    return c.json({ takesMails });
  });
  app.get("/mails", (c) => c.json({ mails: newestFirst(c.req.query("to")) }));
  app.get("/", (c) => {
    c.header("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'");
    return c.html(page(newestFirst(c.req.query("to"))));
  });
  app.notFound((c) => c.json({ error: `${c.req.method} ${c.req.path} is not simulated` }, 404));
  app.onError((error, c) => {
    if (error instanceof z.ZodError) return c.json({ error: z.prettifyError(error) }, 400);
    if (error instanceof SyntaxError) return c.json({ error: "the body is not JSON" }, 400);
    return c.json({ error: "internal error" }, 500);
  });

  const listening = await serveOnLoopback(app.fetch, port);
  return { url: listening.url, close: () => listening.close() };
}

type Page = ReturnType<typeof html>;

function page(mails: readonly ReceivedMail[]): Page {
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width" />
        <title>Local mailbox</title>
        <style>
          :root {
            color-scheme: light dark;
            background: Canvas;
          }
          body {
            font:
              1rem/1.5 system-ui,
              sans-serif;
            max-width: 48rem;
            margin: 2rem auto;
            padding: 0 1rem;
          }
          article {
            border: 1px solid #767676;
            border-radius: 0.5rem;
            margin: 1rem 0;
            padding: 0 1rem;
          }
          pre {
            font: inherit;
            white-space: pre-wrap;
            overflow-wrap: anywhere;
          }
        </style>
      </head>
      <body>
        <main>
          <h1>Local mailbox</h1>
          ${mails.length === 0 ? html`<p>No mail yet.</p>` : mails.map((mail) => article(mail))}
        </main>
        <footer><p>Every mail of this local system ends here. None leaves this machine.</p></footer>
      </body>
    </html>`;
}

function article({ from, to, subject, text, at }: ReceivedMail): Page {
  const parts = text.split(/(http:\/\/127\.0\.0\.1:\d+\/[\w\-./?=&%]*)/);
  return html`<article>
    <h2>${subject}</h2>
    <p>To ${to}, from ${from}, at <time datetime="${at}">${at}</time></p>
    <pre>${parts.map((part, index) => (index % 2 === 1 ? html`<a href="${part}">${part}</a>` : part))}</pre>
  </article>`;
}
