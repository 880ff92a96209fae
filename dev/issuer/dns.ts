// A resolver for the TXT records of the customers' domains, in the JSON form of DNS over HTTPS. `PUT /names/:name` with a list of texts
// sets a name's records, and `GET /query?name=` answers them.
import { Hono } from "hono";
import * as z from "zod";

const Texts = z.array(z.string().max(1_000)).max(20);

export function dnsApp(): Hono {
  const records = new Map<string, string[]>();
  const app = new Hono();
  app.put("/names/:name", async (c) => {
    records.set(c.req.param("name").toLowerCase(), Texts.parse(await c.req.json()));
    return c.body(null, 204);
  });
  app.get("/query", (c) => {
    const name = c.req.query("name")?.toLowerCase() ?? "";
    const texts = records.get(name);
    const answer = texts?.map((data) => ({ name, type: 16, TTL: 0, data: JSON.stringify(data) }));
    c.header("content-type", "application/dns-json");
    return c.body(JSON.stringify({ Status: texts === undefined ? 3 : 0, ...(answer && { Answer: answer }) }));
  });
  return app;
}
