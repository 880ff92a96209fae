// CPU time of processes as the kernel counts it, user and system together. Linux only: it reads /proc.
import { readdirSync, readFileSync } from "node:fs";

/** USER_HZ: the unit of /proc, fixed at 100 on every platform that Node runs on. */
const TICK_MS = 10;

interface Process {
  parent: number;
  name: string;
  ownMs: number;
  /** Of children that have ended and were waited for, with theirs. */
  endedChildrenMs: number;
}

function read(pid: number): Process | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name stands in parentheses and may contain anything; the numbered fields begin behind it (proc(5)).
    const end = stat.lastIndexOf(")");
    const fields = stat.slice(end + 2).split(" ");
    const ticks = (index: number): number => Number(fields[index]) * TICK_MS;
    return {
      parent: Number(fields[1]),
      name: stat.slice(stat.indexOf("(") + 1, end),
      ownMs: ticks(11) + ticks(12),
      endedChildrenMs: ticks(13) + ticks(14),
    };
  } catch {
    return undefined; // it has ended
  }
}

function childrenOf(parent: number): number[] {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return pids.map(Number).filter((pid) => read(pid)?.parent === parent);
}

/** The children of `parent` with this name, such as `workerd`. */
export function childrenNamed(parent: number, name: string): number[] {
  return childrenOf(parent).filter((pid) => read(pid)?.name === name);
}

/** The processes below `ancestor` with this name, at any depth. */
export function descendantsNamed(ancestor: number, name: string): number[] {
  return childrenOf(ancestor).flatMap((pid) => [
    ...(read(pid)?.name === name ? [pid] : []),
    ...descendantsNamed(pid, name),
  ]);
}

/** Milliseconds of one process alone, all its threads. */
export function cpuMs(pid: number): number {
  return read(pid)?.ownMs ?? 0;
}

/** Milliseconds of a server and everything it has forked, whether it still runs or has ended. */
export function cpuMsOfTree(pid: number): number {
  const { ownMs = 0, endedChildrenMs = 0 } = read(pid) ?? {};
  return ownMs + endedChildrenMs + childrenOf(pid).reduce((sum, child) => sum + cpuMsOfTree(child), 0);
}

/**
 * Milliseconds of a tree by the kind of process: workerd, PostgreSQL, and the programs of Node. It reads /proc once: a look for
 * each of a server's fifty processes would cost as much as some of what is measured.
 */
export function cpuMsByName(root: number): Record<string, number> {
  const childrenOfEach = new Map<number, { pid: number; each: Process }[]>();
  const all = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  for (const pid of all.map(Number)) {
    const each = read(pid);
    if (each !== undefined)
      childrenOfEach.set(each.parent, [...(childrenOfEach.get(each.parent) ?? []), { pid, each }]);
  }
  const sums: Record<string, number> = {};
  const add = (pid: number, { name, ownMs, endedChildrenMs }: Process): void => {
    const key = ["workerd", "postgres"].includes(name) ? name : pid === root ? "stand-ins and clients" : "others";
    sums[key] = (sums[key] ?? 0) + ownMs + endedChildrenMs;
    for (const child of childrenOfEach.get(pid) ?? []) add(child.pid, child.each);
  };
  const own = read(root);
  if (own !== undefined) add(root, own);
  return sums;
}
