// Makes a fresh database fit for tenants' schemas (migrations/branch): the files in their order, each in one transaction,
// recorded where `npm run migrate` records them. May be repeated, and may run twice at the same time.
import type { Migration } from "./own-schemas.ts";
import { sha256Hex } from "../core/credentials.ts";
import type { Statement } from "../core/sql.ts";
import { connectNeon } from "../adapters/neon.ts";

/** An arbitrary key: one migration at a time in a database, whoever runs it. Advisory locks are per database. */
export const MIGRATION_LOCK = 7_402_118;

export async function setUpBranch(ownerUrl: string, fetchEndpoint: string, files: readonly Migration[]): Promise<void> {
  const connection = connectNeon(ownerUrl, fetchEndpoint);
  const lock: Statement = { text: "SELECT pg_advisory_xact_lock($1)", params: [MIGRATION_LOCK] };
  await connection.batch([
    lock,
    {
      text: `CREATE TABLE IF NOT EXISTS public.schema_migrations
               (name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`,
    },
  ]);
  for (const { name, text } of files) {
    const sha256 = await sha256Hex(text);
    await connection.batch([lock, onceOnly(name, sha256, text)]);
  }
}

/** The wire takes one statement a message; a block runs a whole file. */
function onceOnly(name: string, sha256: string, text: string): Statement {
  return {
    text: `DO ${quoted(`
      BEGIN
        IF NOT EXISTS (SELECT FROM public.schema_migrations WHERE name = ${quoted(name)}) THEN
          EXECUTE ${quoted(text)};
          INSERT INTO public.schema_migrations (name, sha256) VALUES (${quoted(name)}, ${quoted(sha256)});
        END IF;
      END`)}`,
  };
}

/** A literal between dollars, by a tag that the text does not contain. */
function quoted(text: string): string {
  let tag = "file";
  while (text.includes(`$${tag}$`)) tag += "x";
  return `$${tag}$${text}$${tag}$`;
}
