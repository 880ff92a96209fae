// Starts a conversation about the products that are running out.
import * as z from "zod";
import { definePrompt } from "#tollgate/prompt";

const MOST_PRODUCTS = 50;

export const stockReview = definePrompt({
  name: "stock_review",
  title: "Review the stock",
  description: "A conversation about the products with the lowest stock.",
  scopes: ["tools:read"],
  arguments: z.strictObject({ category: z.string().min(1).max(100).optional().describe("Only this category") }),

  async get({ category }, { db }) {
    const products = await db.query<{ name: string; stock: number }>(
      `SELECT name, stock FROM products WHERE $1::text IS NULL OR category = $1 ORDER BY stock, name LIMIT ${MOST_PRODUCTS}`,
      [category ?? null],
    );
    if (products.length === 0) return { isError: true, text: "There is no product in this category." };
    const lines = products.map(({ name, stock }) => `- ${name}: ${stock} in stock`);
    return [{ role: "user", content: `Which of these products should we order again, and why?\n${lines.join("\n")}` }];
  },
});
