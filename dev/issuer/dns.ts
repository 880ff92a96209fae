// A resolver for the TXT records of the customers' domains and for addresses, in the JSON form of DNS over HTTPS. `PUT /names/:name`
// with a list of texts sets a name's records, `PUT /addresses/:name` with a list its addresses, and `GET /query?name=&type=` answers them.
import { Hono } from "hono";
import * as z from "zod";

const types: Readonly<Record<string, number>> = { A: 1, TXT: 16, AAAA: 28 };
const Texts = z.array(z.string().max(1_000)).max(20);

export function dnsApp(): Hono {
  const records = new Map<string, string[]>();
  const app = new Hono();
  app.put("/names/:name", async (c) => {
    const texts = Texts.parse(await c.req.json());
    records.set(
      `TXT ${c.req.param("name").toLowerCase()}`,
      texts.map((text) => JSON.stringify(text)),
    );
    return c.body(null, 204);
  });
  app.put("/addresses/:name", async (c) => {
    const addresses = Texts.parse(await c.req.json());
    const name = c.req.param("name").toLowerCase();
    records.set(
      `A ${name}`,
      addresses.filter((each) => !each.includes(":")),
    );
    records.set(
      `AAAA ${name}`,
      addresses.filter((each) => each.includes(":")),
    );
    return c.body(null, 204);
  });
  app.get("/query", (c) => {
    const name = c.req.query("name")?.toLowerCase() ?? "";
    const type = c.req.query("type") ?? "TXT";
    const texts = records.get(`${type} ${name}`);
    const answer = texts?.map((data) => ({ name, type: types[type], TTL: 0, data }));
    c.header("content-type", "application/dns-json");
    return c.body(JSON.stringify({ Status: texts === undefined ? 3 : 0, ...(answer && { Answer: answer }) }));
  });
  return app;
}
