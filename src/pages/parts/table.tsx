// A table of rows. On a phone each row is a block with a line for each column, headed by the row's name. Tables of a few columns,
// and those of figures alone, stay tables, and scroll by themselves, so that the page does not.
import type { Child } from "hono/jsx";

export interface Column<Row> {
  head: string;
  cell: (row: Row) => Child;
  /** Aligned to the right, with digits of one width. */
  isNumber?: boolean;
  /** Names the row for a screen reader. One column of each table. */
  isHead?: boolean;
}

/** So many columns fit a phone. */
const FEW_COLUMNS = 2;

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
  /** Its columns are narrow, so that it stays a table on a phone. */
  isNarrow?: boolean;
  /** The id of a row, for links to it. */
  idOf?: (row: Row) => string;
}

export function Table<Row>(props: TableProps<Row>) {
  const { caption, hidesCaption = false, columns, rows, foot, empty, idOf, isNarrow = false } = props;
  if (rows.length === 0 && empty !== undefined) return <>{empty}</>;
  return (
    // A region that scrolls must be reachable with the keyboard.
    <div class="scroll" role="region" aria-label={caption} tabindex={0}>
      {/* The roles stay when the style makes blocks of the rows. */}
      <table role="table" class={isNarrow || columns.length <= FEW_COLUMNS ? undefined : "rows"}>
        <caption class={hidesCaption ? "sr-only" : undefined}>{caption}</caption>
        <thead>
          <tr role="row">
            {columns.map(({ head, isNumber }) => (
              <th role="columnheader" scope="col" class={isNumber === true ? "number" : undefined}>
                {head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr role="row" id={idOf?.(row)}>
              {columns.map(({ head, cell, isNumber, isHead }) => {
                const content = cell(row);
                const className = isNumber === true ? "number" : undefined;
                return isHead === true ? (
                  <th role="rowheader" scope="row" class={className}>
                    {content}
                  </th>
                ) : (
                  <td role="cell" class={className} data-label={head}>
                    {content}
                  </td>
                );
              })}
            </tr>
          ))}
        </tbody>
        {foot !== undefined && (
          <tfoot>
            <tr role="row">
              {foot.map((content, index) => {
                const { head, isNumber } = columns[index] ?? {};
                if (index === 0) return <th scope="row">{content}</th>;
                return (
                  <td role="cell" class={isNumber === true ? "number" : undefined} data-label={head}>
                    {content}
                  </td>
                );
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
