// What is wrong with an input, in words for its sender: the end of a sentence that begins with the name of the field. The
// schemas' own messages are for programmers: "Invalid input: expected string, received undefined". Pure.
import type * as z from "zod";
import { shownName } from "./text.ts";

/** A problem of a schema, in words. A message that the schema brings itself stays. */
export function inputProblem(issue: z.core.$ZodIssue): string {
  if (!/^(?:Invalid|Unrecognized|Too (?:big|small))/.test(issue.message)) return issue.message;
  switch (issue.code) {
    case "invalid_type":
      if (issue.expected === "int" && issue.message.endsWith("received number")) return "must be a whole number";
      if (issue.message.endsWith("received NaN")) return "must be a number";
      return issue.message.endsWith("received undefined")
        ? "is missing"
        : `must be ${withArticle(issue.expected === "int" ? "whole number" : issue.expected)}, not ${withArticle(issue.message.replace(/^.*, received /, ""))}`;
    case "unrecognized_keys":
      return `has no ${issue.keys.length === 1 ? "field" : "fields"} ${quoted(issue.keys)}`;
    case "invalid_value":
      return `must be ${issue.values.length === 1 ? "" : "one of "}${quoted(issue.values)}`;
    case "invalid_key":
      return "has a name that is not allowed";
    case "too_small":
      if (issue.minimum === 1 && issue.inclusive !== false && unit(issue.origin) !== "") return "must not be empty";
      return `must ${sized(issue.origin)}${issue.inclusive === false ? "more than" : "at least"} ${issue.minimum}${unit(issue.origin)}`;
    case "too_big":
      return `must ${sized(issue.origin)}${issue.inclusive === false ? "less than" : "at most"} ${issue.maximum}${unit(issue.origin)}`;
    case "invalid_format":
      return issue.format === "regex"
        ? "has a form that is not allowed"
        : `must be ${withArticle(namesOf[issue.format] ?? issue.format)}`;
    case "invalid_union":
      return issue.errors.length === 0
        ? "has a form that is not allowed"
        : `fits none of its forms: ${issue.errors.map((issues) => inputProblems(issues)).join(", or ")}`;
    case "not_multiple_of":
      return `must be a multiple of ${issue.divisor}`;
    case "invalid_element":
      return "has an item that is not allowed";
    case "custom":
      return issue.message;
    default:
      return issue satisfies never;
  }
}

/** The problems of an input, each with the names that lead to it. `whole` names the input itself. */
export function inputProblems(issues: readonly z.core.$ZodIssue[], whole = "it"): string {
  return issues
    .map((issue) => `${issue.path.length === 0 ? whole : issue.path.map(shownName).join(".")}: ${inputProblem(issue)}`)
    .join("; ");
}

const namesOf: Readonly<Record<string, string>> = {
  datetime: "instant such as 2027-01-31T12:00:00Z",
  date: "date such as 2027-01-31",
  url: "URL",
  email: "mail address",
};

function withArticle(name: string): string {
  if (/^(?:null|Infinity)$/.test(name)) return name;
  return /^[aeio]/.test(name) ? `an ${name}` : `a ${name}`;
}

function quoted(values: readonly unknown[]): string {
  return values.map((value) => JSON.stringify(value)).join(", ");
}

function sized(origin: string): string {
  return unit(origin) === "" ? "be " : "have ";
}

function unit(origin: string): string {
  if (origin === "string") return " characters";
  return origin === "array" || origin === "set" ? " items" : "";
}
