// Finds secrets in texts that must have none: log lines, rows of the control tables, archives, mails, alarms and error texts.
// Two ways find one. A secret has a form, such as a key's. Or its value is known: the deployment's secrets, and each
// credential that the product has issued to a test.

/**
 * Secrets that a form shows. Each repetition has an end: without one the search of a line of some megabytes, such as a stored
 * document's, uses up the stack. Wider than `credentialPattern`: a credential that a log line has cut is a leak, too.
 */
const forms: Readonly<Record<string, RegExp>> = {
  "a credential of Tollgate's": /\btg[a-z]_[a-z0-9][a-z0-9_-]*\.[A-Za-z0-9_-]{1,4000}\.[A-Za-z0-9_.-]{20,4000}/,
  "a signed token": /\beyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{20,4000}/,
  "a database login": /\bpostgres(?:ql)?:\/\/[^\s:/@"]+:[^\s:/@"]+@/,
  // Flow tests give providers such secrets.
  "a client secret": /planted-client-secret-/,
  "a secret of a tool": /planted-(?:tenant|operator)-secret-/,
  "a bearer header": /\bbearer [A-Za-z0-9_.~+/=-]{16,4000}/i,
};

/** Shorter values appear in texts by chance. */
const LEAST_CHARS = 12;
/** Leaks of one kind repeat. */
const MAX_LEAKS = 20;

/** What is searched for. */
export interface Secrets {
  /** Values by their names. */
  named: Readonly<Record<string, string>>;
  /** Secret parts of issued credentials, with what each one is. */
  issued?: ReadonlyMap<string, string>;
  /** The text may have what looks like a credential. A stored grant is named by the genuine, harmless part of its tokens. */
  valuesOnly?: boolean;
}

/** The first lines of `text` with a secret: what it is, and the line without it. */
export function leaksIn(text: string, { named, issued = new Map(), valuesOnly = false }: Secrets): string[] {
  const values = Object.entries(named).filter(([, value]) => value.length >= LEAST_CHARS);
  const searched = valuesOnly ? [] : Object.entries(forms);
  const leaks: string[] = [];
  for (const line of text.split("\n")) {
    const found =
      find(values, ([, value]) => (line.includes(value) ? value : undefined)) ??
      findIssued(line, issued) ??
      find(searched, ([, form]) => form.exec(line)?.[0]);
    if (found === undefined) continue;
    const [name, secret] = found;
    const at = Math.max(0, line.indexOf(secret) - SHOWN_BEFORE);
    leaks.push(`${name}: ${line.slice(at).replaceAll(secret, "…").slice(0, 300)}`);
    if (leaks.length >= MAX_LEAKS) break;
  }
  return leaks;
}

/** Enough of a long line to see where in the program it comes from. */
const SHOWN_BEFORE = 150;

/** The name of the first entry that has a secret, and the secret. */
function find<Value>(
  entries: readonly [string, Value][],
  secretOf: (entry: [string, Value]) => string | undefined,
): [name: string, secret: string] | undefined {
  for (const entry of entries) {
    const secret = secretOf(entry);
    if (secret !== undefined) return [entry[0], secret];
  }
  return undefined;
}

/** What no random part of a credential has. One character, for the same reason as above. */
const BETWEEN_RUNS = /[^A-Za-z0-9_-]/;

/** Looked up by whole runs: a search for each of thousands of values in each line would take minutes. */
function findIssued(line: string, issued: ReadonlyMap<string, string>): [name: string, secret: string] | undefined {
  if (issued.size === 0) return undefined;
  for (const run of line.split(BETWEEN_RUNS)) {
    const name = issued.get(run);
    if (name !== undefined) return [name, run];
  }
  return undefined;
}

const kinds: Readonly<Record<string, string>> = {
  ...{ k: "an API key", s: "a set-up token", p: "a status token", m: "a monitor token", i: "an invitation" },
  ...{ o: "an OAuth token or code", a: "an impersonation" },
};

/** What an answer may bring to the one who may have it, beside credentials of Tollgate's form. */
const issuedForms: Readonly<Record<string, RegExp>> = {
  "a session": /__Host-tollgate-session=(?<value>[A-Za-z0-9_-]{43})/g,
  "a client's secret": /"client_secret":"(?<value>[A-Za-z0-9_-]{20,})"/g,
};

/**
 * The secret parts of the credentials in an answer of the product. Of an OAuth token or code only the last part is secret: what
 * stands before names its grant.
 */
export function issuedIn(text: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const [credential] of text.matchAll(/\btg[a-z]_[a-z0-9][a-z0-9_-]*(?:(?:[.:]|%3A)[A-Za-z0-9_-]+){2,}/g)) {
    const kind = kinds[credential.charAt(2)] ?? "a credential";
    const parts = credential.split(/[.:]|%3A/);
    // The scopes of a key stand before them.
    const secrets = /:|%3A/.test(credential) ? parts.slice(-1) : parts.slice(-3);
    for (const part of secrets) if (/^[A-Za-z0-9_-]{20,}$/.test(part)) found.set(part, kind);
  }
  for (const [name, form] of Object.entries(issuedForms))
    for (const { groups } of text.matchAll(form)) if (groups?.["value"] !== undefined) found.set(groups["value"], name);
  return found;
}
