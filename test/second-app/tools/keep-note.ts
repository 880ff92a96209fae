// Keeps a short note under a name, in the app's own table.
import * as z from "zod";
import { defineTool, isFailure } from "#tollgate/tool";
import { noteName } from "../names.ts";

export const keepNote = defineTool({
  name: "keep_note",
  title: "Keep note",
  description: "Keeps a note under a name. Returns the note that was there before and the names of all notes.",
  units: 3,
  scopes: ["notes:keep"],
  input: z.strictObject({
    name: noteName,
    text: z.string().max(200).describe("The note"),
  }),
  output: z.strictObject({ before: z.string().nullable(), names: z.array(z.string()) }),
  annotations: { readOnly: false, idempotent: false, destructive: true },
  failed: isFailure,

  async run({ name, text }, { db }) {
    // The last statement has no WHERE: the database shows this tenant's notes only.
    const [old = [], , all = []] = await db.transaction([
      { text: `SELECT text FROM notes WHERE name = $1`, params: [name] },
      {
        text: `INSERT INTO notes (name, text) VALUES ($1, $2)
               ON CONFLICT (tenant_id, name) DO UPDATE SET text = excluded.text`,
        params: [name, text],
      },
      { text: `SELECT name FROM notes ORDER BY name` },
    ]);
    const before = z.object({ text: z.string() }).optional().parse(old[0])?.text ?? null;
    const names = z
      .array(z.object({ name: z.string() }))
      .parse(all)
      .map((note) => note.name);
    return { data: { before, names } };
  },
});
