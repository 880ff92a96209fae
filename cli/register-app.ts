// Preloaded by npm's scripts (`node --import ./cli/register-app.ts`): writes the generated modules, and, when TOLLGATE_APP
// names another folder than app/, makes `#app/...` mean that folder in this process.
import { registerHooks } from "node:module";
import { pathToFileURL } from "node:url";
import { generate } from "./generate.ts";

const modules = generate();
if (process.env["TOLLGATE_APP"] !== undefined) {
  registerHooks({
    resolve(specifier, context, next) {
      const path = Object.entries(modules).find(([name]) => name === specifier)?.[1];
      return path === undefined ? next(specifier, context) : { url: pathToFileURL(path).href, shortCircuit: true };
    },
  });
}
