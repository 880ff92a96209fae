// Keeps a short note under a name, in the account's settings.
import * as z from "zod";
import { defineTool, isFailure } from "#tollgate/tool";
import { settingOf } from "../names.ts";

export const keepNote = defineTool({
  name: "keep_note",
  title: "Keep note",
  description: "Keeps a note under a name and returns the one that was there before.",
  units: 3,
  scopes: ["notes:keep"],
  input: z.strictObject({
    name: z
      .string()
      .regex(/^[a-z]{1,20}$/)
      .describe("One word in lower case"),
    text: z.string().max(200).describe("The note"),
  }),
  output: z.strictObject({ before: z.string().nullable(), notes: z.int() }),
  annotations: { readOnly: false, idempotent: false, destructive: true },
  failed: isFailure,

  async run({ name, text }, { db }) {
    const [old, , [count] = []] = await db.transaction([
      { text: `SELECT value #>> '{}' AS text FROM settings WHERE key = $1`, params: [settingOf(name)] },
      {
        text: `INSERT INTO settings (key, value) VALUES ($1, to_jsonb($2::text))
               ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value`,
        params: [settingOf(name), text],
      },
      { text: `SELECT count(*)::int AS notes FROM settings WHERE key LIKE 'note.%'` },
    ]);
    return {
      data: z
        .object({ before: z.string().nullable(), notes: z.int() })
        .parse({ before: old?.[0]?.["text"] ?? null, ...count }),
    };
  },
});
