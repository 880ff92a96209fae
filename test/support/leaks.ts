// Finds secrets in texts that must have none: log lines and audit rows. Flow tests end with this check over all that their
// system has logged.

/** Secrets that a form shows. Wider than `credentialPattern`: a credential that a log line has cut is a leak, too. */
const forms: Readonly<Record<string, RegExp>> = {
  "a credential of Tollgate's": /\btg[a-z]_[a-z0-9][a-z0-9_-]*\.[A-Za-z0-9_-]+\.[A-Za-z0-9_.-]{20,}/,
  "a signed token": /\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}/,
  "a database login": /\bpostgres(?:ql)?:\/\/[^\s:/@"]+:[^\s:/@"]+@/,
  "a bearer header": /\bbearer [A-Za-z0-9_.~+/=-]{16,}/i,
};

/** Shorter values appear in texts by chance. */
const LEAST_CHARS = 12;

/** The first lines of `text` with a secret: what it is, and the line without it. `secrets`: values by their names. */
export function leaksIn(text: string, secrets: Readonly<Record<string, string>>): string[] {
  const values = Object.entries(secrets).filter(([, value]) => value.length >= LEAST_CHARS);
  const leaks: string[] = [];
  for (const line of text.split("\n")) {
    const byValue = values.find(([, value]) => line.includes(value));
    const byForm = Object.entries(forms).find(([, form]) => form.test(line));
    const found = byValue?.[0] ?? byForm?.[0];
    if (found === undefined) continue;
    const hidden = byForm === undefined ? line : line.replace(byForm[1], "…");
    leaks.push(`${found}: ${(byValue === undefined ? hidden : hidden.replaceAll(byValue[1], "…")).slice(0, 300)}`);
    if (leaks.length >= MAX_LEAKS) break;
  }
  return leaks;
}

/** Leaks of one kind repeat. */
const MAX_LEAKS = 20;
