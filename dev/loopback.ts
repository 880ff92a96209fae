// Serves a stand-in on this machine's loopback address. Closing it also closes all of its connections.
import { getRequestListener } from "@hono/node-server";
import { createServer } from "node:http";
import type { IncomingMessage, Server } from "node:http";

export interface Listening {
  /** `http://127.0.0.1:port`, without a trailing slash. */
  url: string;
  port: number;
  /** Cuts the connections that are open and resolves once the port is free. */
  close(): Promise<void>;
}

/** Resolves once the server listens on 127.0.0.1; port 0 takes a free one. Rejects when the port is taken. */
export async function listenOnLoopback(server: Server, port: number): Promise<Listening> {
  // Only the client closes an idle connection. If the server closed it first, the client's next request could fail.
  server.keepAliveTimeout = 0;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen(port, "127.0.0.1", () => resolve());
  });
  const address = server.address();
  const actualPort = typeof address === "object" && address !== null ? address.port : port;
  return {
    url: `http://127.0.0.1:${actualPort}`,
    port: actualPort,
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

/** The same for a handler of web-standard requests, such as a Hono application. */
export async function serveOnLoopback(
  fetch: (request: Request) => Response | Promise<Response>,
  port: number,
): Promise<Listening> {
  const answer = getRequestListener(fetch);
  // It answers 500 itself when `fetch` fails.
  return await listenOnLoopback(
    createServer((request, response) => void answer(request, response)),
    port,
  );
}

/**
 * The body of a request, or `undefined` when it has more than `maxBytes`. Reads to the end in both cases: a client that is
 * still sending would not see the refusal.
 */
export async function readBody(request: IncomingMessage, maxBytes: number): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes <= maxBytes) chunks.push(chunk);
  }
  return sizeBytes > maxBytes ? undefined : Buffer.concat(chunks);
}
