// A tenant's documents by folder: what agents and people have stored, each with its download. Who may change documents finds the
// forms for it, as long as calls of the account are served. An upload replaces a document only when the person says so.
import * as z from "zod";
import {
  type DocumentQuery,
  documentsOf,
  downloadDocument,
  dropDocument,
  refusedChange,
  storeDocument,
  tooLarge,
} from "../../../backups/documents.ts";
import {
  MAX_DOCUMENT_BYTES,
  MAX_PATH_BYTES,
  normalisePrefix,
  plainContentType,
} from "../../../core/text/document-path.ts";
import { BadRequest, type HttpContext } from "../../../http.ts";
import { type RefusedForm, answerOf, attempt, doneAt, readForm } from "../../layout/form-body.ts";
import { Refusal } from "../../parts/form.tsx";
import { Notice } from "../../parts/notice.tsx";
import { NextPage } from "../../parts/table.tsx";
import { accountPage, accountPath, may, tenantFor } from "../account-page.tsx";
import { FolderTable, Trail, folderPath } from "./folder-table.tsx";
import { UploadForm, readUpload } from "./upload.tsx";

/** Entries on a page: about three screens of a desktop. */
const PAGE = 100;

export const FilesView = z.strictObject({
  /** The folder, with `/` at its end. Empty: the top. */
  in: z.string().max(MAX_PATH_BYTES).default(""),
  after: z.string().max(MAX_PATH_BYTES).optional(),
});
type FilesView = z.infer<typeof FilesView>;

/** GET /app/:tenantId/files */
export function showFiles(c: HttpContext, { query }: { query: FilesView }): Promise<Response> {
  return filesPage(c, query);
}

/** GET /app/:tenantId/files/content: the document as a file. */
export function downloadFile(c: HttpContext, input: { query: DocumentQuery }): Promise<Response> {
  return downloadDocument(c, input);
}

/** POST /app/:tenantId/files: stores the chosen file in the folder that the page showed. */
export async function submitUpload(c: HttpContext): Promise<Response> {
  const { folder, file, name, replace } = await readUpload(c);
  const sent = { entered: { name, ...(replace && { replace: "yes" }) } };
  if (file === undefined) {
    c.set("code", "bad_request");
    return filesPage(c, { in: folder }, { ...sent, errors: { file: "Choose a file." } });
  }
  const path = folder + (name === "" ? file.name : name);
  const done = await attempt(
    c,
    async () => {
      if (file.size > MAX_DOCUMENT_BYTES) throw tooLarge(file.size);
      // A person does not choose the type: what a browser would run is kept as text.
      const contentType = plainContentType(file.type === "" ? "application/octet-stream" : file.type);
      return await storeDocument(c, { path, bytes: await file.arrayBuffer(), contentType, onlyNew: !replace });
    },
    sent,
  );
  if ("refused" in done) return filesPage(c, { in: folder }, withChoice(done.refused));
  const stored = done.done.path;
  return doneAt(c, folderPath(c, stored.slice(0, stored.lastIndexOf("/") + 1)), `${stored} is stored.`);
}

/** Says how to replace a document, where that was not chosen. */
function withChoice(refused: RefusedForm): RefusedForm {
  const { problem } = refused;
  if (problem?.code !== "precondition_failed") return refused;
  const text = `${problem.text} Choose the file again, with another name or with “Replace it”.`;
  return { ...refused, problem: { ...problem, text } };
}

const DeleteForm = z.object({ path: z.string(), in: z.string().default("") });

/** POST /app/:tenantId/files/delete */
export async function submitDelete(c: HttpContext): Promise<Response> {
  const form = await readForm(c, DeleteForm);
  if ("refused" in form) return filesPage(c, { in: "" }, form.refused);
  const { path, in: folder } = form.data;
  const done = await attempt(c, () => dropDocument(c, path), form.sent);
  if ("refused" in done) return filesPage(c, { in: folder }, done.refused);
  return doneAt(c, folderPath(c, folder), `${path} is deleted.`);
}

async function filesPage(c: HttpContext, view: FilesView, refused?: RefusedForm): Promise<Response> {
  const within = normalisePrefix(view.in);
  if (!within.ok) throw new BadRequest(`in: ${within.reason}`);
  const folder = within.path;
  const mayChange = may(c, "documents:write");
  const [found, readOnly] = await Promise.all([
    documentsOf(c).folder(folder, { after: view.after, limit: PAGE }),
    mayChange ? refusedChange(c, await tenantFor(c)) : undefined,
  ]);
  const changes = mayChange && readOnly === undefined;
  return accountPage(
    c,
    {
      ...{ title: "Documents", section: "/files", ...answerOf(refused) },
      lead: "What agents have written, and what people have uploaded. Agents read them with their tools.",
    },
    <>
      <Refusal refused={refused} />
      {readOnly !== undefined && refused === undefined && <Notice tone="warn">{readOnly.message}</Notice>}
      <Trail c={c} folder={folder} />
      <FolderTable c={c} folder={folder} found={found} changes={changes} />
      <NextPage url={folderPath(c, folder)} next={found.next} />
      {changes && <UploadForm action={accountPath(c, "/files")} folder={folder} refused={refused} />}
    </>,
  );
}
