// The tool `health_check`: proves that a tenant can read its rows through the isolation, and its files. Provisioning ends
// with this call, so the tool fails when it sees no rows.
import * as z from "zod";
import { toIso } from "../core/time.ts";
import { defineTool, isFailure } from "./tool.ts";

export const healthCheck = defineTool({
  name: "health_check",
  title: "Health check",
  description:
    "Checks that your account's database and file storage can be reached. " +
    "Call it when another tool failed, to learn whether trying again makes sense.",
  units: 0,
  scopes: ["tools:read"],
  input: z.strictObject({}),
  output: z.strictObject({
    ok: z.literal(true),
    tenant: z.string().describe("The account that was checked"),
    checkedAt: z.iso.datetime().describe("The database's time"),
    settings: z.int().positive().describe("How many of the account's settings were found"),
    files: z.enum(["empty", "present"]).describe("Whether the account has documents"),
  }),
  annotations: { readOnly: true, idempotent: true, destructive: false },
  failed: isFailure,

  async run(_input, context) {
    const [rows, page] = await Promise.all([
      context.db.query<{ checkedAt: string; settings: number }>(
        `SELECT ${toIso("now()")} AS "checkedAt",
                (SELECT count(*)::int FROM settings) AS settings`,
      ),
      context.files.list({ limit: 1 }),
    ]);
    const [row] = rows;
    // Without a valid context, the database shows no rows. Every account has settings from its first day.
    if (row === undefined || row.settings === 0) {
      return {
        isError: true,
        text: "The database answered, but showed none of the account's settings. The account's set-up is not complete; contact support.",
      };
    }
    const data = {
      ok: true as const,
      tenant: context.tenant.id,
      checkedAt: row.checkedAt,
      settings: row.settings,
      files: page.files.length === 0 ? ("empty" as const) : ("present" as const),
    };
    return { data };
  },
});
