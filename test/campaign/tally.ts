// Vitest's global setup of the campaign: starts systems with the crashing Worker and prints a table of the crash points.
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { TestProject } from "vitest/node";
import { offerSystems } from "../support/flow-setup.ts";
import { type PointCounts, otherPoints, requestPoints } from "./points.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** The folder in which the runs' counts are collected. */
    campaignCounts: string;
  }
}

export function handIn(folder: string, seed: number, counts: PointCounts): void {
  writeFileSync(join(folder, `${seed}.json`), JSON.stringify(counts));
}

export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = mkdtempSync(join(tmpdir(), "tollgate-campaign-"));
  project.provide("campaignCounts", folder);
  const stop = await offerSystems(project, {
    entry: resolve(import.meta.dirname, "worker.ts"),
    batchSeconds: 0.05, // a seed's hours take seconds: usage must reach the ledger between two of them
  });
  return async () => {
    await stop();
    const seeds = readdirSync(folder).map(
      (name) => JSON.parse(readFileSync(join(folder, name), "utf8")) as PointCounts,
    );
    rmSync(folder, { recursive: true });
    if (seeds.length > 0) report(seeds);
  };
}

function report(seeds: readonly PointCounts[]): void {
  const totals: PointCounts = {};
  for (const counts of seeds) {
    for (const [point, { met, hit }] of Object.entries(counts)) {
      const total = (totals[point] ??= { met: 0, hit: 0 });
      total.met += met;
      total.hit += hit;
    }
  }
  const keep = process.env["CAMPAIGN_COUNTS"];
  if (keep !== undefined) writeFileSync(keep, JSON.stringify(totals));
  process.stdout.write(`\n${tableOf(totals, seeds.length)}\n`);
}

/** The crash points as lines of text. */
export function tableOf(totals: PointCounts, seeds: number): string {
  const titles: Record<string, string> = { ...otherPoints };
  for (const { point, title } of requestPoints) titles[point] = title;
  const lines = Object.entries(titles)
    .toSorted(([a], [b]) => Number(a) - Number(b))
    .map(([point, title]) => {
      const { met, hit } = totals[point] ?? { met: 0, hit: 0 };
      return `${point.padStart(3)}  ${title.padEnd(52)} met ${String(met).padStart(7)}  hit ${String(hit).padStart(6)}`;
    });
  return [`${seeds} seeds; crash points:`, ...lines].join("\n");
}
