// The load generator, a separate process: a fixed number of calls over a fixed number of open connections, with one call at a
// time on each. It implements only the HTTP/1.1 that it needs, so that its own CPU time disturbs little. An answer that is not a
// successful result ends the benchmark.
import { connect, type Socket } from "node:net";

export interface LoadJob {
  port: number;
  /** Whole HTTP requests, used in turn. */
  requests: string[];
  connections: number;
  calls: number;
  /** Ends the load after this long. */
  seconds?: number;
  /** Each connection begins a call this often, or at once when the last one took longer. */
  everyMs?: number;
  /** Refusals are answers, too. */
  flood?: boolean;
}

export interface LoadResult {
  seconds: number;
  /** Answers, and how many of them were successful results. */
  answers: number;
  successes: number;
  p50Ms: number;
  p99Ms: number;
  /** Of each call, in ascending order; empty for a flood. */
  latenciesMs: number[];
  /** The body of the last answer. */
  sample: string;
}

/** No call may take longer than a tool may. */
const STALLED_MS = 25_000;

interface Answer {
  status: number;
  body: string;
}

/** Reads the one answer that `text` begins with, or `undefined` while it is not whole. Text is one char a byte. */
function parseAnswer(text: string): Answer | undefined {
  const headEnd = text.indexOf("\r\n\r\n");
  if (headEnd < 0) return undefined;
  const head = text.slice(0, headEnd);
  const status = Number(head.slice(9, 12));
  const length = /\r\ncontent-length: (\d+)/i.exec(head)?.[1];
  if (length !== undefined) {
    const end = headEnd + 4 + Number(length);
    return text.length < end ? undefined : { status, body: text.slice(headEnd + 4, end) };
  }
  let body = "";
  for (let at = headEnd + 4; ;) {
    const lineEnd = text.indexOf("\r\n", at);
    if (lineEnd < 0) return undefined;
    const size = Number.parseInt(text.slice(at, lineEnd), 16);
    if (size === 0) return text.length < lineEnd + 4 ? undefined : { status, body };
    at = lineEnd + 2 + size + 2;
    if (text.length < at) return undefined;
    body += text.slice(lineEnd + 2, lineEnd + 2 + size);
  }
}

function succeeded({ status, body }: Answer): boolean {
  return status === 200 && body.includes(`"structuredContent":{"products":[{"id":`) && !body.includes(`"isError":true`);
}

async function run(job: LoadJob): Promise<LoadResult> {
  const { port, requests, connections, calls, seconds: limit = Infinity, everyMs = 0, flood = false } = job;
  const latenciesMs: number[] = [];
  let started = 0;
  let successes = 0;
  let sample = "";
  const startedAtMs = performance.now();

  const worker = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const socket: Socket = connect({ host: "127.0.0.1", port, noDelay: true });
      socket.setEncoding("latin1").setTimeout(STALLED_MS, () => socket.destroy(new Error("no answer in time")));
      let sentAtMs = 0;
      let received = "";
      const next = (): void => {
        if (started === calls || performance.now() - startedAtMs > limit * 1_000) {
          socket.end();
          return resolve();
        }
        const request = requests[started++ % requests.length] ?? "";
        sentAtMs = performance.now();
        socket.write(request);
      };
      socket
        .on("connect", next)
        .on("error", reject)
        .on("close", () => reject(new Error("the connection was closed")));
      socket.on("data", (chunk: string) => {
        received += chunk;
        const answer = parseAnswer(received);
        if (answer === undefined) return;
        received = "";
        latenciesMs.push(performance.now() - sentAtMs);
        sample = answer.body;
        const isSuccess = succeeded(answer);
        if (isSuccess) successes += 1;
        if (!isSuccess && !flood)
          socket.destroy(new Error(`a call failed: ${answer.status} ${answer.body.slice(0, 1_000)}`));
        else if (everyMs === 0) next();
        else setTimeout(next, Math.max(0, sentAtMs + everyMs - performance.now()));
      });
    });
  await Promise.all(Array.from({ length: connections }, worker));

  const seconds = (performance.now() - startedAtMs) / 1_000;
  latenciesMs.sort((a, b) => a - b);
  const at = (share: number): number => latenciesMs[Math.floor(share * (latenciesMs.length - 1))] ?? 0;
  const answers = latenciesMs.length;
  return {
    seconds,
    answers,
    successes,
    p50Ms: at(0.5),
    p99Ms: at(0.99),
    latenciesMs: flood ? [] : latenciesMs,
    sample,
  };
}

process.on("message", (job: LoadJob) => {
  run(job).then(
    (result) => process.send?.({ result }),
    (error: unknown) => process.send?.({ error: String(error) }),
  );
});
process.on("disconnect", () => process.exit());
