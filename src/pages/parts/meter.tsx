// How much of a limit is used. A picture with the same figures as text, because a style attribute could not carry its width.
import type { FC } from "hono/jsx";

/** From these shares on the colour warns. A customer's alerts have their own thresholds. */
const WARN_SHARE = 0.8;

export interface MeterProps {
  /** What is measured: `Units this hour`. */
  label: string;
  used: number;
  /** Null: there is no limit, and the meter is empty. */
  limit: number | null;
}

export const Meter: FC<MeterProps> = ({ label, used, limit }) => {
  const share = limit === null ? 0 : limit === 0 ? 1 : Math.min(used / limit, 1);
  const percent = Math.round(share * 1_000) / 10;
  const tone = share >= 1 ? "meter bad" : share >= WARN_SHARE ? "meter warn" : "meter";
  const text = limit === null ? `${label}: ${used}, no limit` : `${label}: ${used} of ${limit}, ${percent} %`;
  return (
    <svg class={tone} role="img" aria-label={text} preserveAspectRatio="none">
      <rect class="track" width="100%" height="100%" rx="4" />
      {percent > 0 && <rect class="fill" width={`${percent}%`} height="100%" rx="4" />}
    </svg>
  );
};
