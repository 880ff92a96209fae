// Charts: their pictures have the numbers of their tables, with any number of points and any values, and markup in texts stays text.
import fc from "fast-check";
import { type FC, jsx } from "hono/jsx";
import { expect, test } from "vitest";
import { Chart, type ChartProps } from "../../src/pages/parts/chart.tsx";
import { bytes, count, duration, percent } from "../../src/pages/parts/figures.tsx";
import { tableOf } from "../support/html.ts";

const chart = async (props: Partial<ChartProps>): Promise<string> => {
  const given = { id: "a", title: "Calls", description: "All", kind: "bars", axis: "Day", points: [], series: [] };
  const element = jsx(Chart as FC, { ...given, format: count, ...props } as unknown as Record<string, unknown>);
  return await element.toString();
};
const pointsOf = (length: number): ChartProps["points"] =>
  Array.from({ length }, (_, at) => ({ label: `day ${at}`, short: `d${at}` }));

/** Top and bottom of each bar of a tone, in the picture's units. */
const barsOf = (html: string, tone: number): { height: number }[] =>
  [
    ...html.matchAll(new RegExp(`class="bar tone-${tone}" d="M[\\d.]+ ([\\d.]+)h[\\d.]+V([\\d.]+)h-[\\d.]+z"`, "g")),
  ].map(([, top, bottom]) => ({ height: Number(bottom) - Number(top) }));

test("bars are as high as their values, whatever stands below them", async () => {
  const values = fc.array(fc.tuple(fc.nat({ max: 100_000 }), fc.nat({ max: 100_000 })), {
    minLength: 1,
    maxLength: 92,
  });
  await fc.assert(
    fc.asyncProperty(values, async (rows) => {
      const series = ([1, 2] as const).map((tone) => ({
        name: `s${tone}`,
        tone,
        values: rows.map((row) => row[tone - 1] ?? 0),
      }));
      const html = await chart({ points: pointsOf(rows.length), series });
      expect(html).not.toMatch(/NaN|Infinity|undefined/);
      const all = series.flatMap(({ tone, values: own }) => {
        const bars = barsOf(html, tone);
        const drawn = own.filter((value) => value > 0);
        expect(bars).toHaveLength(drawn.length);
        return drawn.map((value, at) => ({ value, height: bars[at]?.height ?? -1 }));
      });
      // One scale for all of them. A coordinate has one decimal.
      const highest = all.toSorted((a, b) => b.value - a.value)[0];
      for (const { value, height } of all)
        expect(Math.abs(height - (value / (highest?.value ?? 1)) * (highest?.height ?? 0))).toBeLessThan(0.25);
      const table = tableOf(html, "Calls");
      expect(table.map((row) => [row["s1"], row["s2"]])).toEqual(rows.map((row) => row.map(count)));
    }),
    { numRuns: 30 },
  );
});

test.each([0, 1, 2, 5, 6, 31, 92])(
  "a chart of %i points has at most five labels below it, the first and the last",
  async (length) => {
    const points = pointsOf(length);
    const html = await chart({
      points,
      kind: "lines",
      series: [{ name: "p50", tone: 1, values: points.map(() => 3) }],
    });
    const labels = [...(/<ol class="ticks-x[^"]*".*?<\/ol>/s.exec(html)?.[0] ?? "").matchAll(/<li>(.*?)<\/li>/g)].map(
      ([, text]) => text,
    );
    expect(labels.length).toBe(Math.min(5, length));
    expect([labels[0], labels.at(-1)]).toEqual([points[0]?.short, points.at(-1)?.short]);
    expect(html).not.toMatch(/NaN|Infinity/);
  },
);

test("a line has a gap where nothing was measured, and a single value is a dot", async () => {
  const series = [{ name: "p50", tone: 1 as const, values: [10, null, 30, 40] }];
  const html = await chart({ points: pointsOf(4), kind: "lines", series, format: duration });
  const line = /class="line tone-1" d="([^"]*)"/.exec(html)?.[1] ?? "";
  expect(line.match(/M/g)).toHaveLength(2);
  expect(html.match(/class="dot tone-1"/g)).toHaveLength(3);
  expect(tableOf(html, "Calls").map((row) => row["p50"])).toEqual(["10 ms", "–", "30 ms", "40 ms"]);
});

test("a chart names and describes itself for a screen reader, and markup in its texts is text", async () => {
  const hostile = `"><script>alert(1)</script>`;
  const html = await chart({
    ...{ title: hostile, description: hostile, axis: hostile, points: [{ label: hostile, short: hostile }] },
    series: [{ name: hostile, tone: 1, values: [1] }],
    format: () => hostile,
  });
  expect(html).not.toMatch(/<script|style=/);
  expect(html).toMatch(/role="img" aria-labelledby="a-title a-text"/);
  expect(html).toMatch(/<title id="a-title">&quot;&gt;&lt;script&gt;.*<desc id="a-text">&quot;&gt;&lt;script&gt;/s);
});

test("a share never says all or nothing where there is some, and a time and a size have their unit", () => {
  expect([bytes(0), bytes(999), bytes(1_500), bytes(12_345_678)]).toEqual(["0 B", "999 B", "1.5 kB", "12.35 MB"]);
  expect([percent(0, 0), percent(0, 5), percent(5, 5), percent(1, 8)]).toEqual(["0 %", "0 %", "100 %", "12.5 %"]);
  expect([percent(1, 1_000_000), percent(999_999, 1_000_000)]).toEqual(["0.1 %", "99.9 %"]);
  expect([duration(null), duration(0), duration(12.4), duration(1_250), duration(810_000)]).toEqual([
    "–",
    "0 ms",
    "12 ms",
    "1.25 s",
    "13.5 min",
  ]);
});
