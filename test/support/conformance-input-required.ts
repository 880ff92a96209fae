// Fixtures that ask the client for input as in revision 2026-07-28. The result names the missing input, and the client
// calls again with it. The server's state between the two calls is signed and travels in `requestState`.
import { acceptedContent, createRequestStateCodec, inputRequired, inputResponse } from "@modelcontextprotocol/server";
import type { McpServer, ServerContext } from "@modelcontextprotocol/server";
import * as z from "zod";

/** Signs the state of fixtures only. It is fixed, so that any isolate can continue a call. */
const FIXTURE_KEY = "conformance fixtures only, not a secret";

interface State {
  round: number;
  name?: string;
}

const states = createRequestStateCodec({ key: FIXTURE_KEY });
const nameSchema = z.object({ name: z.string() });
const done = (text: string) => ({ content: [{ type: "text" as const, text }] });

const ask = (message: string, field: string) =>
  inputRequired.elicit({
    message,
    requestedSchema: { type: "object", properties: { [field]: { type: "string" } }, required: [field] },
  });
const askToConfirm = inputRequired.elicit({
  message: "Please confirm",
  requestedSchema: { type: "object", properties: { ok: { type: "boolean" } }, required: ["ok"] },
});
const askModel = (text: string, maxTokens: number) =>
  inputRequired.createMessage({ messages: [{ role: "user", content: { type: "text", text } }], maxTokens });

/** The tools and the prompt of the `input-required-result-*` and `server-stateless` scenarios. */
export function registerInputRequiredFixtures(server: McpServer): void {
  // The hook refuses a state that was changed. The SDK accepts it only at construction, so it is set here.
  Reflect.set(server.server, "_requestStateVerify", (state: string, context: ServerContext) =>
    states.verify(state, context),
  );
  registerSingleQuestions(server);
  registerStatefulQuestions(server);

  server.registerPrompt("test_input_required_result_prompt", { description: "Asks for its context." }, ({ mcpReq }) => {
    const answer = acceptedContent(mcpReq.inputResponses, "user_context", z.object({ context: z.string() }));
    if (answer === undefined) {
      return inputRequired({
        inputRequests: { user_context: ask("What context should the prompt use?", "context") },
      });
    }
    return { messages: [{ role: "user", content: { type: "text", text: `Use this context: ${answer.context}` } }] };
  });
}

function askName({ mcpReq }: ServerContext) {
  const answer = acceptedContent(mcpReq.inputResponses, "user_name", nameSchema);
  if (answer !== undefined) return done(`Hello, ${answer.name}!`);
  return inputRequired({ inputRequests: { user_name: ask("What is your name?", "name") } });
}

function registerSingleQuestions(server: McpServer): void {
  server.registerTool("test_input_required_result_elicitation", { description: "Asks for a name." }, askName);
  server.registerTool("test_streaming_elicitation", { description: "Asks for a name." }, askName);

  server.registerTool("test_input_required_result_sampling", { description: "Asks the model." }, ({ mcpReq }) => {
    const answer = inputResponse(mcpReq.inputResponses, "capital_question");
    if (answer.kind === "sampling") return done(JSON.stringify(answer.result.content));
    return inputRequired({ inputRequests: { capital_question: askModel("What is the capital of France?", 100) } });
  });
  // The SDK refuses the request when the client did not declare the capability.
  server.registerTool("test_missing_capability", { description: "Needs sampling." }, () =>
    inputRequired({ inputRequests: { question: askModel("Are you there?", 10) } }),
  );
  server.registerTool("test_input_required_result_list_roots", { description: "Asks for roots." }, ({ mcpReq }) => {
    const answer = inputResponse(mcpReq.inputResponses, "client_roots");
    if (answer.kind === "roots") return done(`Roots: ${answer.roots.map(({ uri }) => uri).join(", ")}`);
    return inputRequired({ inputRequests: { client_roots: inputRequired.listRoots() } });
  });
  const capabilities = { description: "Asks what the client can answer." };
  server.registerTool("test_input_required_result_capabilities", capabilities, () => {
    const declared = server.server.getClientCapabilities() ?? {};
    return inputRequired({
      inputRequests: {
        ...(declared.sampling && { question: askModel("What is the capital of France?", 100) }),
        ...(declared.elicitation && { user_name: ask("What is your name?", "name") }),
      },
    });
  });
}

async function confirm(context: ServerContext) {
  const answer = acceptedContent(context.mcpReq.inputResponses, "confirm", z.object({ ok: z.boolean() }));
  const state = context.mcpReq.requestState<State>();
  if (answer !== undefined && state !== undefined) return done("state-ok");
  return inputRequired({
    inputRequests: { confirm: askToConfirm },
    requestState: await states.mint({ round: 1 } satisfies State, context),
  });
}

function registerStatefulQuestions(server: McpServer): void {
  server.registerTool("test_input_required_result_request_state", { description: "Keeps a state." }, confirm);
  server.registerTool("test_input_required_result_tampered_state", { description: "Guards its state." }, confirm);

  const several = { description: "Asks three things at once." };
  server.registerTool("test_input_required_result_multiple_inputs", several, async (context) => {
    const responses = context.mcpReq.inputResponses;
    const name = acceptedContent(responses, "user_name", nameSchema);
    const greeting = inputResponse(responses, "greeting");
    const roots = inputResponse(responses, "client_roots");
    if (name !== undefined && greeting.kind === "sampling" && roots.kind === "roots") {
      return done(`${JSON.stringify(greeting.result.content)}, ${name.name}, of ${roots.roots.length} roots`);
    }
    return inputRequired({
      inputRequests: {
        user_name: ask("What is your name?", "name"),
        greeting: askModel("Generate a greeting", 50),
        client_roots: inputRequired.listRoots(),
      },
      requestState: await states.mint({ round: 1 } satisfies State, context),
    });
  });

  server.registerTool("test_input_required_result_multi_round", { description: "Asks twice." }, async (context) => {
    const responses = context.mcpReq.inputResponses;
    const state = context.mcpReq.requestState<State>();
    const color = acceptedContent(responses, "step2", z.object({ color: z.string() }));
    if (state?.name !== undefined && color !== undefined) return done(`${state.name} likes ${color.color}.`);
    const name = state?.name ?? acceptedContent(responses, "step1", nameSchema)?.name;
    if (state === undefined || name === undefined) {
      return inputRequired({
        inputRequests: { step1: ask("Step 1: What is your name?", "name") },
        requestState: await states.mint({ round: 1 } satisfies State, context),
      });
    }
    return inputRequired({
      inputRequests: { step2: ask("Step 2: What is your favorite color?", "color") },
      requestState: await states.mint({ round: 2, name } satisfies State, context),
    });
  });
}
