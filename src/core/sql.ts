// Statements and rows, the same over HTTP and in a session, and which statements a tool may send.

export interface Statement {
  /** One statement with placeholders `$1`, `$2`. */
  text: string;
  params?: readonly unknown[];
  /** Returns each row as an array of values instead of an object. */
  asValues?: boolean;
}

/** Parsed values by column name. */
export type Row = Record<string, unknown>;

const dataStatement = /^\s*(?:select|insert|update|delete|merge|values|with)\b/i;

/**
 * Whether a text reads or writes rows, rather than transactions, settings, roles or the schema. The first word decides, as
 * it does for PostgreSQL's parser, which takes one statement per message. Does not check whether the text is valid.
 */
export function isDataStatement(text: string): boolean {
  return dataStatement.test(text);
}
