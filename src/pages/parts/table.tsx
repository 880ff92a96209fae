// A table of rows. It scrolls by itself on a phone, so that the page does not.
import type { Child } from "hono/jsx";

export interface Column<Row> {
  head: string;
  cell: (row: Row) => Child;
  /** Aligned to the right, with digits of one width. */
  isNumber?: boolean;
  /** Names the row for a screen reader. One column of each table. */
  isHead?: boolean;
}

interface TableProps<Row> {
  /** Says what the table lists. */
  caption: string;
  /** The heading above the table says it already; only a screen reader needs the caption. */
  hidesCaption?: boolean;
  columns: readonly Column<Row>[];
  rows: readonly Row[];
  /** A last row with sums: one content for each column, the first of which names the row. */
  foot?: readonly Child[];
  /** Instead of a table without rows. */
  empty?: Child;
  /** The id of a row, for links to it. */
  idOf?: (row: Row) => string;
}

export function Table<Row>({ caption, hidesCaption = false, columns, rows, foot, empty, idOf }: TableProps<Row>) {
  if (rows.length === 0 && empty !== undefined) return <>{empty}</>;
  return (
    // A region that scrolls must be reachable with the keyboard.
    <div class="scroll" role="region" aria-label={caption} tabindex={0}>
      <table>
        <caption class={hidesCaption ? "sr-only" : undefined}>{caption}</caption>
        <thead>
          <tr>
            {columns.map(({ head, isNumber }) => (
              <th scope="col" class={isNumber === true ? "number" : undefined}>
                {head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr id={idOf?.(row)}>
              {columns.map(({ cell, isNumber, isHead }) => {
                const content = cell(row);
                const className = isNumber === true ? "number" : undefined;
                return isHead === true ? (
                  <th scope="row" class={className}>
                    {content}
                  </th>
                ) : (
                  <td class={className}>{content}</td>
                );
              })}
            </tr>
          ))}
        </tbody>
        {foot !== undefined && (
          <tfoot>
            <tr>
              {foot.map((content, index) => {
                const className = columns[index]?.isNumber === true ? "number" : undefined;
                return index === 0 ? <th scope="row">{content}</th> : <td class={className}>{content}</td>;
              })}
            </tr>
          </tfoot>
        )}
      </table>
    </div>
  );
}

/** The link to the next page of a list, where there is one. `url`: this page's path with its other parameters. */
export function NextPage({ url, next }: { url: string; next: string | null }) {
  if (next === null) return null;
  return (
    <nav class="pages" aria-label="More of the list">
      <a class="button" href={`${url}${url.includes("?") ? "&" : "?"}after=${encodeURIComponent(next)}`}>
        Next page
      </a>
    </nav>
  );
}
