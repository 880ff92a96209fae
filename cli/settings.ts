// What one local system keeps between its runs: the secrets that were made up for it, the ports it had, and the
// customers of its demonstration. One file of mode 0600 in the system's folder.
import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { parseEnv } from "node:util";
import type { KeyRing } from "../src/core/encryption.ts";

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
  };
  /** Of the stand-ins, by name. The Worker's own port is the caller's to choose. */
  ports: Record<string, number>;
  demoTenants: DemoTenant[];
}

/** Reads the settings of `dir`; what they lack is made up. */
export function loadSettings(dir: string): Settings {
  mkdirSync(dir, { recursive: true });
  const secret = (): string => randomBytes(24).toString("hex");
  const madeUp: Settings = {
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
    },
    ports: {},
    demoTenants: [],
  };
  try {
    const kept = JSON.parse(readFileSync(join(dir, "settings.json"), "utf8")) as Partial<Settings>;
    // A secret that an earlier version of this program did not have is made up now.
    return { ...madeUp, ...kept, secrets: { ...madeUp.secrets, ...kept.secrets } };
  } catch {
    return madeUp;
  }
}

/** The keys that a local system encrypts logins with, newest first. Two, so that a rotation can be tried. */
export function encryptionKeysOf({ secrets: { encryptionKey } }: Settings): KeyRing {
  return [
    { id: "local", secret: encryptionKey },
    { id: "other", secret: `other ${encryptionKey}` },
  ];
}

/** Replaces the file in one step: a kill in the middle leaves the old one. */
export function saveSettings(dir: string, settings: Settings): void {
  const path = join(dir, "settings.json");
  writeFileSync(`${path}.new`, `${JSON.stringify(settings, null, 2)}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/** The operator's own values (`.dev.vars`); each one given makes the stand-in that it replaces step aside. */
export function readDevVars(path: string): Record<string, string | undefined> {
  try {
    return parseEnv(readFileSync(path, "utf8"));
  } catch {
    return {};
  }
}

/** The port that a stand-in had last time if it is free, otherwise any free one, so that addresses stay where they can. */
export async function portFor(settings: Settings, name: string): Promise<number> {
  const last = settings.ports[name];
  const port = last !== undefined && (await isFree(last)) ? last : await freePort();
  settings.ports[name] = port;
  return port;
}

/** Whether nobody listens on this port of the loopback. */
export function isFree(port: number): Promise<boolean> {
  return listenOnce(port).then(
    () => true,
    () => false,
  );
}

export function freePort(): Promise<number> {
  return listenOnce(0);
}

function listenOnce(port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => {
      const address = server.address();
      const taken = typeof address === "object" && address !== null ? address.port : port;
      server.close(() => resolve(taken));
    });
  });
}
