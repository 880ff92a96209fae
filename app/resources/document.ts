// A document of the account as a resource, so that a person can attach it to a conversation.
import * as z from "zod";
import { MAX_PATH_BYTES, normalisePath } from "#tollgate/document-path";
import { defineResource } from "#tollgate/resource";

export const document = defineResource({
  name: "document",
  title: "Document",
  description: "One document of your account. `list_documents` lists their paths.",
  uri: "documents://files/{+path}",
  units: 1,
  scopes: ["tools:read"],
  params: z.strictObject({ path: z.string().min(1).max(MAX_PATH_BYTES).describe("For example `notes/today.md`") }),

  async read({ path }, { files }) {
    const named = normalisePath(path);
    const found = named.ok ? await files.read(named.path) : undefined;
    return found === undefined || found.text === null ? undefined : { text: found.text };
  },
});
