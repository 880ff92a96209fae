// The range of a page in its address: links to the usual ranges, and a form for any other one.
import type { FC } from "hono/jsx";
import { Field } from "../parts/form.tsx";
import type { Preset, ShownRange } from "./shown-range.ts";

/** `?from=…&to=…` with the other parameters. One without a value is left out. */
export function query(parameters: Readonly<Record<string, string | undefined>>): string {
  const given = Object.entries(parameters).filter((each): each is [string, string] => each[1] !== undefined);
  return given.length === 0 ? "" : `?${new URLSearchParams(given).toString()}`;
}

interface RangeProps {
  path: string;
  shown: ShownRange;
  presets: readonly Preset[];
  /** The page's other parameters, which stay. */
  others: Readonly<Record<string, string | undefined>>;
}

export const Range: FC<RangeProps> = ({ path, shown, presets, others }) => {
  const isShown = ({ from, to, last }: Preset["address"]): boolean =>
    from === shown.address.from && to === shown.address.to && last === shown.address.last;
  return (
    <div class="range">
      <nav class="tabs" aria-label="Range">
        {presets.map(({ text, address }) => (
          <a href={path + query({ ...others, ...address })} aria-current={isShown(address) ? "true" : undefined}>
            {text}
          </a>
        ))}
      </nav>
      <form method="get" action={path} class="inline">
        {Object.entries(others).map(
          ([name, value]) => value !== undefined && <input type="hidden" {...{ name, value }} />,
        )}
        <Field label="From" name="from" type="date" value={shown.from} isRequired />
        <Field label="To" name="to" type="date" value={shown.to} isRequired />
        <button>Show</button>
      </form>
    </div>
  );
};
