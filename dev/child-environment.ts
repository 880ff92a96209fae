// The environment of the programs that Tollgate starts on this machine: the Worker, wrangler, tests, the operator's commands.
// Invariant: a variable of the shell never chooses a database, a folder, a port or an account for them. A test that
// inherited TOLLGATE_DIR or CONTROL_DATABASE_URL would work on a running system.
import { resolve } from "node:path";

/**
 * Where Node keeps the compiled modules of Tollgate's programs, so that each start takes half of the CPU time. Node's key covers
 * its version and each module's content, and several processes may write at once.
 */
const compiled = { NODE_COMPILE_CACHE: resolve(import.meta.dirname, "../node_modules/.cache/tollgate-compiled") };

/** What a program needs from the shell to run at all: where programs, homes and temporary files are. */
const inherited = /^(PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|TEMP|TMP|LANG|TZ|TERM|NO_COLOR|FORCE_COLOR|CI)$|^(LC_|XDG_)/;
/** The same on Windows, whose names have no fixed case. */
const inheritedOnWindows = /^(SystemRoot|SystemDrive|ComSpec|PATHEXT|APPDATA|LOCALAPPDATA|USERPROFILE|windir)$/i;

const isInherited = (name: string): boolean => inherited.test(name) || inheritedOnWindows.test(name);

/**
 * The environment of this process without anything that configures Tollgate, plus `own`. Only TOLLGATE_APP is passed on:
 * it names the code that runs, and no data.
 */
export function childEnvironment(own: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const environment: Record<string, string | undefined> = { ...compiled };
  for (const [name, value] of Object.entries(process.env)) {
    if (isInherited(name) || name === "TOLLGATE_APP") environment[name] = value;
  }
  // The generated types claim that Node's environment has the Worker's variables.
  return Object.assign(environment, own) as NodeJS.ProcessEnv;
}

/** What a test run takes from the shell on purpose: vitest's own variables, the campaign's seeds, Stripe's sandbox, the browser. */
const ofTestRuns = /^(VITEST|TEST$|NODE_|npm_|CAMPAIGN_|STRIPE_SANDBOX_KEY$|CHROMIUM_PATH$)/;

/**
 * Removes from this process everything that configures Tollgate or PostgreSQL, so that tests ignore the shell. The processes of
 * the test runner share the compiled modules.
 */
export function ignoreShell(): void {
  for (const name of Object.keys(process.env)) {
    if (!isInherited(name) && !ofTestRuns.test(name)) delete process.env[name];
  }
  Object.assign(process.env, compiled);
}
