// Serves a bundle on a port with workerd and Miniflare until a signal stops it or its parent ends. Tests use it instead of
// `wrangler dev`, whose bundling, inspector and source maps would double the cost of a system. "direct" as the last argument
// leaves out Miniflare's own Worker in front, which fires crons and compresses answers.
import { readFileSync } from "node:fs";
import { Miniflare } from "miniflare";
import { miniflareOptions } from "./bundle.ts";

const [script = "", dir = "", port, varsFile = "", way] = process.argv.slice(2);
const miniflare = new Miniflare(
  miniflareOptions(script, {
    ...{ name: "tollgate", dir, vars: JSON.parse(readFileSync(varsFile, "utf8")) as Record<string, string> },
    ...(way === "direct"
      ? { unsafeDirectSockets: [{ host: "127.0.0.1", port: Number(port) }] }
      : { host: "127.0.0.1", port: Number(port), unsafeTriggerHandlers: true }),
  }),
);
const stop = (): void => void miniflare.dispose().then(() => process.exit(0));
for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.once(signal, stop);
// The channel to the parent closes when the parent ends, also after a SIGKILL.
process.once("disconnect", stop);
await miniflare.ready;
