// What travels to a database and comes back, by HTTP and by session alike, and which texts a tool may send.

export interface Statement {
  /** One statement with placeholders `$1`, `$2`. */
  text: string;
  params?: readonly unknown[];
  /** Its rows come as arrays of values, as `values` of a tool's database has them. */
  asValues?: boolean;
}

/** Column names to parsed values. */
export type Row = Record<string, unknown>;

const dataStatement = /^\s*(?:select|insert|update|delete|merge|values|with)\b/i;

/**
 * Whether a text is a statement about data: none of transactions, settings, roles or the schema. The first word decides,
 * as it does for PostgreSQL's parser, which takes one statement a message. Whether the text is valid is not looked at.
 */
export function isDataStatement(text: string): boolean {
  return dataStatement.test(text);
}
