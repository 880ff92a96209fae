// A tool of the flow tests whose answer has every kind of block.
import * as z from "zod";
import { defineTool, isFailure } from "../../src/tools/tool.ts";

/** The smallest PNG: one transparent pixel. */
export const PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const SILENCE = new Uint8Array([82, 73, 70, 70, 36, 0, 0, 0, 87, 65, 86, 69]);

export const showStock = defineTool({
  name: "show_stock",
  title: "Show stock",
  description: "Shows the stock as a picture, with the files that belong to it.",
  units: 3,
  scopes: ["tools:read"],
  input: z.strictObject({
    fail: z.boolean().default(false).describe("Whether the answer counts as failed"),
    mimeType: z.string().default("image/png").describe("Of the picture"),
  }),
  output: z.strictObject({ products: z.int(), fail: z.boolean() }),
  annotations: { readOnly: true, idempotent: true, destructive: false },
  failed: (result) => isFailure(result) || result.data.fail,

  async run({ fail, mimeType }, { db }) {
    const [row] = await db.query<{ products: number }>(`SELECT count(*)::int AS products FROM products`);
    const priority = { annotations: { audience: ["user" as const], priority: 1 } };
    return {
      text: "The stock of today.",
      content: [
        { type: "image", data: PIXEL, mimeType, ...priority },
        { type: "audio", data: SILENCE, mimeType: "audio/wav" },
        {
          type: "resource_link",
          uri: "https://example.com/stock.csv",
          name: "stock.csv",
          title: "Stock list",
          mimeType: "text/csv",
          description: "One line for each product.",
        },
        { type: "resource", resource: { uri: "stock://note", mimeType: "text/plain", text: "Counted at noon." } },
        { type: "resource", resource: { uri: "stock://scan", mimeType: "image/png", blob: PIXEL } },
      ],
      data: { products: row?.products ?? 0, fail },
    };
  },
});
