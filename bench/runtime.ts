// Runs a bundle in its own workerd, with state on disk. Requests go directly to workerd's socket, without a proxy.
import { basename } from "node:path";
import { Miniflare } from "miniflare";
import { miniflareOptions } from "../dev/bundle.ts";
import { childrenNamed } from "./cpu.ts";

export interface Runtime {
  port: number;
  pid: number;
  miniflare: Miniflare;
}

/** Starts the bundle; `inspect` opens workerd's inspector, which costs a little all the time. */
export async function startRuntime(
  script: string,
  options: { dir: string; vars: Record<string, string>; inspect?: boolean; running: (() => Promise<unknown>)[] },
): Promise<Runtime> {
  const { dir, vars, inspect = false, running } = options;
  const before = new Set(childrenNamed(process.pid, "workerd"));
  const name = basename(dir);
  const miniflare = new Miniflare(
    miniflareOptions(script, {
      ...{ name, dir, vars, ...(inspect ? { inspectorPort: 0 } : {}) },
      unsafeDirectSockets: [{ host: "127.0.0.1", port: 0 }],
    }),
  );
  running.push(() => miniflare.dispose());
  const { port } = await miniflare.unsafeGetDirectURL(name);
  const [pid] = childrenNamed(process.pid, "workerd").filter((each) => !before.has(each));
  if (pid === undefined) throw new Error("Miniflare started no workerd");
  return { port: Number(port), pid, miniflare };
}
