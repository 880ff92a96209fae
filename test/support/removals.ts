// Helpers of removal tests: request a removal, wait for it, and search every store for remains.
import { createHash } from "node:crypto";
import { expect } from "vitest";
import { connectStripe } from "../../src/adapters/stripe/stripe.ts";
import { type TestTenant, asSuperuser, controlRows, operator, rowsOf, system, until } from "./flow.ts";

export interface Removal {
  phase: string;
  step: string;
  leavingUntil: string | null;
  reactivating: boolean;
  waitsFor: string | null;
  error: string | null;
  reactivation?: { chargeCents: number; coveredUntil: string | null; monthlyCents: number } | null;
  archive: { key: string; calls: number; units: number; reports: number } | null;
  deletedAt: string | null;
}

export async function removal(tenantId: string): Promise<Removal> {
  return (await (await operator("GET", `/tenants/${tenantId}/removal`)).json()) as Removal;
}

export async function leaves(tenantId: string): Promise<void> {
  const asked = await operator("POST", `/tenants/${tenantId}/remove`);
  expect(asked.status, await asked.clone().text()).toBe(202);
  await reaches(tenantId, "grace");
}

export async function reaches(tenantId: string, phase: string, withinMs = 60_000): Promise<void> {
  let seen = "nothing";
  await until(
    async () => {
      const now = await removal(tenantId);
      seen = `${now.step}, ${now.waitsFor ?? now.error ?? ""}`;
      return now.phase === phase;
    },
    `the removal of ${tenantId} reaches ${phase}`,
    withinMs,
  ).catch((error: unknown) => {
    throw new Error(`${String(error)}; it is at ${seen}`);
  });
}

/** A tenant's placements. Read them before its removal. */
export async function placesOf(tenantId: string): Promise<{ role: string; shard: string; database: string }[]> {
  return controlRows(
    `SELECT 'tenant_' || p.id AS role, s.id AS shard, s.database FROM placements p JOIN shards s ON s.id = p.shard_id
     WHERE p.tenant_id = $1 ORDER BY p.id`,
    [tenantId],
  );
}

/** All remains of a tenant, by store, read with the superuser's rights. */
async function leftOf(tenantId: string, places: Awaited<ReturnType<typeof placesOf>>): Promise<string[]> {
  const left: string[] = [];
  const cluster = asSuperuser(system.controlUrl);
  const roles = places.map(({ role }) => role);
  for (const { name } of await rowsOf<{ name: string }>(
    cluster,
    `SELECT rolname AS name FROM pg_roles WHERE rolname = ANY ($1)`,
    [roles],
  ))
    left.push(`role ${name}`);
  const own = places.filter(({ shard }) => shard === `database-${tenantId}`).map(({ database }) => database);
  for (const { name } of await rowsOf<{ name: string }>(
    cluster,
    `SELECT datname AS name FROM pg_database WHERE datname = ANY ($1)`,
    [own],
  ))
    left.push(`database ${name}`);
  for (const url of [system.sharedOwnerUrl, system.schemaOwnerUrl].map(asSuperuser)) {
    const schemas = await rowsOf<{ name: string }>(
      url,
      `SELECT nspname AS name FROM pg_namespace WHERE nspname = ANY ($1)`,
      [roles],
    );
    left.push(...schemas.map(({ name }) => `schema ${name}`));
    // Joined, not cast to `regclass`: a cast shows the number of a table that another removal has just dropped.
    const tables = await rowsOf<{ name: string }>(
      url,
      `SELECT format('%I.%I', n.nspname, c.relname) AS name
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
       WHERE c.relkind = 'r' AND (n.nspname = ANY ($1) OR n.nspname !~ '^tenant_')`,
      [roles],
    );
    for (const { name } of tables) {
      const [row] = await rowsOf<{ n: number }>(url, `SELECT count(*)::int AS n FROM ${name} WHERE tenant_id = $1`, [
        tenantId,
      ]);
      if (row?.n !== 0) left.push(`${row?.n} rows of ${name}`);
    }
  }
  left.push(...Object.keys(await files(`tenants/${tenantId}/`, `backups/${tenantId}/`, `imports/${tenantId}/`)));
  if ((await fetch(`${system.monitorUrl}/monitors/${tenantId}`)).status !== 404) left.push("monitor");
  for (const { id, status } of await subscriptions(tenantId))
    if (status !== "canceled") left.push(`subscription ${id} ${status}`);
  const { tables, alarmAtMs } = (await (await fetch(`${system.publicUrl}/test/remains?tenant=${tenantId}`)).json()) as {
    tables: string[];
    alarmAtMs: number | null;
  };
  left.push(...tables.filter((name) => !/^_(cf|_miniflare)_/.test(name)).map((name) => `table ${name} of the object`));
  if (alarmAtMs !== null) left.push("alarm of the object");
  for (const [what, text] of Object.entries(personal)) {
    const [row] = await controlRows<{ n: number }>(text, [tenantId]);
    if (row?.n !== 0) left.push(`${row?.n} ${what}`);
  }
  return left;
}

/** Checks that nothing is left. Only Neon's own deletions may take a while. */
export async function nothingIsLeft(tenantId: string, places: Awaited<ReturnType<typeof placesOf>>): Promise<void> {
  if (places.some(({ shard }) => shard === `database-${tenantId}`))
    await until(async () => (await leftOf(tenantId, places)).length === 0, "Neon has removed the database");
  expect(await leftOf(tenantId, places)).toEqual([]);
}

/** Queries for personal and tenant data that a removal must clear. */
const personal: Readonly<Record<string, string>> = {
  "names of the tenant": `SELECT count(*)::int AS n FROM tenants WHERE id = $1 AND (name <> '' OR email IS NOT NULL OR deleted_at IS NULL OR state <> 'gone')`,
  "names of its order": `SELECT count(*)::int AS n FROM checkouts WHERE tenant_id = $1 AND (name <> '' OR email IS NOT NULL)`,
  "keys that are good or have a name": `SELECT count(*)::int AS n FROM api_keys WHERE tenant_id = $1 AND (revoked_at IS NULL OR name <> '')`,
  links: `SELECT count(*)::int AS n FROM tenant_links WHERE tenant_id = $1`,
  members: `SELECT count(*)::int AS n FROM members WHERE tenant_id = $1`,
  invitations: `SELECT count(*)::int AS n FROM invitations WHERE tenant_id = $1`,
  jobs: `SELECT count(*)::int AS n FROM jobs WHERE tenant_id = $1`,
  "open moves": `SELECT count(*)::int AS n FROM moves WHERE tenant_id = $1 AND (state NOT IN ('confirmed', 'undone') OR cursor IS NOT NULL)`,
  "places that are kept": `SELECT count(*)::int AS n FROM placements WHERE tenant_id = $1 AND (state <> 'dropped' OR login IS NOT NULL)`,
  "events with what they said": `SELECT count(*)::int AS n FROM webhook_inbox WHERE tenant_id = $1 AND (customer_id, object_id) IS DISTINCT FROM (NULL, NULL)`,
};

export async function files(...prefixes: string[]): Promise<Record<string, string>> {
  const query = new URLSearchParams(prefixes.map((prefix) => ["prefix", prefix]));
  return (await (await fetch(`${system.publicUrl}/test/files?${query.toString()}`)).json()) as Record<string, string>;
}

export async function subscriptions(tenantId: string): Promise<{ id: string; status: string; created: number }[]> {
  const [row] = await controlRows<{ customer: string | null }>(
    `SELECT stripe_customer_id AS customer FROM tenants WHERE id = $1`,
    [tenantId],
  );
  if (row === undefined || row.customer === null) return [];
  const query = new URLSearchParams({ customer: row.customer, status: "all", limit: "100" });
  const response = await fetch(`${system.stripeUrl}/v1/subscriptions?${query.toString()}`, {
    headers: { authorization: `Bearer ${system.stripeSecretKey}` },
  });
  return ((await response.json()) as { data: { id: string; status: string; created: number }[] }).data;
}

/** Units on all final invoices of a tenant. */
export async function invoicedUnits(tenantId: string): Promise<number> {
  const [row] = await controlRows<{ customer: string }>(
    `SELECT stripe_customer_id AS customer FROM tenants WHERE id = $1`,
    [tenantId],
  );
  const invoiced = await connectStripe(system.stripeSecretKey, system.stripeUrl).invoices.usage(row?.customer ?? "", 0);
  return invoiced.reduce((sum, { units }) => sum + units, 0);
}

/** Units on all final invoices of a tenant, and units of the items that bill late usage. */
export async function unitsBilled(tenantId: string): Promise<number> {
  const late = await controlRows<{ units: number }>(
    `SELECT coalesce(sum(units), 0)::int AS units FROM carry_forwards WHERE tenant_id = $1 AND settled_at IS NOT NULL AND calls > 0`,
    [tenantId],
  );
  return (await invoicedUnits(tenantId)) + (late[0]?.units ?? 0);
}

/** The usage archive of a removed tenant. Each file's checksum is verified. */
export async function archived(
  tenantId: string,
): Promise<{ calls: Record<string, unknown>[]; reports: Record<string, unknown>[]; text: string }> {
  const found = await files(`archive/${tenantId}/`);
  const lines: Record<"calls" | "reports" | "summary", Record<string, unknown>[]> = {
    calls: [],
    reports: [],
    summary: [],
  };
  for (const text of Object.values(found)) {
    const body = text.slice(text.indexOf("\n") + 1);
    const { tollgate } = JSON.parse(text.slice(0, text.indexOf("\n"))) as {
      tollgate: { kind: keyof typeof lines; sha256: string };
    };
    expect(createHash("sha256").update(body).digest("hex")).toBe(tollgate.sha256);
    lines[tollgate.kind].push(
      ...body
        .trimEnd()
        .split("\n")
        .filter(Boolean)
        .map((line) => JSON.parse(line) as Record<string, unknown>),
    );
  }
  return { calls: lines.calls, reports: lines.reports, text: Object.values(found).join("") };
}

export async function ledgerOf(
  tenantId: string,
): Promise<{ call: string; tool: string; units: number; report: string | null }[]> {
  return controlRows(
    `SELECT call_id AS call, tool, units, report_id AS report FROM ledger WHERE tenant_id = $1 ORDER BY object, epoch, n`,
    [tenantId],
  );
}

export async function anAdminKey(tenantId: string): Promise<string> {
  const made = await operator("POST", `/tenants/${tenantId}/keys`, {
    name: "Ada's laptop",
    scopes: ["tenant:admin", "tools:read"],
  });
  expect(made.status, await made.clone().text()).toBe(201);
  return ((await made.json()) as { apiKey: string }).apiKey;
}

export function asAdmin(
  tenant: TestTenant,
  key: string,
  method: string,
  path: string,
  body?: unknown,
): Promise<Response> {
  return fetch(`${system.publicUrl}/api/tenants/${tenant.id}${path}`, {
    method,
    headers: { authorization: `Bearer ${key}`, ...(body !== undefined && { "content-type": "application/json" }) },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
}
