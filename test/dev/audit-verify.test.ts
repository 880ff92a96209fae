// `npm run audit:verify` against a real PostgreSQL: its output, its exit codes, and what it finds with an earlier output.
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type AuditLog, startAuditLog } from "../support/audit-log.ts";

let log: AuditLog;
beforeAll(async () => void (log = await startAuditLog()), 60_000);
afterAll(() => log[Symbol.asyncDispose]());

test("npm run audit:verify prints each chain, exits with 1 for a broken one, and finds a chain that was written anew", async () => {
  const tenantId = await log.aTenant();
  await log.append(tenantId, 3);
  const directory = await mkdtemp(join(tmpdir(), "tollgate-audit-"));
  const run = (...flags: string[]): Promise<{ code: number; output: string }> =>
    new Promise((resolve) => {
      const env = { ...process.env, CONTROL_DATABASE_URL: log.serviceUrl, NEON_FETCH_ENDPOINT: log.fetchEndpoint };
      const program = ["--import", "./cli/register-app.ts", "cli/audit-verify.ts", ...flags];
      execFile(process.execPath, program, { env }, (error, stdout, stderr) =>
        resolve({ code: Number(error?.code ?? 0), output: stdout + stderr }),
      );
    });
  try {
    const first = await run("--tenant", tenantId);
    expect(first, first.output).toMatchObject({ code: 0 });
    expect(first.output).toMatch(new RegExp(`^${tenantId} 3 [0-9a-f]{64} 3 rows, right`, "m"));
    const known = join(directory, "known.txt");
    await writeFile(known, first.output);
    expect(await run("--tenant", tenantId, "--known", known)).toMatchObject({ code: 0 });
    // The owner writes the whole chain anew: it is right in itself.
    await log.behindItsBack(`DELETE FROM audit_events WHERE tenant_id = $1`, [tenantId]);
    await log.sql(`UPDATE audit_chains SET position = 0, hash = '' WHERE chain = $1`, [tenantId]);
    await log.append(tenantId, 4);
    expect(await run("--tenant", tenantId)).toMatchObject({ code: 0 });
    const found = await run("--tenant", tenantId, "--known", known);
    expect(found).toMatchObject({ code: 1 });
    expect(found.output).toContain("BROKEN at 3");
    await log.behindItsBack(`DELETE FROM audit_events WHERE tenant_id = $1 AND position = 2`, [tenantId]);
    expect((await run("--tenant", tenantId)).output).toContain("BROKEN at 2: this row is missing");
    expect(await run("--tenant", "no/tenant")).toMatchObject({ code: 2 });
    expect(await run("--help")).toMatchObject({ code: 0 });
  } finally {
    await rm(directory, { recursive: true });
  }
}, 60_000);
