// Problems of inputs in words.
import { expect, test } from "vitest";
import * as z from "zod";
import { inputProblems } from "../../src/core/text/input-problem.ts";

const schema = z.strictObject({
  text: z.string().min(2).max(3),
  number: z.int().positive().max(10),
  choice: z.enum(["a", "b"]),
  list: z.array(z.string()).max(1),
  when: z.iso.datetime({ offset: true }),
  url: z.url(),
  code: z.string().regex(/^x$/),
  own: z.string().refine(() => false, "must be good"),
  some: z.string().min(1),
  named: z.record(z.string().min(1), z.int()),
  either: z.union([z.strictObject({ x: z.string() }), z.strictObject({ y: z.string() })]),
});

test("each problem names its field and says what is wanted", () => {
  const input = {
    ...{ text: "1", number: 0, choice: "c", list: ["a", "b"], when: "now", url: "x", code: "y", own: "" },
    ...{ some: "", named: { "": 1 }, either: {} },
    more: 1,
  };
  expect(inputProblems(schema.safeParse(input).error?.issues ?? [], "body").split("; ")).toEqual([
    "text: must have at least 2 characters",
    "number: must be more than 0",
    'choice: must be one of "a", "b"',
    "list: must have at most 1 items",
    "when: must be an instant such as 2027-01-31T12:00:00Z",
    "url: must be a URL",
    "code: has a form that is not allowed",
    "own: must be good",
    "some: must not be empty",
    "named.: has a name that is not allowed",
    "either: fits none of its forms: x: is missing, or y: is missing",
    'body: has no field "more"',
  ]);
});

test("a value of another type is named without its schema", () => {
  const problems = (input: unknown): string => inputProblems(schema.safeParse(input).error?.issues ?? [], "body");
  expect(problems([])).toBe("body: must be an object, not an array");
  expect(problems({ text: null })).toContain("text: must be a string, not null");
  expect(problems({})).toContain("number: is missing");
  expect(problems({ number: 1.5 })).toContain("number: must be a whole number");
  expect(problems({ number: "1" })).toContain("number: must be a number, not a string");
  expect(problems({ number: 1, text: "x".repeat(4) })).toContain("text: must have at most 3 characters");
});
