// What a new tenant starts with: settings, and a small catalogue of products so that its tools have something to find.
import type { TenantId } from "../core/tenant.ts";
import type { TenantDb } from "../tools/tool.ts";

const settings = {
  alert_email: null,
  webhook_url: null,
  alert_threshold: 0.8, // of an allowance: late enough to matter, early enough to act
};

const products = [
  ["desk-oak", "Oak desk", "Height-adjustable desk with a solid oak top", "furniture", 64_900, 12],
  ["chair-mesh", "Mesh chair", "Office chair with a breathing mesh back", "furniture", 28_900, 40],
  ["shelf-steel", "Steel shelf", "Five-tier steel shelf for archives", "furniture", 11_900, 7],
  ["lamp-arc", "Arc lamp", "Dimmable arc lamp with warm light", "lighting", 8_900, 64],
  ["lamp-desk", "Desk lamp", "Clamp-on desk lamp with a USB port", "lighting", 3_900, 120],
  ["mug-steel", "Steel mug", "Insulated steel mug, keeps warm for six hours", "kitchen", 2_400, 300],
  ["kettle-glass", "Glass kettle", "Glass kettle with temperature control", "kitchen", 5_900, 25],
  ["notebook-a5", "Notebook A5", "Dotted notebook with 120 g paper", "stationery", 1_450, 500],
  ["pen-gel", "Gel pen", "Gel pen, 0.5 mm, blue", "stationery", 290, 2_000],
  ["bag-canvas", "Canvas bag", "Canvas bag with a padded laptop pocket", "travel", 7_400, 3],
] as const;

/** Writes the defaults once; what the tenant has changed since is left alone. Proves, too, that the tenant can write. */
export async function seedTenant(db: TenantDb): Promise<void> {
  await db.transaction([
    {
      text: `INSERT INTO settings (key, value) SELECT key, value FROM jsonb_each($1::jsonb) ON CONFLICT DO NOTHING`,
      params: [JSON.stringify(settings)],
    },
    {
      text: `INSERT INTO products (id, name, description, category, price_cents, stock)
             SELECT p->>0, p->>1, p->>2, p->>3, (p->>4)::int, (p->>5)::int
             FROM jsonb_array_elements($1::jsonb) AS p ON CONFLICT DO NOTHING`,
      params: [JSON.stringify(products)],
    },
  ]);
}

/** What is wrong with what a tenant sees of its tables, in our words, or nothing. */
export async function checkTenantRows(db: TenantDb, tenantId: TenantId): Promise<string | undefined> {
  const foreign = await db.query(`SELECT 1 AS foreign FROM products WHERE tenant_id <> $1 LIMIT 1`, [tenantId]);
  if (foreign.length > 0) return "rows of another tenant are visible";
  const own = await db.query(`SELECT count(*)::int AS settings FROM settings`);
  return Number(own[0]?.["settings"]) > 0 ? undefined : "the tenant's settings are missing";
}
