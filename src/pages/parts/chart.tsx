// Charts over time, as SVG that the server makes. The picture stretches to any width, and its texts stand around it as HTML, so
// that a phone shows them at their own size. Every chart has a title, a description, and its numbers as a table.
import { scaleBand, scaleLinear } from "d3-scale";
import { line, stack } from "d3-shape";
import type { FC } from "hono/jsx";
import { Table } from "./table.tsx";

const dayWords = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });

/** What a chart writes for an hour or a day (UTC). */
export function labelOf(atMs: number, step: "hour" | "day"): { label: string; short: string } {
  const iso = new Date(atMs).toISOString();
  return step === "day"
    ? { label: iso.slice(0, 10), short: dayWords.format(atMs) }
    : { label: `${iso.slice(0, 10)} ${iso.slice(11, 16)}`, short: iso.slice(11, 16) };
}

export interface Series {
  name: string;
  /** The class that gives its colour: `tone-1` to `tone-4`. */
  tone: 1 | 2 | 3 | 4;
  /** One for each point. `null`: nothing was measured. */
  values: readonly (number | null)[];
}

export interface ChartProps {
  /** Unique on its page. */
  id: string;
  title: string;
  /** One sentence with what a reader should see. */
  description: string;
  kind: "bars" | "lines";
  /** The head of the table's first column: `Day`. */
  axis: string;
  /** What the points are: `2026-11-28`, and below the chart `28 Nov`. */
  points: readonly { label: string; short: string }[];
  /** Bars stand on each other in this order. */
  series: readonly Series[];
  /** A value with its unit. */
  format: (value: number) => string;
  /** Beside the name in the legend; for bars the sum, unless it is given. */
  totals?: readonly string[];
}

/** The picture's own units. It stretches, so they are no pixels. */
const WIDTH = 1_000;
const HEIGHT = 100;
const TICKS = 4;
/** Labels below the chart. A phone shows every other one. */
const LABELS = 5;
/** The widest bar. A chart of one day is no block of colour. */
const WIDEST_BAR = WIDTH / 12;

const rounded = (value: number): number => Math.round(value * 10) / 10;

export const Chart: FC<ChartProps> = (props) => {
  const { id, title, description, kind, points, series, format } = props;
  const heights = kind === "bars" ? points.map((_, at) => sumAt(series, at)) : series.flatMap(({ values }) => values);
  const y = scaleLinear()
    .domain([0, Math.max(1, ...heights.map((height) => height ?? 0))])
    .nice(TICKS)
    .range([HEIGHT, 0]);
  // The numbers of units and calls are whole.
  const ticks = y.ticks(TICKS).filter((tick) => kind === "lines" || Number.isInteger(tick));
  const totals =
    props.totals ?? series.map(({ values }) => format(values.reduce<number>((sum, v) => sum + (v ?? 0), 0)));
  return (
    <figure class="chart">
      <figcaption>
        <strong>{title}</strong>
        <ul class="legend">
          {series.map(({ name, tone }, index) => (
            <li class={`tone-${tone}`}>
              {name} <b>{totals[index]}</b>
            </li>
          ))}
        </ul>
      </figcaption>
      <div class="plot">
        <ol class="ticks-y" aria-hidden="true">
          {ticks.toReversed().map((tick) => (
            <li>{format(tick)}</li>
          ))}
        </ol>
        <svg
          role="img"
          aria-labelledby={`${id}-title ${id}-text`}
          viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
          preserveAspectRatio="none"
        >
          <title id={`${id}-title`}>{title}</title>
          <desc id={`${id}-text`}>{description}</desc>
          {ticks.map((tick) => (
            <path class="rule" d={`M0 ${rounded(y(tick))}H${WIDTH}`} />
          ))}
          {kind === "bars" ? <Bars {...props} y={y} /> : <Lines {...props} y={y} />}
        </svg>
        <ol class={points.length > LABELS ? "ticks-x" : "ticks-x few"} aria-hidden="true">
          {labelsOf(points).map(({ short }) => (
            <li>{short}</li>
          ))}
        </ol>
      </div>
      <details>
        <summary>Show the numbers</summary>
        <Numbers {...props} />
      </details>
    </figure>
  );
};

type Scaled = ChartProps & { y: (value: number) => number };

const Bars: FC<Scaled> = ({ points, series, format, y }) => {
  const x = scaleBand<number>().domain(points.keys()).range([0, WIDTH]).paddingInner(0.25);
  const stacked = stack<unknown, number, number>()
    .keys([...series.keys()])
    .value((at, key) => series[key]?.values[at] ?? 0)([...points.keys()]);
  const width = Math.min(x.bandwidth(), WIDEST_BAR);
  const leftOf = (at: number): number => (x(at) ?? 0) + (x.bandwidth() - width) / 2;
  return (
    <>
      {points.map(({ label }, at) => (
        <g>
          <title>{hint(label, series, at, format)}</title>
          <path class="band" d={box(x(at), x.bandwidth(), 0, HEIGHT)} />
          {stacked.map((part, key) => {
            const [from = 0, to = 0] = part[at] ?? [];
            return to <= from ? null : (
              <path class={`bar tone-${series[key]?.tone}`} d={box(leftOf(at), width, y(to), y(from))} />
            );
          })}
        </g>
      ))}
    </>
  );
};

const Lines: FC<Scaled> = ({ points, series, format, y }) => {
  const x = scaleBand<number>().domain(points.keys()).range([0, WIDTH]);
  const middle = (at: number): number => rounded((x(at) ?? 0) + x.bandwidth() / 2);
  return (
    <>
      {series.map(({ values, tone }) => (
        <>
          <path
            class={`line tone-${tone}`}
            d={
              line<number | null>()
                .defined((value) => value !== null)
                .x((_, at) => middle(at))
                .y((value) => rounded(y(value ?? 0)))(values) ?? ""
            }
          />
          {/* A value between two gaps has no line. A line of no length with a round end is a dot. */}
          {values.map((value, at) =>
            value === null ? null : <path class={`dot tone-${tone}`} d={`M${middle(at)} ${rounded(y(value))}h0`} />,
          )}
        </>
      ))}
      {points.map(({ label }, at) => (
        <path class="band" d={box(x(at), x.bandwidth(), 0, HEIGHT)}>
          <title>{hint(label, series, at, format)}</title>
        </path>
      ))}
    </>
  );
};

function box(left: number | undefined, width: number, top: number, bottom: number): string {
  return `M${rounded(left ?? 0)} ${rounded(top)}h${rounded(width)}V${rounded(bottom)}h-${rounded(width)}z`;
}

const Numbers: FC<ChartProps> = ({ title, axis, points, series, format }) => (
  <Table
    caption={title}
    hidesCaption
    isNarrow
    rows={points.map(({ label }, at) => ({ label, at }))}
    columns={[
      { head: axis, isHead: true, cell: ({ label }) => <span class="nowrap">{label}</span> },
      ...series.map(({ name, values }) => ({
        head: name,
        isNumber: true,
        cell: ({ at }: { at: number }) => shownAt(values, at, format),
      })),
    ]}
  />
);

/** What a pointer over a point shows. */
function hint(label: string, series: readonly Series[], at: number, format: ChartProps["format"]): string {
  return [label, ...series.map(({ name, values }) => `${name}: ${shownAt(values, at, format)}`)].join("\n");
}

function shownAt(values: Series["values"], at: number, format: ChartProps["format"]): string {
  const value = values[at] ?? null;
  return value === null ? "–" : format(value);
}

function sumAt(series: readonly Series[], at: number): number {
  return series.reduce((sum, { values }) => sum + (values[at] ?? 0), 0);
}

/** At most `LABELS` points at equal distances, the first and the last among them. */
function labelsOf<Point>(points: readonly Point[]): Point[] {
  if (points.length <= LABELS) return [...points];
  return Array.from({ length: LABELS }, (_, n) => points[Math.round((n * (points.length - 1)) / (LABELS - 1))]).filter(
    (point) => point !== undefined,
  );
}
