// The tools, resources and prompts that the MCP conformance suite expects, under its names. For tests only: the product's
// catalogue never contains them. They depend only on the server that they are registered on, so that any way to serve MCP
// can be tested.
import { ResourceTemplate, completable, fromJsonSchema } from "@modelcontextprotocol/server";
import type { McpServer } from "@modelcontextprotocol/server";
import * as z from "zod";
import { registerClientRequestTools } from "./conformance-client-requests.ts";
import { registerInputRequiredFixtures } from "./conformance-input-required.ts";

const PIXEL_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
const SILENT_WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQIAAACAgA==";

/** Registers every fixture on a server that is not connected yet. */
export function registerFixtures(server: McpServer): void {
  // Declared first. Otherwise the SDK promises notifications of list changes, which a stateless server cannot send.
  server.server.registerCapabilities({
    logging: {},
    prompts: { listChanged: false },
    resources: { listChanged: false, subscribe: true },
  });
  registerContentTools(server);
  registerNotifyingTools(server);
  registerSchemaTools(server);
  registerResources(server);
  registerPrompts(server);
  registerClientRequestTools(server);
  registerInputRequiredFixtures(server);
}

const text = (value: string) => ({ type: "text" as const, text: value });
const image = { type: "image" as const, data: PIXEL_PNG, mimeType: "image/png" };
const resource = (uri: string, mimeType: string, value: string) => ({
  type: "resource" as const,
  resource: { uri, mimeType, text: value },
});

function registerContentTools(server: McpServer): void {
  server.registerTool("test_simple_text", { description: "Answers with text." }, () => ({
    content: [text("This is a simple text response for testing.")],
  }));
  server.registerTool("test_image_content", { description: "Answers with an image." }, () => ({ content: [image] }));
  server.registerTool("test_audio_content", { description: "Answers with audio." }, () => ({
    content: [{ type: "audio", data: SILENT_WAV, mimeType: "audio/wav" }],
  }));
  server.registerTool("test_embedded_resource", { description: "Answers with an embedded resource." }, () => ({
    content: [resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")],
  }));
  server.registerTool("test_multiple_content_types", { description: "Answers with text, image and resource." }, () => ({
    content: [
      text("Multiple content types test:"),
      image,
      resource("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ],
  }));
  server.registerTool("test_error_handling", { description: "Always fails." }, () => {
    throw new Error("This tool intentionally returns an error for testing");
  });
}

/** The suite asks for pauses, so that a client sees each notification arrive by itself. */
const pause = () => new Promise((resolve) => setTimeout(resolve, 50));

function registerNotifyingTools(server: McpServer): void {
  server.registerTool("test_tool_with_logging", { description: "Logs while it runs." }, async ({ mcpReq }) => {
    await mcpReq.log("info", "Tool execution started");
    await pause();
    await mcpReq.log("info", "Tool processing data");
    await pause();
    await mcpReq.log("info", "Tool execution completed");
    return { content: [text("Logged three messages.")] };
  });
  server.registerTool("test_logging_tool", { description: "Logs once." }, async ({ mcpReq }) => {
    await mcpReq.log("info", "Logged by test_logging_tool");
    return { content: [text("Logged one message.")] };
  });
  server.registerTool("test_tool_with_progress", { description: "Reports progress." }, async ({ mcpReq }) => {
    const { _meta: meta } = mcpReq;
    const progressToken = meta?.progressToken;
    for (const progress of [0, 50, 100]) {
      if (progress > 0) await pause();
      if (progressToken === undefined) continue;
      await mcpReq.notify({ method: "notifications/progress", params: { progressToken, progress, total: 100 } });
    }
    return { content: [text("Progressed to the end.")] };
  });
}

function registerSchemaTools(server: McpServer): void {
  const inputSchema = fromJsonSchema({
    $schema: "https://json-schema.org/draft/2020-12/schema",
    type: "object",
    $defs: {
      address: {
        $anchor: "addressDef",
        type: "object",
        properties: { street: { type: "string" }, city: { type: "string" } },
      },
    },
    properties: {
      name: { type: "string" },
      address: { $ref: "#/$defs/address" },
      contactMethod: { type: "string", enum: ["phone", "email"] },
      phone: { type: "string" },
      email: { type: "string" },
    },
    allOf: [{ anyOf: [{ required: ["phone"] }, { required: ["email"] }] }],
    if: { properties: { contactMethod: { const: "phone" } }, required: ["contactMethod"] },
    // oxlint-disable-next-line unicorn/no-thenable -- a keyword of JSON Schema
    then: { required: ["phone"] },
    else: { required: ["email"] },
    additionalProperties: false,
  });
  server.registerTool(
    "json_schema_2020_12_tool",
    { description: "Tool with JSON Schema 2020-12 features", inputSchema },
    () => ({ content: [text("Accepted.")] }),
  );
  const withHeader = z.object({ region: z.string().meta({ "x-mcp-header": "Region" }), query: z.string().optional() });
  server.registerTool(
    "test_custom_headers",
    { description: "Expects its region as a request header too.", inputSchema: withHeader },
    ({ region }) => ({ content: [text(`Region ${region}.`)] }),
  );
}

function registerResources(server: McpServer): void {
  const plain = { description: "A fixture.", mimeType: "text/plain" };
  server.registerResource("static-text", "test://static-text", plain, ({ href }) => ({
    contents: [{ uri: href, mimeType: "text/plain", text: "This is the content of the static text resource." }],
  }));
  const png = { description: "A fixture.", mimeType: "image/png" };
  server.registerResource("static-binary", "test://static-binary", png, ({ href }) => ({
    contents: [{ uri: href, mimeType: "image/png", blob: PIXEL_PNG }],
  }));
  server.registerResource("watched-resource", "test://watched-resource", plain, ({ href }) => ({
    contents: [{ uri: href, mimeType: "text/plain", text: "Nothing changes here." }],
  }));
  server.registerResource(
    "template",
    new ResourceTemplate("test://template/{id}/data", { list: undefined }),
    { description: "A fixture with a parameter.", mimeType: "application/json" },
    ({ href }, { id }) => ({
      contents: [
        {
          uri: href,
          mimeType: "application/json",
          text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${String(id)}` }),
        },
      ],
    }),
  );
  // Accepted and ignored: without a session there is no stream for updates.
  server.server.setRequestHandler("resources/subscribe", () => ({}));
  server.server.setRequestHandler("resources/unsubscribe", () => ({}));
}

const said = <Content>(content: Content) => ({ role: "user" as const, content });

function registerPrompts(server: McpServer): void {
  server.registerPrompt("test_simple_prompt", { description: "A prompt without arguments." }, () => ({
    messages: [said(text("This is a simple prompt for testing."))],
  }));
  const twoArguments = z.object({
    arg1: completable(z.string(), (value) => [`${value}-completed`]),
    arg2: z.string(),
  });
  server.registerPrompt(
    "test_prompt_with_arguments",
    { description: "A prompt with two arguments.", argsSchema: twoArguments },
    ({ arg1, arg2 }) => ({ messages: [said(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`))] }),
  );
  server.registerPrompt(
    "test_prompt_with_embedded_resource",
    { description: "A prompt that embeds a resource.", argsSchema: z.object({ resourceUri: z.string() }) },
    ({ resourceUri }) => ({
      messages: [
        said(resource(resourceUri, "text/plain", "Embedded resource content for testing.")),
        said(text("Please process the embedded resource above.")),
      ],
    }),
  );
  server.registerPrompt("test_prompt_with_image", { description: "A prompt with an image." }, () => ({
    messages: [said(image), said(text("Please analyze the image above."))],
  }));
}
