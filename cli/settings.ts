// Settings that one local system keeps between its runs: its generated secrets, the ports of its stand-ins, and the
// customers of its demonstration. They are one file of mode 0600 in the system's folder.
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseEnv } from "node:util";
import type { KeyRing } from "../src/core/keys/encryption.ts";
import { freePort, isFree } from "./ports.ts";

export interface DemoTenant {
  id: string;
  name: string;
  plan: string;
  strategy: string;
  apiKey: string;
}

export interface Settings {
  secrets: {
    operatorToken: string;
    credentialKey: string;
    contextKey: string;
    encryptionKey: string;
    neonApiKey: string;
    ownerPassword: string;
    servicePassword: string;
    appPassword: string;
    stripeSecretKey: string;
    stripeWebhookSecret: string;
    stripeThinWebhookSecret: string;
    oidcClientSecret: string;
  };
  /** Ports of the stand-ins, by name. The caller chooses the Worker's own port. */
  ports: Record<string, number>;
  demoTenants: DemoTenant[];
}

/** Reads the settings of `dir`. Generates the secrets that are missing. */
export function loadSettings(dir: string): Settings {
  mkdirSync(dir, { recursive: true });
  const secret = (): string => randomBytes(24).toString("hex");
  const generated: Settings = {
    secrets: {
      operatorToken: `op_${secret()}`,
      credentialKey: secret(),
      contextKey: secret(),
      encryptionKey: secret(),
      neonApiKey: secret(),
      ownerPassword: secret(),
      servicePassword: secret(),
      appPassword: secret(),
      stripeSecretKey: `sk_test_${secret()}`,
      stripeWebhookSecret: `whsec_${secret()}`,
      stripeThinWebhookSecret: `whsec_${secret()}`,
      oidcClientSecret: secret(),
    },
    ports: {},
    demoTenants: [],
  };
  try {
    const kept = JSON.parse(readFileSync(join(dir, "settings.json"), "utf8")) as Partial<Settings>;
    // Adds the secrets that the version of the program that wrote the file did not have.
    return { ...generated, ...kept, secrets: { ...generated.secrets, ...kept.secrets } };
  } catch {
    return generated;
  }
}

/** Keys with which a local system encrypts logins, newest first. There are two, so that a rotation can be tried. */
export function encryptionKeysOf({ secrets: { encryptionKey } }: Settings): KeyRing {
  return [
    { id: "local", secret: encryptionKey },
    { id: "other", secret: `other ${encryptionKey}` },
  ];
}

/** Replaces the file in one step. A program that is killed meanwhile leaves the old file. */
export function saveSettings(dir: string, settings: Settings): void {
  const path = join(dir, "settings.json");
  writeFileSync(`${path}.new`, `${JSON.stringify(settings, null, 2)}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/** Reads the operator's own values (`.dev.vars`). Each value replaces a stand-in. Returns none when there is no file. */
export function readDevVars(path: string): Record<string, string | undefined> {
  try {
    return parseEnv(readFileSync(path, "utf8"));
  } catch {
    return {};
  }
}

/**
 * The variables of a command: from the environment, then from .dev.vars. With `localVariables`, those of the local system in
 * TOLLGATE_DIR only. Throws when no system has run there. A missing variable is an empty string.
 */
export function readVariables(
  localVariables?: (settings: Settings) => Record<string, string>,
): (name: string) => string {
  let values: Record<string, string | undefined> = { ...readDevVars(".dev.vars"), ...process.env };
  if (localVariables !== undefined) {
    const dir = resolve(process.env["TOLLGATE_DIR"] ?? ".dev");
    if (!existsSync(join(dir, "settings.json")))
      throw new Error(`No system has run in ${dir}. Run npm start first, or set TOLLGATE_DIR.`);
    values = localVariables(loadSettings(dir));
  }
  return (name) => values[name] ?? "";
}

/** Whether `npm start` runs in TOLLGATE_DIR (.dev). It removes its demo.json when it stops. */
export function localSystemRuns(): boolean {
  return existsSync(join(resolve(process.env["TOLLGATE_DIR"] ?? ".dev"), "demo.json"));
}

/** Chooses the port of a stand-in: the port of its last run when that is free, otherwise any free port. */
export async function portFor(settings: Settings, name: string): Promise<number> {
  const last = settings.ports[name];
  const port = last !== undefined && (await isFree(last)) ? last : await freePort();
  settings.ports[name] = port;
  return port;
}
