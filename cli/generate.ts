// Writes the modules that `src/` reaches by `#app/tools`, `#app/migrations`, `#migrations`, `#assets` and `#docs`, so that a
// tool, a resource, a prompt, a migration, a document or a file that pages load is found by its folder and no list is kept by hand. Git ignores them. npm runs this after an installation, and wrangler
// before each bundle. It replaces a file in one step, and only when the text changes, so that watchers see no empty change.
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join, relative, resolve, sep } from "node:path";
import { renderDocs } from "./generate-docs.ts";

const root = resolve(import.meta.dirname, "..");

/** Paths of the modules of one app folder, by the names that `src/` imports them by. */
export type AppModules = Readonly<Record<"#app/config" | "#app/tools" | "#app/migrations", string>>;

/** The operator's folder: `app/`, or the one that TOLLGATE_APP names. */
export function appFolder(): string {
  return resolve(root, process.env["TOLLGATE_APP"] ?? "app");
}

/** Files of a folder of migrations, `NNNN_name.sql`, in their order. Returns none when the folder does not exist. */
export function migrationsIn(directory: string): string[] {
  return filesIn(directory).filter((name) => /^\d{4}_\w+\.sql$/.test(name));
}

/** Writes the modules of an app folder and the product's migrations. Returns where they are. */
export function generate(app: string = appFolder()): AppModules {
  if (!existsSync(join(app, "config.ts")))
    throw new Error(`${app} has no config.ts: TOLLGATE_APP must name a folder such as app/.`);
  const isDefault = app === join(root, "app");
  const target = join(root, ".generated", isDefault ? "app" : slugOf(app));
  const tools = join(target, "tools.ts");
  const migrations = join(target, "migrations.ts");
  write(tools, toolsModule(tools, app));
  write(migrations, migrationsModule({ appMigrations: ["app", join(app, "migrations")] }));
  write(
    join(root, ".generated/migrations.ts"),
    migrationsModule({
      commonMigrations: ["common", join(root, "migrations/common")],
      branchOnlyMigrations: ["branch", join(root, "migrations/branch")],
      sharedOnlyMigrations: ["shared", join(root, "migrations/shared")],
      productMigrations: ["product", join(root, "migrations/tenant")],
    }),
  );
  write(join(root, ".generated/assets.ts"), assetsModule());
  write(join(root, ".generated/docs.ts"), docsModule());
  return { "#app/config": join(app, "config.ts"), "#app/tools": tools, "#app/migrations": migrations };
}

/** A name for the folder of another app's modules: its path from the project. */
function slugOf(app: string): string {
  return relative(root, app)
    .replaceAll(/[^a-z0-9]+/gi, "-")
    .replace(/^-|-$/g, "");
}

/** Lists of the app's files by the name of their constant: one for each folder. */
function toolsModule(target: string, app: string): string {
  const folders = { toolFiles: "tools", resourceFiles: "resources", promptFiles: "prompts" };
  const imports: string[] = [];
  const lists = Object.entries(folders).map(([name, folder]) => {
    const files = filesIn(join(app, folder)).filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts"));
    const entries = files.map((file, index) => {
      const from = JSON.stringify(importPath(dirname(target), join(app, folder, file)));
      imports.push(`import * as ${folder}${index} from ${from};`);
      return `  { file: ${JSON.stringify(`${basename(app)}/${folder}/${file}`)}, exports: ${folder}${index} },`;
    });
    const type = "readonly { file: string; exports: Readonly<Record<string, unknown>> }[]";
    return [`export const ${name}: ${type} = [`, ...entries, "];"].join("\n");
  });
  return `${[header, ...imports].join("\n")}\n\n${lists.join("\n\n")}\n`;
}

/** Lists of migrations by the name of their constant: the series that records them, and their folder. */
function migrationsModule(folders: Readonly<Record<string, readonly [series: string, directory: string]>>): string {
  const lists = Object.entries(folders).map(([name, [series, directory]]) => {
    const files = migrationsIn(directory).map((file) => {
      const text = readFileSync(join(directory, file), "utf8");
      return `  { series: ${JSON.stringify(series)}, name: ${JSON.stringify(file)}, text: ${JSON.stringify(text)} },`;
    });
    return [`export const ${name}: readonly { series: string; name: string; text: string }[] = [`, ...files, "];"].join(
      "\n",
    );
  });
  return `${header}\n${lists.join("\n\n")}\n`;
}

/** The texts of the files that pages load. Comments and indentation stay here. */
function assetsModule(): string {
  const folder = join(root, "src/pages/assets");
  const css = (name: string): string =>
    readFileSync(join(folder, name), "utf8")
      .replaceAll(/\/\*.*?\*\//gs, "")
      .replaceAll(/\s+/g, " ")
      .replaceAll(/ ?([{};,]) ?/g, "$1")
      .trim();
  const script = readFileSync(join(folder, "browser.js"), "utf8").replaceAll(/^\s*\/\/.*\n|^\s+/gm, "");
  const htmx = readFileSync(createRequire(import.meta.url).resolve("htmx.org/dist/htmx.min.js"), "utf8");
  const sheets = { styleSheet: css("style.css"), accountSheet: css("account.css") };
  const texts = { ...sheets, browserScript: script, htmxScript: htmx };
  return [
    header,
    ...Object.entries(texts).map(([name, text]) => `export const ${name} = ${JSON.stringify(text)};`),
    "",
  ].join("\n");
}

function docsModule(): string {
  const docs = renderDocs(join(root, "docs")).map((doc) => `  ${JSON.stringify(doc)},`);
  const type = "readonly { slug: string; title: string; summary: string; html: string }[]";
  return [header, `export const docs: ${type} = [`, ...docs, "];", ""].join("\n");
}

const header = "// Written by cli/generate.ts. Do not edit.";

function filesIn(directory: string): string[] {
  return existsSync(directory) ? readdirSync(directory).toSorted() : [];
}

function importPath(from: string, to: string): string {
  const path = relative(from, to).split(sep).join("/");
  return path.startsWith(".") ? path : `./${path}`;
}

function write(path: string, text: string): void {
  if (existsSync(path) && readFileSync(path, "utf8") === text) return;
  mkdirSync(dirname(path), { recursive: true });
  // Several programs may write concurrently. Each writes its own file, and the last rename wins with the same text.
  const next = `${path}.${process.pid}`;
  writeFileSync(next, text);
  renameSync(next, path);
}

if (import.meta.main) generate();
