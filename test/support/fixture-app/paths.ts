// The path of a document as each file tool of the fixture takes it.
import * as z from "zod";
import { MAX_PATH_BYTES, normalisePath } from "#tollgate/document-path";
import type { ToolFailure } from "#tollgate/tool";

export const pathInput = z.string().min(1).max(MAX_PATH_BYTES).describe("The document's path");

/** The path as it is stored, or the failure that the tool answers with. */
export function storedPath(path: string): { path: string } | ToolFailure {
  const result = normalisePath(path);
  return result.ok ? { path: result.path } : { isError: true, text: result.reason };
}
