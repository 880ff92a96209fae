// The summary at the end of a run: for each family and tier the number of statements, of refused ones, and of those that
// succeeded with a wall down. Each tier writes its counts to a file; the last one prints them side by side.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { type Strategy, strategies } from "../../src/core/plans/plans.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** The folder in which the tiers' counts are collected. */
    tallies: string;
  }
}

interface Count {
  statements: number;
  refused: number;
  shown: string[];
}

interface Tally {
  families: Record<string, Count>;
  /** Pairs of an attack and the walls without which it succeeded. */
  pairs: number;
  /** Number of statements sent. */
  sent: number;
}

export function createTally(tier: Strategy) {
  const tally: Tally = { families: {}, pairs: 0, sent: 0 };
  const of = (family: string): Count => (tally.families[family] ??= { statements: 0, refused: 0, shown: [] });
  return {
    counts: (family: string): void => void (of(family).statements += 1),
    refused: (family: string): void => void (of(family).refused += 1),
    shown: (family: string, attack: string): void => {
      of(family).shown.push(attack);
      tally.pairs += 1;
    },
    sent: (): void => void (tally.sent += 1),
    handIn: (folder: string): void => writeFileSync(join(folder, `${tier}.json`), JSON.stringify(tally)),
  };
}

/** Vitest's global setup. Returns the teardown, which prints the summary. */
export function setup(project: TestProject): () => void {
  const folder = mkdtempSync(join(tmpdir(), "tollgate-attack-"));
  project.provide("tallies", folder);
  return () => {
    const counted = readdirSync(folder);
    const tallies = strategies.flatMap((tier) =>
      counted.includes(`${tier}.json`)
        ? [{ tier, tally: JSON.parse(readFileSync(join(folder, `${tier}.json`), "utf8")) as Tally }]
        : [],
    );
    rmSync(folder, { recursive: true });
    if (tallies.length > 0) process.stdout.write(tableOf(tallies));
  };
}

function tableOf(tallies: readonly { tier: Strategy; tally: Tally }[]): string {
  const cell = (counts: readonly (Count | undefined)[]): string => {
    const sum = (value: (count: Count) => number) =>
      counts.reduce((total, count) => total + (count === undefined ? 0 : value(count)), 0);
    return [sum((c) => c.statements), sum((c) => c.refused), sum((c) => new Set(c.shown).size)].join(" / ");
  };
  const families = new Set(tallies.flatMap(({ tally }) => Object.keys(tally.families)));
  const row = (title: string, of: (tally: Tally) => string) => [title, ...tallies.map(({ tally }) => of(tally))];
  const lines = [
    ["statements / refused / succeed without a wall", ...tallies.map(({ tier }) => tier)],
    ...[...families].map((family) => row(family, (tally) => cell([tally.families[family]]))),
    row("total", (tally) => cell(Object.values(tally.families))),
    row("pairs of an attack and a missing wall", (tally) => String(tally.pairs)),
    row("statements sent", (tally) => String(tally.sent)),
  ];
  const width = Math.max(...lines.map(([title = ""]) => title.length));
  const text = lines.map(
    ([title = "", ...cells]) => title.padEnd(width) + cells.map((each) => `  ${each.padEnd(15)}`).join(""),
  );
  return `\n${text.map((line) => line.trimEnd()).join("\n")}\n\n`;
}
