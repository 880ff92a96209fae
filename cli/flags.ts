// The flags of a program that npm starts: --help prints what the program does, a wrong flag ends it with one line.
import { type ParseArgsConfig, parseArgs } from "node:util";

type Options = NonNullable<ParseArgsConfig["options"]>;
type Parsed<Flags extends Options, Positionals extends boolean> = ReturnType<
  typeof parseArgs<{ options: Flags; allowPositionals: Positionals; allowNegative: true }>
>;

/** Exit code for a wrong command line, as in shells. */
const WRONG_USAGE = 2;

/**
 * Parses the command line. `command` is what the user types, e.g. `npm run bench`; `help` is the text for --help.
 * Ends the process with 0 after --help, and with 2 and one line on stderr after a wrong flag.
 */
export function readFlags<const Flags extends Options, const Positionals extends boolean = false>(options: {
  command: string;
  help: string;
  flags: Flags;
  positionals?: Positionals;
}): Parsed<Flags, Positionals> {
  const { command, help, flags } = options;
  if (process.argv.slice(2).some((each) => each === "--help" || each === "-h")) {
    process.stdout.write(`${help.trim()}\n`);
    process.exit(0);
  }
  try {
    return parseArgs({
      options: flags,
      allowPositionals: (options.positionals ?? false) as Positionals,
      allowNegative: true,
    });
  } catch (error) {
    return refuse(command, error instanceof Error ? error.message : String(error));
  }
}

/** A whole number of at least `least`. Ends the process with 2 and one line on stderr if `text` is anything else. */
export function wholeNumber(command: string, flag: string, text: string, least = 1): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value >= least) return value;
  return refuse(command, `--${flag} takes a whole number of at least ${least}, and was given "${text}"`);
}

/** Ends the process with one line: the mistake, and where the help is. */
export function refuse(command: string, problem: string): never {
  const [firstSentence = problem] = problem.split(/\.(?:\s|$)/);
  process.stderr.write(`${command}: ${firstSentence}. See ${command} -- --help\n`);
  process.exit(WRONG_USAGE);
}
