// A prompt: messages that a person starts a conversation with, made from the tenant's data. Getting one is a call under the prompt's
// name: it passes the same checks, has the same walls and is charged like a tool's.
import * as z from "zod";
import { SentBlock, type WrittenBlock, sentBlocks } from "../content.ts";
import { type Tool, type ToolContext, type ToolFailure, defineTool, isFailure } from "../tool.ts";

export interface PromptMessage {
  role: "user" | "assistant";
  /** A text, or one block. */
  content: string | WrittenBlock;
}

export interface PromptDeclaration<Args extends z.ZodObject> extends Pick<
  Tool,
  "name" | "title" | "description" | "scopes" | "plans" | "features" | "timeoutMs"
> {
  /** Price of a prompt. Default 0, which is free. */
  units?: number;
  /** A z.strictObject of texts: clients send nothing else. */
  arguments: Args;
  get: (args: z.infer<Args>, context: ToolContext) => Promise<readonly PromptMessage[] | ToolFailure>;
}

export interface Prompt {
  /** What getting the prompt runs. */
  tool: Tool;
}

const Messages = z.strictObject({
  messages: z.array(z.strictObject({ role: z.enum(["user", "assistant"]), content: SentBlock })),
});

const defined = new WeakSet<object>();

/** Declares a prompt. Throws when the declaration breaks a rule; the message names the prompt and the remedy. */
export function definePrompt<Args extends z.ZodObject>(declaration: PromptDeclaration<Args>): Prompt {
  const { arguments: input, get, units = 0, ...rest } = declaration;
  const { properties = {} } = z.toJSONSchema(input, { io: "input" });
  const others = Object.entries(properties).flatMap(([name, schema]) =>
    typeof schema === "object" && schema.type === "string" ? [] : [name],
  );
  if (others.length > 0)
    throw new Error(
      `The prompt ${rest.name} has the arguments [${others.join(", ")}], which are no texts. Use z.string() or z.enum([...]): clients send texts.`,
    );
  const tool = defineTool({
    ...rest,
    units,
    input,
    output: Messages,
    annotations: { readOnly: true, idempotent: true, destructive: false },
    failed: isFailure,
    async run(args, context) {
      const made = await get(args, context);
      if ("isError" in made) return made;
      const blocks = made.map(({ content }) =>
        typeof content === "string" ? { type: "text" as const, text: content } : content,
      );
      const sent = sentBlocks(blocks);
      const messages = made.map(({ role }, index) => ({ role, content: sent[index] ?? { type: "text", text: "" } }));
      return { text: "", data: { messages } as z.infer<typeof Messages> };
    },
  });
  const prompt: Prompt = { tool };
  defined.add(prompt);
  return prompt;
}

/** Whether a value was made by `definePrompt`. */
export function isPrompt(value: unknown): value is Prompt {
  return typeof value === "object" && value !== null && defined.has(value);
}
