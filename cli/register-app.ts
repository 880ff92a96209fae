// Preloaded by npm's scripts (`node --import ./cli/register-app.ts`): writes the generated modules, and, when TOLLGATE_APP
// names another folder than app/, makes `#app/...` mean that folder in this process.
import { enableCompileCache, registerHooks } from "node:module";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { generate } from "./generate.ts";

// Halves the time that a program takes to start, from the second start on.
enableCompileCache(resolve(import.meta.dirname, "../.generated/compile-cache"));
const modules = generate();
if (process.env["TOLLGATE_APP"] !== undefined) {
  registerHooks({
    resolve(specifier, context, next) {
      const path = Object.entries(modules).find(([name]) => name === specifier)?.[1];
      return path === undefined ? next(specifier, context) : { url: pathToFileURL(path).href, shortCircuit: true };
    },
  });
}
