// The products of a new account, so that the tools of the demonstration find rows at once.
import type { Statement } from "#tollgate/tool";

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

export const demonstrationProducts: readonly Statement[] = [
  {
    text: `INSERT INTO products (id, name, description, category, price_cents, stock)
           SELECT p->>0, p->>1, p->>2, p->>3, (p->>4)::int, (p->>5)::int
           FROM jsonb_array_elements($1::jsonb) AS p ON CONFLICT DO NOTHING`,
    params: [JSON.stringify(products)],
  },
];
