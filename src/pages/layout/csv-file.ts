// The answer with a table as a file, for pages whose numbers people take elsewhere.
import { type CsvCell, csvOf } from "../../core/text/csv.ts";
import { noStore } from "../../http.ts";

/** `name`: of the file, without `.csv`. Letters, digits and dashes. */
export function csvFile(name: string, header: readonly string[], rows: Iterable<readonly CsvCell[]>): Response {
  return new Response(csvOf(header, rows), {
    headers: {
      "content-type": "text/csv; charset=utf-8; header=present",
      "content-disposition": `attachment; filename="${name}.csv"`,
      ...noStore,
    },
  });
}
