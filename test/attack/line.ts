// A plain connection of the attacker's login, in both protocol forms: simple (several statements in a message) and extended
// (one statement). Every use begins like a batch of the product and leaves no state on the connection.
import { Client, type QueryConfig } from "pg";
import type { Rows } from "../support/shard.ts";

export type WireForm = "simple" | "extended";

export interface LineUse {
  form: WireForm;
  /** Opens the tenant in the transaction of the messages. Without it, they run on the connection as it is. */
  entrance: string | undefined;
  /** Messages in order. The result has the rows of the last message, or of all. */
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

  /** Runs the messages. Throws `DatabaseError`, also when the login is refused. */
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

  /** Drops the connection. The next use opens a new one. */
  async end(): Promise<void> {
    const client = await this.#client?.catch(() => undefined);
    this.#client = undefined;
    await client?.end().catch(() => undefined);
  }

  async #connect(): Promise<Client> {
    const client = new Client({ connectionString: this.#url });
    client.on("error", () => (this.#client = undefined)); // the server ended it; pending queries reject, too
    client.connection.on("copyData", ({ chunk }: { chunk: Buffer }) => this.#copied.push(chunk.toString()));
    await client.connect();
    return client;
  }

  async #send(client: Client, form: WireForm, text: string): Promise<Rows> {
    // Without parameters `pg` uses the simple form. The option `queryMode` changes that, but its types lack it.
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
      await this.end(); // the attack ended the connection
    }
  }
}
