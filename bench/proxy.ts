// Runs the Neon stand-in in a process of its own, so that its CPU can be told from everybody else's. Says its port to
// the parent and ends with it.
import { startNeonProxy } from "../dev/neon/proxy.ts";

const proxy = await startNeonProxy({ port: 0 });
process.send?.({ port: proxy.port });
process.on("disconnect", () => process.exit());
