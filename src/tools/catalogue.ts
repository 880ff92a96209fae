// Every tool there is: one line each. The order is the one in which clients see them.
import { deleteDocument } from "./delete-document.ts";
import { generateReport } from "./generate-report.ts";
import { getUsage } from "./get-usage.ts";
import { healthCheck } from "./health-check.ts";
import { listDocuments } from "./list-documents.ts";
import { readDocument } from "./read-document.ts";
import { searchProducts } from "./search-products.ts";
import type { Tool } from "./tool.ts";
import { writeDocument } from "./write-document.ts";

const tools: readonly Tool[] = [
  healthCheck,
  getUsage,
  searchProducts,
  generateReport,
  listDocuments,
  readDocument,
  writeDocument,
  deleteDocument,
];

export const catalogue: ReadonlyMap<string, Tool> = new Map(tools.map((tool) => [tool.name, tool]));
