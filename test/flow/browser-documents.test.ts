// The documents of an account with a real browser, with its own file chooser and downloads. `newPage` fails a test whose page has
// reported an error: a script that failed, a dialog, anything that the content policy has refused.
import { readFile } from "node:fs/promises";
import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { confirmed, newPage, shows } from "../support/browser.ts";
import { aTenant, callTool, system } from "../support/flow.ts";
import { signInAsOwner } from "../support/owners.ts";
import { faultsOf } from "../support/page-faults.ts";

/** A narrow phone, in CSS pixels. */
const PHONE = { width: 360, height: 780 };
/** A name that would be markup, if a page did not write it as text. */
const HOSTILE = `<img src=x onerror=alert(1)>"'&amp;.html`;

const open = (page: Page, id: string, query = "") => page.goto(`${system.publicUrl}/app/${id}/files${query}`);
const press = (page: Page, name: string): Promise<void> => page.getByRole("button", { name, exact: true }).click();
const contentOf = async (page: Page): Promise<string> =>
  (await page.locator("main").innerText()).replaceAll(/\s+/g, " ");
const choose = (page: Page, name: string, text: string, mimeType = "text/plain"): Promise<void> =>
  page.locator("input[type=file]").setInputFiles({ name, mimeType, buffer: Buffer.from(text) });

/** Where a click on the link saves a file, and under which name. */
async function saved(page: Page, link: string): Promise<{ name: string; text: string }> {
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("link", { name: link, exact: true }).click(),
  ]);
  return { name: download.suggestedFilename(), text: await readFile(await download.path(), "utf8") };
}

test("a person uploads what an agent reads, downloads what an agent wrote, and deletes it", async () => {
  const { id, apiKey } = await aTenant();
  const page = await newPage();
  await signInAsOwner(page, id);
  await open(page, id, "");
  await page.getByRole("navigation", { name: "Account" }).getByRole("link", { name: "Documents" }).click();
  await shows(page, "Documents");
  expect(await contentOf(page)).toContain("No documents yet");
  await choose(page, HOSTILE, "<script>alert(1)</script>", "text/html");
  await page.locator("input[name=name]").fill("notes/page.html");
  await press(page, "Upload");
  expect(await contentOf(page)).toContain("notes/page.html is stored.");
  expect((await callTool(apiKey, "read_document", { path: "notes/page.html" })).data).toMatchObject({
    ...{ text: "<script>alert(1)</script>", contentType: "text/plain" },
  });
  // In the folder, a file keeps its own name, whatever is in it.
  await choose(page, HOSTILE, "second");
  await press(page, "Upload");
  expect(await contentOf(page)).toContain(`notes/${HOSTILE} is stored.`);
  await choose(page, "page.html", "third");
  await press(page, "Upload");
  expect(await contentOf(page)).toContain("There is a document notes/page.html already.");
  await choose(page, "page.html", "third");
  await page.getByLabel("Replace it").check();
  await press(page, "Upload");
  expect(await saved(page, "page.html")).toEqual({ name: "page.html", text: "third" });
  await callTool(apiKey, "write_document", { path: "notes/Größe \u{1F600}.md", text: "ä" });
  await page.reload();
  expect(await saved(page, "Größe \u{1F600}.md")).toEqual({ name: "Größe \u{1F600}.md", text: "ä" });
  const row = page.getByRole("row").filter({ hasText: "page.html" });
  await confirmed(page, () => row.getByRole("button", { name: "Delete" }).click());
  expect(await contentOf(page)).toContain("notes/page.html is deleted.");
  expect(await row.count()).toBe(0);
  await page.getByRole("navigation", { name: "Folder" }).getByRole("link", { name: "All documents" }).click();
  await page.getByRole("link", { name: "notes/" }).click();
  expect(await page.locator("[aria-current=page]").last().innerText()).toBe("notes");
});

test("a file that is too large is refused in words, and the page can be used again", async () => {
  const { id } = await aTenant();
  const page = await newPage();
  await signInAsOwner(page, id);
  await open(page, id);
  await choose(page, "large.txt", "x".repeat(600 * 1024));
  await page.locator("input[name=name]").fill("kept/name.txt");
  await press(page, "Upload");
  expect(await contentOf(page)).toContain("The document has 614400 bytes. The limit is 524288 (512 KiB).");
  expect(await page.locator("input[name=name]").inputValue()).toBe("kept/name.txt");
  await open(page, id);
  await choose(page, "huge.txt", "x".repeat(12 * 1024 * 1024));
  await press(page, "Upload");
  expect(await contentOf(page)).toContain("Send at most 8192 KiB. Nothing has changed.");
  await page.goBack();
  await choose(page, "small.txt", "x");
  await press(page, "Upload");
  expect(await contentOf(page)).toContain("is stored.");
});

test("the documents fit a phone, and can be read and used by everyone, also with long names full of markup", async () => {
  const { id, apiKey } = await aTenant({ name: HOSTILE });
  for (const path of [`a/${HOSTILE}`, "a/b/c.md", `a/${"x".repeat(500)}`, `a/${"wort ".repeat(40)}.md`])
    await callTool(apiKey, "write_document", { path, text: "x" });
  const page = await newPage({ viewport: PHONE });
  await signInAsOwner(page, id);
  for (const query of ["", "?in=a/", "?in=none/"]) {
    await open(page, id, query);
    expect([query, await faultsOf(page)]).toEqual([query, []]);
  }
});
