// A tool's questions to the person who uses it, in the form that MCP's elicitation has: a message, and a flat JSON Schema of the
// answer (MCP 2026-07-28, elicitation, requested schema). How the answer comes depends on the client's revision of MCP:
// - input (2026-07-28): the run ends with the question, and the client calls again with the answer. The tool then starts again, and its
//   `ask` returns at once.
// - stream (before): the client gets the question on the call's event stream, and the run waits for the answer.
// In both, nothing is charged before the call completes, and an answer that never comes charges nothing.
import * as z from "zod";
import type { Answered, Asking, Question, QuestionField } from "../core/call.ts";
import { AppError } from "../core/errors.ts";

/** What a tool asks for. */
export interface Ask<Shape extends z.ZodObject = z.ZodObject> {
  /** Tells the questions of one call apart. Default `answer`. */
  name?: string;
  /** For the person: what is asked, and why. */
  message: string;
  /** z.strictObject of texts, numbers, booleans, enums and lists of enums. Each field has a description. */
  schema: Shape;
}

/** What the person has said. */
export type AskAnswer<Content> = { action: "accept"; content: Content } | { action: "decline" } | { action: "cancel" };

/** Clients show these keywords. Tollgate itself checks the answer by the whole schema. */
const keywords = [
  ...["type", "title", "description", "default", "enum", "format"],
  ...["minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems"],
] as const;
const formats = ["email", "uri", "date", "date-time"];

/**
 * The question for the client. Throws `TypeError` for a schema that no client can
 * show; the message names the field and the remedy.
 */
export function questionOf({ name = "answer", message, schema }: Ask): Question {
  const { properties = {}, required = [] } = z.toJSONSchema(schema, { io: "input", target: "draft-2020-12" });
  const fields = Object.entries(properties).map(([field, each]) => [field, fieldOf(field, each)] as const);
  return {
    name,
    message,
    schema: { type: "object", properties: Object.fromEntries(fields), required: [...required] },
  };
}

/**
 * The answer as the tool gets it, or why it is none: the schema's words about each field. A person who declines gives no content.
 */
export function readAnswer<Shape extends z.ZodObject>(
  schema: Shape,
  answered: Answered,
): { answer: AskAnswer<z.infer<Shape>> } | { problem: string } {
  if (answered.action !== "accept") return { answer: { action: answered.action } };
  const parsed = schema.safeParse(answered.content);
  if (parsed.success) return { answer: { action: "accept", content: parsed.data } };
  const problems = parsed.error.issues.map(({ path, message }) => `${path.join(".") || "the answer"}: ${message}`);
  return { problem: problems.join("; ") };
}

/** The same question, with the reason why the last answer was not accepted. */
function withProblem(question: Question, problem: string | undefined): Question {
  if (problem === undefined) return question;
  return { ...question, message: `${question.message} (The answer was not accepted: ${problem}.)` };
}

function fieldOf(field: string, json: z.core.JSONSchema._JSONSchema): QuestionField {
  const flat = typeof json === "object" ? json : {};
  const isList = flat.type === "array" && typeof flat.items === "object" && "enum" in flat.items;
  if (!isList && !["string", "number", "integer", "boolean"].includes(String(flat.type)))
    throw new TypeError(
      `The question's field ${field} cannot be shown. Ask for texts, numbers, booleans, enums and lists of enums alone.`,
    );
  const kept = keywords.flatMap((keyword) => {
    const value = flat[keyword];
    const isShown =
      value !== undefined &&
      (keyword !== "format" || formats.some((format) => format === value)) &&
      // Zod's bounds of an integer are those of the language.
      Math.abs(Number(value)) !== Number.MAX_SAFE_INTEGER;
    return isShown ? [[keyword, value] as const] : [];
  });
  return { ...Object.fromEntries(kept), ...(isList && { items: flat.items }) } as QuestionField;
}

// ---- the questions of one run

/** A client that gives worse answers than these does not understand the question. */
const MAX_TRIES = 3;

export interface QuestionOptions {
  /** `undefined`: the client cannot ask a person. */
  asking?: Asking | undefined;
  /** Sends a question on the call's stream, and waits for the answer. */
  askClient?: ((question: Question) => Promise<Answered>) | undefined;
  /** Throws for a question that must not leave. */
  check?: (question: Question) => void;
  /** Stops the tool's time limit while a person thinks. */
  pause: <Result>(work: Promise<Result>) => Promise<Result>;
}

/** Ends a run whose question goes to the client. */
class Asked extends Error {}

export class Questions {
  readonly #options: QuestionOptions;
  #open: Question | undefined;

  constructor(options: QuestionOptions) {
    this.#options = options;
  }

  get canAsk(): boolean {
    return this.#options.asking !== undefined;
  }

  /** The question that the client has to answer before the call can complete. A tool cannot hide it by catching the error of `ask`. */
  get open(): Question | undefined {
    return this.#open;
  }

  /**
   * The person's answer. Throws `question_unsupported` when the client cannot ask, and `question_unanswered` when no usable answer
   * came in time.
   */
  async ask<Shape extends z.ZodObject>(ask: Ask<Shape>): Promise<AskAnswer<z.infer<Shape>>> {
    const { asking, askClient, pause } = this.#options;
    const question = questionOf(ask);
    this.#options.check?.(question);
    if (asking === undefined) throw new AppError("question_unsupported", `It asks: ${question.message}`);
    const given = Object.hasOwn(asking.answers, question.name) ? asking.answers[question.name] : undefined;
    if (asking.form === "input") {
      const read = given && readAnswer(ask.schema, given);
      if (read !== undefined && "answer" in read) return read.answer;
      this.#open = withProblem(question, read?.problem);
      throw new Asked("the call waits for an answer");
    }
    // Without its object a call has no stream for questions.
    if (askClient === undefined) throw new AppError("tenant_unavailable");
    let problem: string | undefined;
    for (let tries = 0; tries < MAX_TRIES; tries += 1) {
      const read = readAnswer(ask.schema, await pause(askClient(withProblem(question, problem))));
      if ("answer" in read) return read.answer;
      ({ problem } = read);
    }
    throw new AppError("question_unanswered");
  }
}
