// The lowest stocks, for those who may change them.
import { defineResource } from "#tollgate/resource";

export const lowStock = defineResource({
  name: "low_stock",
  title: "Low stock",
  description: "The ten lowest stocks.",
  uri: "stock://low",
  mimeType: "application/json",
  units: 2,
  scopes: ["tools:read", "tools:write"],

  async read(_, { db }) {
    const rows = await db.query(`SELECT id, stock FROM products ORDER BY stock, id LIMIT 10`);
    return { text: JSON.stringify(rows) };
  },
});
