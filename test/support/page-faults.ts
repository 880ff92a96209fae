// What keeps people from using a page: with a phone, a screen reader, or eyes that need contrast.
import axe from "axe-core";
import type { Page } from "playwright-core";

/** Findings of axe that keep people from using the page. */
const SERIOUS = new Set(["serious", "critical"]);

/** What is wrong with the page of the window, in words. */
export async function faultsOf(page: Page): Promise<string[]> {
  const { title, lang, mains, hiddenPixels } = (await page.evaluate(`({
    title: document.title,
    lang: document.documentElement.lang,
    mains: document.querySelectorAll("main").length,
    hiddenPixels: document.documentElement.scrollWidth - innerWidth,
  })`)) as { title: string; lang: string; mains: number; hiddenPixels: number };
  const faults = [
    ...(lang === "en" ? [] : [`the language is "${lang}"`]),
    ...(/\S/.test(title) ? [] : ["no title"]),
    ...(mains === 1 ? [] : [`${mains} main parts`]),
    ...(hiddenPixels <= 0 ? [] : [`${hiddenPixels} pixels are beside the screen`]),
  ];
  await page.evaluate(axe.source);
  // A list of a hundred entries of the same form takes axe a minute.
  await page.evaluate(
    `for (const each of document.querySelectorAll("section > article:nth-of-type(n + 4)")) each.remove()`,
  );
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme });
    const { violations } = (await page.evaluate(
      `axe.run({ resultTypes: ["violations"], ${colorScheme === "dark" ? `runOnly: ["color-contrast"]` : ""} })`,
    )) as axe.AxeResults;
    for (const { id, impact, nodes } of violations) {
      if (SERIOUS.has(impact ?? "")) faults.push(`${colorScheme}: ${id} at ${nodes.map(({ html }) => html).join(" ")}`);
    }
  }
  return faults;
}
