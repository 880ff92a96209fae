// Fixtures whose tools send a request to the client during a call, as in the older revisions. A stateless server cannot do
// this: the tools return an error there, and the lists of allowed failures name the scenarios.
import type { McpServer } from "@modelcontextprotocol/server";
import * as z from "zod";

const titled = (prefix: string) =>
  ["First", "Second", "Third"].map((nth, index) => ({ const: `value${index + 1}`, title: `${nth} ${prefix}` }));

/** The tools of `tools-call-sampling`, `tools-call-elicitation` and the two elicitation schema scenarios. */
export function registerClientRequestTools(server: McpServer): void {
  const sampling = { description: "Asks the client's model.", inputSchema: z.object({ prompt: z.string() }) };
  server.registerTool("test_sampling", sampling, async ({ prompt }, { mcpReq }) => {
    const reply = await mcpReq.requestSampling({
      messages: [{ role: "user", content: { type: "text", text: prompt } }],
      maxTokens: 100,
    });
    return { content: [{ type: "text", text: `LLM response: ${JSON.stringify(reply.content)}` }] };
  });

  const elicitation = { description: "Asks the user.", inputSchema: z.object({ message: z.string() }) };
  server.registerTool("test_elicitation", elicitation, async ({ message }, { mcpReq }) => {
    const reply = await mcpReq.elicitInput({
      message,
      requestedSchema: {
        type: "object",
        properties: {
          username: { type: "string", description: "User's response" },
          email: { type: "string", description: "User's email address" },
        },
        required: ["username", "email"],
      },
    });
    return { content: [{ type: "text", text: `User response: ${JSON.stringify(reply)}` }] };
  });

  const defaults = { description: "Asks the user, with defaults of every primitive type." };
  server.registerTool("test_elicitation_sep1034_defaults", defaults, async ({ mcpReq }) => {
    const reply = await mcpReq.elicitInput({
      message: "Please check these defaults",
      requestedSchema: {
        type: "object",
        properties: {
          name: { type: "string", default: "John Doe" },
          age: { type: "integer", default: 30 },
          score: { type: "number", default: 95.5 },
          status: { type: "string", enum: ["active", "inactive", "pending"], default: "active" },
          verified: { type: "boolean", default: true },
        },
      },
    });
    return { content: [{ type: "text", text: `Elicitation completed: ${JSON.stringify(reply)}` }] };
  });

  const enums = { description: "Asks the user, with every kind of enumeration." };
  server.registerTool("test_elicitation_sep1330_enums", enums, async ({ mcpReq }) => {
    const options = ["option1", "option2", "option3"];
    const reply = await mcpReq.elicitInput({
      message: "Please choose",
      requestedSchema: {
        type: "object",
        properties: {
          untitledSingle: { type: "string", enum: options },
          titledSingle: { type: "string", oneOf: titled("Option") },
          legacyEnum: {
            type: "string",
            enum: ["opt1", "opt2", "opt3"],
            enumNames: ["Option One", "Option Two", "Option Three"],
          },
          untitledMulti: { type: "array", items: { type: "string", enum: options } },
          titledMulti: { type: "array", items: { anyOf: titled("Choice") } },
        },
      },
    });
    return { content: [{ type: "text", text: `Elicitation completed: ${JSON.stringify(reply)}` }] };
  });
}
