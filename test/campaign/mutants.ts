// Ways to get it wrong that look right: what the usual program does. Each is one change of the source; a campaign that
// does not notice one of them proves nothing. A text that is not found any more is an error, so that none goes stale.

export interface Mutant {
  name: string;
  file: string;
  find: string;
  replace: string;
}

export const mutants: readonly Mutant[] = [];
