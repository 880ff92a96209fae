// Ports of the loopback interface for programs that start later.
import { randomInt } from "node:crypto";
import { createServer } from "node:net";

/** Whether this port of the loopback interface is free. */
export function isFree(port: number): Promise<boolean> {
  return new Promise((settle) => {
    const server = createServer();
    server.once("error", () => settle(false));
    server.listen(port, "127.0.0.1", () => server.close(() => settle(true)));
  });
}

/**
 * Ports that a program listens on later. Outgoing connections get local ports from 32,768 (Linux) or 49,152 (macOS, Windows) on,
 * and on a busy machine one of them would take the port between the look and the use.
 */
const PORTS = { first: 10_000, last: 32_767 };
const MAX_LOOKS = 100;

/** Returns a port of the loopback interface that is free now. */
export async function freePort(): Promise<number> {
  for (let look = 1; look <= MAX_LOOKS; look += 1) {
    const port = randomInt(PORTS.first, PORTS.last + 1);
    if (await isFree(port)) return port;
  }
  throw new Error(`None of ${MAX_LOOKS} ports between ${PORTS.first} and ${PORTS.last} is free.`);
}
