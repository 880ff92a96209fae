// Searches everything that a run of a system has left for the secrets that it was given and that it issued: the log, every row of
// the control database, the files of the object store, the stored state of objects and queues, mails and alarms.
import { readFile, readdir } from "node:fs/promises";
import { join, relative } from "node:path";
import pg from "pg";
import { type Secrets, leaksIn } from "./leaks.ts";

/** A text with the name under which a leak in it is reported. */
export interface Place {
  name: string;
  text: string;
  /** As in `Secrets`. */
  valuesOnly?: boolean;
}

/** What is searched, while the system still runs. */
export interface Run {
  /** The superuser's login of the control database. */
  controlUrl: string;
  mailboxUrl: string;
  monitorUrl: string;
}

/** Every row of every table of the control database: audit, jobs, Stripe's events, kept answers, alarms and the rest. */
export async function* controlPlaces(controlUrl: string): AsyncGenerator<Place> {
  const client = new pg.Client({ connectionString: controlUrl });
  await client.connect();
  try {
    const { rows: tables } = await client.query<{ name: string }>(
      `SELECT format('%I.%I', table_schema, table_name) AS name FROM information_schema.tables
       WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1`,
    );
    for (const { name } of tables) {
      const { rows } = await client.query<{ row: string }>(`SELECT to_jsonb(t)::text AS row FROM ${name} t`);
      yield { name: `the table ${name}`, text: rows.map(({ row }) => row).join("\n") };
    }
  } finally {
    await client.end();
  }
}

/** The mails and the alarms that went out. */
export async function* sentPlaces({ mailboxUrl, monitorUrl }: Run): AsyncGenerator<Place> {
  const mails = await (await fetch(`${mailboxUrl}/mails`)).text();
  yield { name: "the mails", text: withoutInvitations(mails) };
  yield { name: "the alarms", text: await (await fetch(`${monitorUrl}/alarms`)).text() };
}

/** An invitation's mail carries the invitation: this field is meant for its secret. */
export function withoutInvitations(mails: string): string {
  return mails.replaceAll(/\/invitation\?token=[^\s"\\]+/g, "/invitation?token=");
}

/** The files that a system has in its folder. One that goes away while the system runs is left out. */
export async function* filePlaces(dir: string, folder = dir): AsyncGenerator<Place> {
  for (const entry of (await unlessGone(readdir(folder, { withFileTypes: true }))) ?? []) {
    const path = join(folder, entry.name);
    const name = relative(dir, path);
    if (isOwn(entry.isDirectory() ? `${name}/` : name)) continue;
    if (entry.isDirectory()) yield* filePlaces(dir, path);
    if (!entry.isFile()) continue;
    // As Latin 1, in which any bytes are a text.
    const text = await unlessGone(readFile(path, "latin1"));
    if (text === undefined) continue;
    yield { name: `the file ${name}`, text, valuesOnly: name.endsWith(".sqlite") || name.endsWith("-wal") };
  }
}

async function unlessGone<Value>(read: Promise<Value>): Promise<Value | undefined> {
  try {
    return await read;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

/** Files that hold secrets for the system itself: settings, the stand-ins' own data, and PostgreSQL's files. */
function isOwn(name: string): boolean {
  return /^(postgres|replica)\/|^(settings|issuer|neon-api|worker\.vars)\.json|^(stripe|monitor)\.db|\.env$|\.pid$/.test(
    name,
  );
}

/** The leaks in all places, each with the name of its place. */
export async function leaksOf(places: AsyncIterable<Place> | Iterable<Place>, secrets: Secrets): Promise<string[]> {
  const leaks: string[] = [];
  for await (const { name, text, valuesOnly = false } of places)
    leaks.push(...leaksIn(text, { ...secrets, valuesOnly }).map((leak) => `${name}: ${leak}`));
  return leaks;
}

/** The credentials that tests have been issued, from the file of `watchFetch`. */
export async function readIssued(issuedFile: string): Promise<Map<string, string>> {
  const text = await readFile(issuedFile, "utf8").catch(() => "");
  return new Map(text.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line) as [string, string]])));
}
