// A strict reader of OpenMetrics 1.0 text, written from the specification (https://prometheus.io/docs/specs/om/open_metrics_spec/).
// It throws on everything that the product must not write.

export interface ReadSample {
  name: string;
  labels: Record<string, string>;
  value: number;
}
export interface ReadFamily {
  type: string;
  unit: string | undefined;
  help: string | undefined;
  samples: ReadSample[];
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
/** The suffixes of a type's samples. */
const suffixes: Readonly<Record<string, readonly string[]>> = {
  counter: ["_total", "_created"],
  gauge: [""],
  histogram: ["_bucket", "_count", "_sum", "_created"],
};

export function readOpenMetrics(text: string): Map<string, ReadFamily> {
  if (!text.endsWith("\n")) throw new Error("the text does not end with a line feed");
  const lines = text.slice(0, -1).split("\n");
  if (lines.pop() !== "# EOF") throw new Error("the last line is not # EOF");
  const families = new Map<string, ReadFamily>();
  let current: { name: string; family: ReadFamily } | undefined;
  for (const line of lines) {
    const meta = /^# (?<kind>TYPE|UNIT|HELP) (?<name>\S+) (?<rest>.*)$/.exec(line)?.groups;
    if (meta !== undefined) {
      const { kind = "", name = "", rest = "" } = meta;
      if (!NAME.test(name)) throw new Error(`no name: ${line}`);
      if (current?.name !== name) {
        // A family's lines stand together.
        if (families.has(name)) throw new Error(`the family ${name} is interrupted`);
        const family: ReadFamily = { type: "unknown", unit: undefined, help: undefined, samples: [] };
        families.set(name, family);
        current = { name, family };
      }
      const { family } = current;
      if (family.samples.length > 0) throw new Error(`after a sample: ${line}`);
      if (kind === "TYPE") family.type = rest;
      if (kind === "HELP") family.help = unescaped(rest);
      if (kind === "UNIT") {
        if (!name.endsWith(`_${rest}`)) throw new Error(`${name} does not end in its unit ${rest}`);
        family.unit = rest;
      }
      continue;
    }
    const sample = readSample(line);
    if (current === undefined) throw new Error(`a sample without a family: ${line}`);
    const { name, family } = current;
    if (!(suffixes[family.type] ?? []).some((suffix) => sample.name === `${name}${suffix}`))
      throw new Error(`${sample.name} is no sample of the ${family.type} ${name}`);
    const key = seriesOf(sample.name, sample.labels);
    if (family.samples.some((other) => seriesOf(other.name, other.labels) === key)) throw new Error(`twice: ${line}`);
    family.samples.push(sample);
  }
  for (const [name, family] of families) {
    if (family.type === "counter" && family.samples.some(({ value }) => !(value >= 0)))
      throw new Error(`a counter below zero: ${name}`);
    if (family.type === "histogram") checkHistograms(name, family.samples);
  }
  return families;
}

function readSample(line: string): ReadSample {
  const {
    name = "",
    labels: pairs,
    value = "",
  } = /^(?<name>[a-zA-Z_:][\w:]*)(?:\{(?<labels>.*)\})? (?<value>\S+)$/.exec(line)?.groups ?? {};
  if (name === "") throw new Error(`no sample: ${line}`);
  const labels: Record<string, string> = {};
  let rest = pairs ?? "";
  while (rest !== "") {
    const {
      label = "",
      quoted = "",
      after = "",
    } = /^(?<label>[a-zA-Z_]\w*)="(?<quoted>(?:[^"\\\n]|\\[\\n"])*)"(?<after>,.+|$)/.exec(rest)?.groups ?? {};
    if (label === "" || Object.hasOwn(labels, label)) throw new Error(`no label: ${rest}`);
    labels[label] = unescaped(quoted);
    rest = after.slice(1);
  }
  if (!/^(?:[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?Inf|NaN)$/.test(value))
    throw new Error(`no number: ${line}`);
  return {
    name,
    labels,
    value: value.endsWith("Inf") ? (value.startsWith("-") ? -Infinity : Infinity) : Number(value),
  };
}

function unescaped(text: string): string {
  return text.replaceAll(/\\([\\n"])/g, (_, character: string) => (character === "n" ? "\n" : character));
}

/** Buckets grow with their bounds, the last one has no bound, and the count is the last bucket's. */
function checkHistograms(name: string, samples: readonly ReadSample[]): void {
  const groups = Map.groupBy(samples, ({ labels }) => seriesOf("", { ...labels, le: "" }));
  for (const [key, group] of groups) {
    const buckets = group.filter((sample) => sample.name === `${name}_bucket`);
    let below = { le: -Infinity, value: 0 };
    for (const { labels, value } of buckets) {
      const text = labels["le"] ?? "";
      if (text !== "+Inf" && !/^\d+\.\d+$/.test(text)) throw new Error(`${name}: the bound ${text} is not canonical`);
      const le = text === "+Inf" ? Infinity : Number(text);
      if (le <= below.le || value < below.value) throw new Error(`${name}${key}: buckets are not in order`);
      below = { le, value };
    }
    if (below.le !== Infinity) throw new Error(`${name}${key}: there is no bucket without a bound`);
    const of = (suffix: string): number | undefined => group.find((sample) => sample.name === name + suffix)?.value;
    if (of("_count") !== below.value || of("_sum") === undefined)
      throw new Error(`${name}${key}: count or sum is wrong`);
  }
}

/** The same text for the same name and labels, in any order. */
function seriesOf(name: string, labels: Readonly<Record<string, string>>): string {
  return JSON.stringify([name, Object.entries(labels).toSorted(([a], [b]) => (a < b ? -1 : 1))]);
}
