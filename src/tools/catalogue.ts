// Every tool that is sold: the product's own, then those of app/tools in the order of their file names. Clients see them in
// this order. The program does not start if a file exports no tool or
// several, or if two tools have the same name.
import { toolFiles } from "#app/tools";
import { getUsage } from "./get-usage.ts";
import { healthCheck } from "./health-check.ts";
import { checkedOffer } from "./offer.ts";
import { type Tool, isTool } from "./tool.ts";

export const catalogue: ReadonlyMap<string, Tool> = checkedOffer(catalogueOf([healthCheck, getUsage], toolFiles));

/** The catalogue of these tools and files. Throws with the file's name and the remedy. */
export function catalogueOf(
  own: readonly Tool[],
  files: readonly { file: string; exports: Readonly<Record<string, unknown>> }[],
): ReadonlyMap<string, Tool> {
  const found = new Map(own.map((tool) => [tool.name, { tool, file: "src/tools" }]));
  for (const { file, exports } of files) {
    const [tool, ...more] = Object.values(exports).filter(isTool);
    if (tool === undefined || more.length > 0)
      throw new Error(
        `${file} exports ${more.length + (tool === undefined ? 0 : 1)} tools. Export one tool, made by defineTool(...), from each file; ` +
          "put helpers into another folder of app/.",
      );
    const other = found.get(tool.name);
    if (other !== undefined)
      throw new Error(`The tool ${tool.name} is in ${other.file} and in ${file}. Give one of them another name.`);
    found.set(tool.name, { tool, file });
  }
  return new Map(Array.from(found, ([name, { tool }]) => [name, tool]));
}
