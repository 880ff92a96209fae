// The routes of the page with a tenant's documents.
import { type Route, route } from "../../../http.ts";
import { DocumentQuery } from "../../../backups/documents.ts";
import { FilesView, downloadFile, showFiles, submitDelete, submitUpload } from "./files.tsx";
import { MAX_FORM_BYTES } from "./upload.tsx";

// oxfmt-ignore
export const fileRoutes: readonly Route[] = [
  route("GET /app/:tenantId/files", "tenant_admin", showFiles, { isPage: true, query: FilesView, action: "showFiles", permission: "documents:read" }),
  route("POST /app/:tenantId/files", "tenant_admin", submitUpload, { isPage: true, readsBody: true, maxBytes: MAX_FORM_BYTES, action: "saveDocument", permission: "documents:write" }),
  route("GET /app/:tenantId/files/content", "tenant_admin", downloadFile, { isPage: true, isDownload: true, query: DocumentQuery, action: "downloadDocument", permission: "documents:read" }),
  route("POST /app/:tenantId/files/delete", "tenant_admin", submitDelete, { isPage: true, readsBody: true, action: "deleteDocument", permission: "documents:write" }),
];
