// Everything that is sold: the product's own tools, then the tools, resources and prompts of app/ in the order of their file names.
// Clients see them in this order. The program does not start if a file exports none or several, or if two have the same name: a
// call is counted and charged under its name.
import { promptFiles, resourceFiles, toolFiles } from "#app/tools";
import { getUsage } from "./get-usage.ts";
import { healthCheck } from "./health-check.ts";
import { checkedOffer } from "./offer.ts";
import { type Prompt, isPrompt } from "./provided/prompt.ts";
import { type Resource, isResource } from "./provided/resource.ts";
import { type Tool, isTool } from "./tool.ts";

type Files = readonly { file: string; exports: Readonly<Record<string, unknown>> }[];

export const catalogue: ReadonlyMap<string, Tool> = catalogueOf([healthCheck, getUsage], toolFiles);
export const resources: ReadonlyMap<string, Resource> = providedOf(resourceFiles, "resource", isResource);
export const prompts: ReadonlyMap<string, Prompt> = providedOf(promptFiles, "prompt", isPrompt);
checkedOffer(checkedNames(catalogue, [...resources.values(), ...prompts.values()]));

/** What a call of this name runs: a tool, the read of a resource, or a prompt. */
export function callable(name: string): Tool | undefined {
  return catalogue.get(name) ?? resources.get(name)?.tool ?? prompts.get(name)?.tool;
}

/** The resource that has this URI, with the variables in it. */
export function resourceOf(
  uri: string,
  all: Iterable<Resource> = resources.values(),
): { resource: Resource; params: Record<string, string> } | undefined {
  let template: { resource: Resource; params: Record<string, string> } | undefined;
  for (const resource of all) {
    const params = resource.match(uri);
    if (params === undefined) continue;
    // A URI of its own comes before a template that also has it.
    if (!resource.isTemplate) return { resource, params };
    template ??= { resource, params };
  }
  return template;
}

/** The catalogue of these tools and files. Throws with the file's name and the remedy. */
export function catalogueOf(own: readonly Tool[], files: Files): ReadonlyMap<string, Tool> {
  const found = new Map(own.map((tool) => [tool.name, { tool, file: "src/tools" }]));
  for (const { file, exports } of files) {
    const tool = onlyOne(file, Object.values(exports).filter(isTool), "tool");
    const other = found.get(tool.name);
    if (other !== undefined)
      throw new Error(`The tool ${tool.name} is in ${other.file} and in ${file}. Give one of them another name.`);
    found.set(tool.name, { tool, file });
  }
  return new Map(Array.from(found, ([name, { tool }]) => [name, tool]));
}

/** The resources or prompts of these files, by name. Throws with the file's name and the remedy. */
export function providedOf<Provided extends { tool: Tool }>(
  files: Files,
  kind: "resource" | "prompt",
  isOne: (value: unknown) => value is Provided,
): ReadonlyMap<string, Provided> {
  const all = files.map(({ file, exports }) => onlyOne(file, Object.values(exports).filter(isOne), kind));
  return new Map(all.map((each) => [each.tool.name, each]));
}

function onlyOne<One>(file: string, [one, ...more]: readonly One[], kind: "tool" | "resource" | "prompt"): One {
  if (one !== undefined && more.length === 0) return one;
  const define = `define${kind.charAt(0).toUpperCase()}${kind.slice(1)}`;
  throw new Error(
    `${file} exports ${more.length + (one === undefined ? 0 : 1)} ${kind}s. Export one ${kind}, made by ${define}(...), from each file; ` +
      "put helpers into another folder of app/.",
  );
}

/** Everything by its name. Throws when two have the same. */
export function checkedNames(
  tools: ReadonlyMap<string, Tool>,
  provided: readonly { tool: Tool }[],
): ReadonlyMap<string, Tool> {
  const all = new Map(tools);
  for (const { tool } of provided) {
    if (all.has(tool.name))
      throw new Error(
        `Two of app/tools, app/resources and app/prompts have the name ${tool.name}. Give one another name.`,
      );
    all.set(tool.name, tool);
  }
  return all;
}
