// What is in a folder of a tenant's documents, with the way back up and, for who may, the button that deletes a document.
import type { FC } from "hono/jsx";
import type { Folder } from "../../../adapters/files.ts";
import type { HttpContext } from "../../../http.ts";
import { Instant, bytes } from "../../parts/figures.tsx";
import { Action } from "../../parts/form.tsx";
import { Empty } from "../../parts/notice.tsx";
import { Table } from "../../parts/table.tsx";
import { accountPath } from "../account-page.tsx";

/** The page of a folder. `folder`: its path with `/` at the end. */
export function folderPath(c: HttpContext, folder: string): string {
  const path = accountPath(c, "/files");
  return folder === "" ? path : `${path}?in=${encodeURIComponent(folder)}`;
}

/** The folders above, as links. */
export const Trail: FC<{ c: HttpContext; folder: string }> = ({ c, folder }) => {
  if (folder === "") return null;
  const names = folder.slice(0, -1).split("/");
  return (
    <nav class="trail" aria-label="Folder">
      <ol>
        <li>
          <a href={folderPath(c, "")}>All documents</a>
        </li>
        {names.map((name, index) => (
          <li>
            {index === names.length - 1 ? (
              <span aria-current="page">{name}</span>
            ) : (
              <a href={folderPath(c, `${names.slice(0, index + 1).join("/")}/`)}>{name}</a>
            )}
          </li>
        ))}
      </ol>
    </nav>
  );
};

interface FolderProps {
  c: HttpContext;
  folder: string;
  found: Folder;
  changes: boolean;
}

export const FolderTable: FC<FolderProps> = ({ c, folder, found, changes }) => {
  const rows = [
    ...found.folders.map((path) => ({ path, file: undefined })),
    ...found.files.map((file) => ({ path: file.path, file })),
  ];
  const nothing = <span class="muted">–</span>;
  return (
    <Table
      caption={folder === "" ? "Documents" : `Documents in ${folder}`}
      hidesCaption
      rows={rows}
      columns={[
        {
          head: "Name",
          isHead: true,
          cell: ({ path, file }) => {
            const href =
              file === undefined
                ? folderPath(c, path)
                : `${accountPath(c, "/files/content")}?path=${encodeURIComponent(path)}`;
            return (
              <a href={href} download={file === undefined ? undefined : ""}>
                {path.slice(folder.length)}
              </a>
            );
          },
        },
        { head: "Type", cell: ({ file }) => (file === undefined ? "Folder" : <code>{file.contentType}</code>) },
        { head: "Size", isNumber: true, cell: ({ file }) => (file === undefined ? nothing : bytes(file.sizeBytes)) },
        { head: "Changed", cell: ({ file }) => (file === undefined ? nothing : <Instant at={file.updatedAt} />) },
        ...(changes
          ? [
              {
                head: "",
                cell: ({ path, file }: (typeof rows)[number]) => file && <Delete c={c} {...{ path, folder }} />,
              },
            ]
          : []),
      ]}
      empty={
        <Empty title={folder === "" ? "No documents yet" : "No documents in this folder"}>
          <p>Agents store documents with their tools{changes ? ", and you can upload some here" : ""}.</p>
        </Empty>
      }
    />
  );
};

const Delete: FC<{ c: HttpContext; path: string; folder: string }> = ({ c, path, folder }) => (
  <Action
    action={accountPath(c, "/files/delete")}
    label="Delete"
    tone="bad"
    isTiny
    fields={{ path, in: folder }}
    confirm={`Delete ${path}? This cannot be undone.`}
  />
);
