// Helpers for flow tests of backups: start them, wait for them, read their files and check the footers.
import { createHash } from "node:crypto";
import { expect } from "vitest";
import { type TestTenant, callTool, operator, until } from "./flow.ts";

export interface Footer {
  tables: Record<string, { lines: number; sha256: string }>;
  documents: { lines: number; sha256: string };
  rows: number;
  sha256: string;
}
export type Backup = Footer & {
  name: string;
  state: string;
  error: string | null;
  sizeBytes: number;
  recoveryPoint: unknown;
};
export interface Restore {
  id: number;
  state: string;
  error: string | null;
  rows: number;
  undoAt: string;
  safetyBackup: string | null;
  progress: { replaced: boolean };
}

export const tiers = [
  { plan: "starter", strategy: "shared" },
  { plan: "pro", strategy: "schema" },
  { plan: "enterprise", strategy: "database" },
];
export const generous = { limits: { unitsPerHour: 1_000_000, callsPerMinute: 100_000, callsInFlight: 50 } };

export async function run(tenant: TestTenant, ...statements: string[]): Promise<Record<string, unknown>[][]> {
  const answer = await callTool(tenant.apiKey, "run_sql", { statements, as: "transaction" });
  if (answer.isError === true) throw new Error(answer.text);
  return answer.data?.["results"] as Record<string, unknown>[][];
}

export async function backUp(tenant: TestTenant, at?: string): Promise<Backup> {
  const asked = await operator("POST", `/tenants/${tenant.id}/backups`, at === undefined ? {} : { at });
  expect(asked.status, await asked.clone().text()).toBe(202);
  const { name } = (await asked.json()) as Backup;
  return finished(tenant, name);
}

export async function finished(tenant: TestTenant, name: string): Promise<Backup> {
  let found: Backup | undefined;
  await until(async () => {
    const listed = (await (await operator("GET", `/tenants/${tenant.id}/backups`)).json()) as { backups: Backup[] };
    found = listed.backups.find((backup) => backup.name === name);
    return found !== undefined && found.state !== "running";
  }, `backup ${name} of ${tenant.id}`);
  if (found === undefined) throw new Error("The backup does not exist.");
  expect(found.error).toBe(null);
  return found;
}

export async function restores(tenantId: string): Promise<Restore[]> {
  const listed = await operator("GET", `/tenants/${tenantId}/restores`);
  return ((await listed.json()) as { restores: Restore[] }).restores;
}

/** Starts a restore and waits for its end. */
export async function restore(
  tenant: TestTenant,
  request: Record<string, unknown>,
): Promise<Restore & { tenantId: string }> {
  const asked = await operator("POST", `/tenants/${tenant.id}/restore`, request);
  expect(asked.status, await asked.clone().text()).toBe(202);
  const { tenantId } = (await asked.json()) as { tenantId: string };
  await until(async () => (await restores(tenantId))[0]?.state !== "running", `the restore of ${tenantId}`, 30_000);
  const [done] = await restores(tenantId);
  if (done === undefined) throw new Error("the tenant has no restore");
  return { tenantId, ...done };
}

/** Reads a backup file and checks its footer. */
export async function fileOf(
  response: Response,
): Promise<{ lines: string[]; footer: Footer; header: Record<string, unknown> }> {
  expect(response.status).toBe(200);
  const text = await response.text();
  const lines = text.trimEnd().split("\n");
  const { end: footer } = JSON.parse(lines.at(-1) ?? "") as { end: Footer };
  const before = text.slice(0, text.lastIndexOf("\n", text.length - 2) + 1);
  expect(createHash("sha256").update(before).digest("hex")).toBe(footer.sha256);
  for (const [table, sum] of Object.entries(footer.tables)) {
    const rows = lines.filter((line) => line.startsWith(`["${table}",`));
    expect(rows.length).toBe(sum.lines);
    expect(
      createHash("sha256")
        .update(rows.map((row) => `${row}\n`).join(""))
        .digest("hex"),
    ).toBe(sum.sha256);
  }
  return { lines, footer, header: (JSON.parse(lines[0] ?? "") as { tollgate: Record<string, unknown> }).tollgate };
}

export const download = (tenant: TestTenant) => operator("GET", `/tenants/${tenant.id}/export`);
export const rowsOfFile = ({ lines }: { lines: string[] }): [string, (string | null)[]][] =>
  lines.filter((line) => line.startsWith("[")).map((line) => JSON.parse(line) as [string, (string | null)[]]);

export async function nowAt(tenant: TestTenant): Promise<string> {
  const [rows] = await run(
    tenant,
    `SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS now`,
  );
  return String(rows?.[0]?.["now"]);
}
