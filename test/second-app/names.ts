// A helper file of the tools: the names that a note can have.
import * as z from "zod";

export const noteName = z
  .string()
  .regex(/^[a-z]{1,20}$/)
  .describe("One word in lower case");
