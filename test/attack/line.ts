// A plain connection of the attacker's login: hand-written SQL over both wire forms, the simple one, which takes several
// statements in a message, and the extended one, which takes one. Every use begins like a batch of the product's and ends
// with nothing left on the connection.
import { Client, type QueryConfig } from "pg";
import type { Rows } from "../support/shard.ts";

export type WireForm = "simple" | "extended";

export interface LineUse {
  form: WireForm;
  /** What opens the tenant, in a transaction with the messages; without it they come on a bare connection. */
  entrance: string | undefined;
  /** One after the other; the rows of the last count, or of all. */
  messages: readonly string[];
  ofAll?: boolean;
}

export class Line {
  readonly #url: string;
  #client: Promise<Client> | undefined;
  #copied: string[] = [];

  constructor(url: string) {
    this.#url = url;
  }

  /** Throws `DatabaseError`, also when the login is not let in. */
  async run({ form, entrance, messages, ofAll = false }: LineUse): Promise<Rows> {
    const client = await (this.#client ??= this.#connect());
    this.#copied = [];
    let rows: Rows = [];
    try {
      if (entrance !== undefined) await client.query(`BEGIN; ${entrance}`);
      for (const text of messages) rows = [...(ofAll ? rows : []), ...(await this.#send(client, form, text))];
    } finally {
      await this.#clean(client);
    }
    return rows;
  }

  /** Forgets the connection; the next use opens another. */
  async end(): Promise<void> {
    const client = await this.#client?.catch(() => undefined);
    this.#client = undefined;
    await client?.end().catch(() => undefined);
  }

  async #connect(): Promise<Client> {
    const client = new Client({ connectionString: this.#url });
    client.on("error", () => (this.#client = undefined)); // ended by the server; whoever is waiting hears it, too
    client.connection.on("copyData", ({ chunk }: { chunk: Buffer }) => this.#copied.push(chunk.toString()));
    await client.connect();
    return client;
  }

  async #send(client: Client, form: WireForm, text: string): Promise<Rows> {
    // Without parameters `pg` takes the simple form, unless told otherwise by an option that its types do not know.
    const query: QueryConfig & { queryMode?: "extended" } = form === "simple" ? { text } : { text, queryMode: form };
    const result = await client.query<Record<string, unknown>>(query);
    const rows = (Array.isArray(result) ? result : [result]).flatMap((each) => each.rows);
    return [...rows, ...this.#copied.map((copied) => ({ copied }))];
  }

  async #clean(client: Client): Promise<void> {
    try {
      await client.query("ROLLBACK");
      await client.query("DISCARD ALL");
    } catch {
      await this.end(); // the attack has cost the connection
    }
  }
}
