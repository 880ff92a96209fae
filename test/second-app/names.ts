// A helper file of the tools: how notes are named in the account's settings.

/** The setting that holds the note of this name. */
export function settingOf(name: string): string {
  return `note.${name}`;
}
