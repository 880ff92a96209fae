// Measures admission alone: one decision and its settlement, with a full window of the largest plan.
import { memoryUsage } from "node:process";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Admission } from "../src/calls/admission.ts";
import { HOUR_MS } from "../src/core/time.ts";
import { type Limits, planOf } from "../src/core/plans/plans.ts";

const WINDOW_UNITS = 10_000;
/** At this rate, one unit leaves the full window for each new one. */
const STEP_MS = HOUR_MS / WINDOW_UNITS;
const ITERATIONS = 1_000_000;
const ROUNDS = 5;
const INSTANCES = 200;
const START_MS = Date.UTC(2026, 0, 1);

const limits: Limits = { ...planOf("pro").limits, unitsPerHour: WINDOW_UNITS, unitsPerMonth: 1_000_000_000 };

export interface DecisionCost {
  /** Decided, admitted and settled. */
  admittedNs: number;
  /** Decided and refused by the window, with the instant to retry. */
  refusedNs: number;
  /** Memory of the logs' arrays. */
  arrayBytes: number;
  /** Memory of everything that one object's admission keeps. */
  totalBytes: number;
}

function full(): { admission: Admission; nowMs: number } {
  const admission = new Admission();
  let nowMs = START_MS;
  for (let unit = 0; unit < WINDOW_UNITS; unit++) admit(admission, (nowMs += STEP_MS));
  return { admission, nowMs };
}

function admit(admission: Admission, nowMs: number): void {
  const decision = admission.decide(1, limits, nowMs);
  if (!decision.admitted) throw new Error(`refused: ${decision.code}`);
  admission.settle(decision.ticket);
}

/** The middle value, or the mean of the two middle ones. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return ((sorted[Math.ceil(middle) - 1] ?? NaN) + (sorted[Math.floor(middle)] ?? NaN)) / 2;
}

function cpuNsOf(work: (iteration: number) => void): number {
  // The median of five rounds: the first rounds also pay for the optimizing compiler.
  const rounds = Array.from({ length: ROUNDS }, () => {
    const before = process.cpuUsage();
    for (let iteration = 0; iteration < ITERATIONS; iteration++) work(iteration);
    const { user, system } = process.cpuUsage(before);
    return ((user + system) * 1_000) / ITERATIONS;
  });
  return median(rounds);
}

export function measureDecision(): DecisionCost {
  let { admission, nowMs } = full();
  const admittedNs = cpuNsOf(() => admit(admission, (nowMs += STEP_MS)));
  ({ admission, nowMs } = full());
  const refusedNs = cpuNsOf(() => {
    if (admission.decide(1, limits, nowMs).admitted) throw new Error("admitted over the limit");
  });

  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const used = (): number => {
    collect();
    const { heapUsed, arrayBuffers } = memoryUsage();
    return heapUsed + arrayBuffers;
  };
  const before = used();
  const kept = Array.from({ length: INSTANCES }, full);
  const totalBytes = (used() - before) / INSTANCES;
  return { admittedNs, refusedNs, arrayBytes: kept[0]?.admission.byteLength ?? 0, totalBytes };
}
