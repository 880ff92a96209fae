// The operator's view of messages that nobody could take. Sending one again is harmless: the ledger takes each row once,
// and what is still at fault comes back as a dead letter of its own.
import { Hono } from "hono";
import * as z from "zod";
import { deadLettersOf } from "./dead-letters-store.ts";
import { bodyOfText } from "./dead-letter.ts";
import { type HttpEnv, readJson } from "../http.ts";

const PAGE = 100;

const Named = z.strictObject({ ids: z.array(z.string().min(1).max(200)).min(1).max(PAGE) });
const ReplayRequest = z.union([Named, z.strictObject({ all: z.literal(true) })]);

export const deadLetterApi = new Hono<HttpEnv>();

/** Those that wait, the oldest first; `?all=true`: also those that were sent again or dismissed. */
deadLetterApi.get("/", async (c) => {
  const options = { after: c.req.query("after") ?? "", all: c.req.query("all") === "true" };
  const letters = await deadLettersOf(c.env).list(PAGE, options);
  const deadLetters = letters.map(({ body, ...letter }) => ({ ...letter, body: bodyOfText(body) }));
  return c.json({ deadLetters, next: letters.length === PAGE ? letters.at(-1)?.id : null });
});

/** Sends these again, or all that wait, a page at a time: `left` says whether there are more. */
deadLetterApi.post("/replay", async (c) => {
  const request = await readJson(c, ReplayRequest);
  const kept = deadLettersOf(c.env);
  const letters = "ids" in request ? await kept.byId(request.ids) : await kept.list(PAGE, { after: "", all: false });
  const replayed: string[] = [];
  // One at a time: a message may be as large as the queue takes. Noted after it is sent, since sending twice is harmless.
  for (const { id, body } of letters) {
    await c.env.USAGE.send(bodyOfText(body));
    await kept.replayed([id]);
    replayed.push(id);
  }
  return c.json({ replayed, left: await kept.waiting() });
});

/** What can never be taken: it stays on record and no longer counts as waiting. */
deadLetterApi.post("/dismiss", async (c) => {
  const { ids } = await readJson(c, Named);
  return c.json({ dismissed: await deadLettersOf(c.env).dismissed(ids) });
});
