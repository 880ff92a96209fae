// Runs the Neon stand-in in a separate process, so that its CPU time can be measured alone. Sends its port to the parent and
// ends with the parent.
import { startNeonProxy } from "../dev/neon/proxy.ts";

const proxy = await startNeonProxy({ port: 0 });
process.send?.({ port: proxy.port });
process.on("disconnect", () => process.exit());
