// One JSON line per event; the only user of console. Fields are ids, codes and numbers: never a token, an argument,
// a row or a customer's text (DESIGN.md I9).

export type LogLevel = "info" | "warn" | "error";
export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

/** Writes one line. `event` is a stable snake_case name; lines of a request carry `requestId`, `tenantId` and `tool`. */
export function log(level: LogLevel, event: string, fields: LogFields = {}): void {
  console[level](JSON.stringify({ level, event, ...fields }));
}

/** The name and message of a thrown value, cut short, for a log line. */
export function describeError(error: unknown): string {
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return text.slice(0, 300);
}
