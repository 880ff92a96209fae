// One message of an older revision (2025-11-25 and before), without a session: the SDK's transport in JSON mode, whose
// answer becomes an event stream only when the handler sends a notification before its result. What a stateless server
// cannot do, a request to the client, fails at once instead of waiting for an answer that reaches another isolate.
import {
  WebStandardStreamableHTTPServerTransport,
  isJSONRPCNotification,
  isJSONRPCRequest,
} from "@modelcontextprotocol/server";
import type { AuthInfo, JSONRPCMessage, McpServer } from "@modelcontextprotocol/server";

const INTERNAL_ERROR = -32603;
/** Nobody reads it: the client has gone. nginx's number, as the SDK uses it. */
const CLIENT_CLOSED_REQUEST = 499;

/**
 * Serves `body` on a server that was made for this request alone. The server is not closed after a whole answer:
 * nothing runs any more, and it is garbage together with the request.
 */
export async function serveLegacy(
  server: McpServer,
  { request, body, authInfo }: { request: Request; body: unknown; authInfo: AuthInfo | undefined },
): Promise<Response> {
  const gone = Promise.withResolvers<Response>();
  const abandon = () => {
    gone.resolve(new Response(null, { status: CLIENT_CLOSED_REQUEST }));
    void server.close();
  };
  if (request.signal.aborted) return new Response(null, { status: CLIENT_CLOSED_REQUEST });
  request.signal.addEventListener("abort", abandon, { once: true });

  const transport = new WebStandardStreamableHTTPServerTransport({ enableJsonResponse: true });
  const streaming = Promise.withResolvers<Response>();
  let events: EventStream | undefined;
  const sendWhole = transport.send.bind(transport);
  transport.send = async (message, options) => {
    if (isJSONRPCRequest(message)) {
      const error = { code: INTERNAL_ERROR, message: "A stateless server cannot send requests to its client." };
      transport.onmessage?.({ jsonrpc: "2.0", id: message.id, error });
      return;
    }
    const isNotification = isJSONRPCNotification(message);
    // It belongs to no request, so that only a GET stream could carry it.
    if (isNotification && options?.relatedRequestId === undefined) return;
    if (events === undefined) {
      if (!isNotification) return sendWhole(message, options);
      events = openEventStream(abandon);
      streaming.resolve(events.response);
    }
    events.write(message);
    if (!isNotification) events.close();
  };

  await server.connect(transport);
  const answer = transport.handleRequest(request, { parsedBody: body, ...(authInfo && { authInfo }) });
  return Promise.race([answer, streaming.promise, gone.promise]);
}

interface EventStream {
  readonly response: Response;
  write(message: JSONRPCMessage): void;
  close(): void;
}

/** Without keep-alive comments: a tool that reports progress has ended long before any proxy calls it idle. */
function openEventStream(onCancel: () => void): EventStream {
  const encoder = new TextEncoder();
  let controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  const body = new ReadableStream<Uint8Array>({
    start: (streamController) => {
      controller = streamController;
    },
    cancel: () => {
      controller = undefined;
      onCancel();
    },
  });
  return {
    response: new Response(body, {
      headers: { "content-type": "text/event-stream", "cache-control": "no-cache, no-transform" },
    }),
    write: (message) => controller?.enqueue(encoder.encode(`event: message\ndata: ${JSON.stringify(message)}\n\n`)),
    close: () => {
      controller?.close();
      controller = undefined;
    },
  };
}
