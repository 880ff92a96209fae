// Lets unit tests import the OAuth library in Node: the library extends a class of the platform's module, which Node does not
// have. vitest.config.ts loads this file before the tests. It replaces nothing of Tollgate's own.
import { registerHooks } from "node:module";

registerHooks({
  resolve(specifier, context, next) {
    if (specifier !== "cloudflare:workers") return next(specifier, context);
    return {
      url: "data:text/javascript,export class WorkerEntrypoint {}",
      shortCircuit: true,
    };
  },
});
