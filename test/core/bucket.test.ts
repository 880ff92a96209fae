// Reading the lines of a file: exact text, and lines that have none. On an in-memory bucket with R2's contract for ranges.
import { expect, test } from "vitest";
import { countLines, readHead, readLines } from "../../src/backups/bucket.ts";

const MIB = 1024 * 1024;

function aBucket(file: Buffer): R2Bucket {
  const get = async (_key: string, { range = {} }: { range?: { offset?: number; length?: number } } = {}) => {
    const { offset = 0, length = file.length - offset } = range;
    const bytes = file.subarray(offset, offset + length);
    return {
      size: file.length,
      body: new Blob([new Uint8Array(bytes)]).stream(),
      arrayBuffer: async () => new Uint8Array(bytes).buffer,
    };
  };
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the part of R2 that the reader uses
  return { head: async () => ({ size: file.length }), get } as unknown as R2Bucket;
}

/** All lines of a file: their texts, or why they have none. */
async function linesOf(file: Buffer): Promise<string[]> {
  const bucket = aBucket(file);
  const lines: string[] = [];
  for (let offset = 0, atEnd = false; !atEnd;) {
    const window = await readLines(bucket, "file", offset);
    if (window === undefined) throw new Error("the file does not exist");
    lines.push(...window.lines.map(({ content }) => ("text" in content ? content.text.trimEnd() : content.refused)));
    ({ end: offset, atEnd } = window);
  }
  expect(await countLines(bucket, "file")).toBe(lines.length);
  return lines;
}

test("a line that is not UTF-8 has no text, and the lines around it do", async () => {
  const file = Buffer.concat([Buffer.from("a\u00e9\n"), Buffer.from("caf\u00e9\n", "latin1"), Buffer.from("\uFEFFb")]);
  expect(await linesOf(file)).toEqual(["a\u00e9", expect.stringContaining("UTF-8"), "\uFEFFb".trimEnd()]);
});

test.each(["\nafter\n", "\n", ""])(
  "a line that is too long is skipped, and the lines around it are read: %j",
  async (rest) => {
    const file = Buffer.from(`before\n${"x".repeat(17 * MIB)}${rest}`);
    const after = rest.trim() === "" ? [] : ["after"];
    expect(await linesOf(file)).toEqual(["before", expect.stringContaining("16 MiB"), ...after]);
  },
);

test("a line of the largest length is read", async () => {
  expect((await linesOf(Buffer.from(`${"x".repeat(5 * MIB)}\nb\n`))).map((line) => line.length)).toEqual([5 * MIB, 1]);
});

test("the head of a file is its first bytes, also of a short and of an empty one", async () => {
  expect((await readHead(aBucket(Buffer.alloc(MIB)), "file"))?.length).toBe(64 * 1024);
  expect(await readHead(aBucket(Buffer.from("ab")), "file")).toEqual(new Uint8Array([97, 98]));
  expect((await readHead(aBucket(Buffer.alloc(0)), "file"))?.length).toBe(0);
});
