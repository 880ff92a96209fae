// Takes a CPU profile of one isolate through workerd's inspector and sums it by package and by function. It sees only
// JavaScript: workerd's own C++ work shows as `(program)` or not at all.
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { WebSocket } from "ws";

interface ProfileNode {
  id: number;
  callFrame: { functionName: string; url: string; lineNumber: number };
  children?: number[];
}
export interface Profile {
  nodes: ProfileNode[];
  samples: number[];
  timeDeltas: number[];
}

const SAMPLE_INTERVAL_US = 100;

/** Profiles the Worker `name` while `work` runs. */
export async function profileWhile(inspector: URL, name: string, work: () => Promise<unknown>): Promise<Profile> {
  const list = (await (await fetch(`http://${inspector.host}/json`)).json()) as {
    id: string;
    title?: string;
    webSocketDebuggerUrl: string;
  }[];
  const target = list.find(({ id }) => id.includes(name)) ?? list[0];
  if (target === undefined) throw new Error("workerd offers nothing to inspect");
  const socket = new WebSocket(target.webSocketDebuggerUrl, { maxPayload: 0 });
  await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
  const waiting = new Map<number, (result: unknown) => void>();
  let lastId = 0;
  socket.on("message", (data: Buffer) => {
    const message = JSON.parse(data.toString("utf8")) as { id?: number; result?: unknown };
    if (message.id !== undefined) waiting.get(message.id)?.(message.result);
  });
  const send = <Result>(method: string, params: object = {}): Promise<Result> => {
    const id = ++lastId;
    const { promise, resolve } = Promise.withResolvers<Result>();
    waiting.set(id, resolve as (result: unknown) => void);
    socket.send(JSON.stringify({ id, method, params }));
    return promise;
  };
  try {
    await send("Profiler.enable");
    await send("Profiler.setSamplingInterval", { interval: SAMPLE_INTERVAL_US });
    await send("Profiler.start");
    await work();
    const stopped = await Promise.race([
      send<{ profile: Profile }>("Profiler.stop"),
      sleep(30_000, undefined, { ref: false }),
    ]);
    if (stopped === undefined) throw new Error("the inspector did not answer");
    return stopped.profile;
  } finally {
    socket.terminate();
  }
}

/** Which package each line of an esbuild bundle is from: esbuild writes a comment with the path above every module. */
function packagesByLine(script: string): string[] {
  let current = "bundle";
  return readFileSync(script, "utf8")
    .split("\n")
    .map((line) => {
      const path = /^\s*\/\/ ((?:\.\.\/)*[\w@./-]+\.[cm]?[jt]sx?)$/.exec(line)?.[1];
      if (path !== undefined) current = packageOf(path);
      return current;
    });
}

function packageOf(path: string): string {
  const inside = path.lastIndexOf("node_modules/");
  if (inside < 0) return path.replace(/^.*?(src|bench)\//, "$1/");
  const [scope = "", name = ""] = path.slice(inside + "node_modules/".length).split("/");
  return scope.startsWith("@") ? `${scope}/${name}` : scope;
}

/** The profile as lines of text: self time by package and by function, inclusive time by function; microseconds a call. */
export function describeProfile(profile: Profile, script: string, calls: number): string[] {
  const packages = packagesByLine(script);
  const byId = new Map(profile.nodes.map((node) => [node.id, node]));
  const parents = new Map(
    profile.nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id] as const)),
  );
  const selfUs = new Map<number, number>();
  // A late sample means that the thread was not running: it counts as one, or a busy machine's waiting would be the
  // functions' own.
  for (const id of profile.samples) selfUs.set(id, (selfUs.get(id) ?? 0) + SAMPLE_INTERVAL_US);
  const place = ({ callFrame }: ProfileNode): string => {
    if (callFrame.functionName.startsWith("(")) return callFrame.functionName;
    if (callFrame.lineNumber < 0 || callFrame.url === "") return "runtime";
    if (callFrame.url.startsWith("node-internal") || callFrame.url.startsWith("cloudflare-internal")) return "runtime";
    return packages[callFrame.lineNumber] ?? "runtime";
  };
  const group = (node: ProfileNode): string => {
    const where = place(node);
    return /^(src|bench)\//.test(where) ? "own code" : where;
  };
  const byPackage = new Map<string, number>();
  const bySelf = new Map<string, number>();
  const byInclusive = new Map<string, number>();
  const add = (sums: Map<string, number>, key: string, us: number): void =>
    void sums.set(key, (sums.get(key) ?? 0) + us);
  for (const [id, us] of selfUs) {
    const node = byId.get(id);
    if (node === undefined || node.callFrame.functionName === "(idle)") continue;
    const label = (each: ProfileNode): string =>
      `${each.callFrame.functionName || "(anonymous)"} [${place(each)}:${each.callFrame.lineNumber + 1}]`;
    add(byPackage, group(node), us);
    add(bySelf, label(node), us);
    const seen = new Set<string>();
    for (let at: number | undefined = id; at !== undefined; at = parents.get(at)) {
      const each = byId.get(at);
      if (each !== undefined) seen.add(label(each));
    }
    for (const key of seen) add(byInclusive, key, us);
  }
  const top = (title: string, sums: Map<string, number>, count: number): string[] => [
    title,
    ...[...sums]
      .toSorted(([, a], [, b]) => b - a)
      .slice(0, count)
      .map(([key, us]) => `  ${(us / calls).toFixed(1).padStart(8)} us  ${key}`),
  ];
  return [
    ...top("self time a call by package", byPackage, 20),
    ...top("self time a call by function", bySelf, 45),
    ...top("inclusive time a call by function", byInclusive, 90),
  ];
}
