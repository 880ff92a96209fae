// What the billing period of a metered plan costs so far, what it will cost at its end if it continues like this, and where the
// spend cap stops it. The amounts are those of the period's invoice: the base price, and the units beyond the included ones.
import type { FC } from "hono/jsx";
import { type Cents, type SpendWindow, addCents, centsOf, spentIn } from "../../../core/plans/money.ts";
import { DAY_MS } from "../../../core/time.ts";
import { Figure, count, dollars, units } from "../../parts/figures.tsx";

/** A projection from less is worth nothing. */
const PROJECTED_AFTER_MS = DAY_MS;

interface Cost {
  soFar: Cents;
  /** What of it is for units beyond the included ones. */
  overage: Cents;
  /** `undefined`: too early to say. */
  projected: Cents | undefined;
}

/** `used`: the units of the window so far. */
export function costOf(baseCents: number, window: SpendWindow, used: number, nowMs: number): Cost {
  const base: Cents = { digits: BigInt(baseCents), scale: 0 };
  const overage = spentIn(window, used);
  const passedMs = nowMs - window.startMs;
  const pace = Math.ceil((used * (window.endMs - window.startMs)) / Math.max(1, passedMs));
  // A cap that was lowered takes nothing back.
  const atEnd = Math.max(used, Math.min(pace, window.maxUnits ?? Number.MAX_SAFE_INTEGER));
  return {
    soFar: addCents(base, overage),
    overage,
    projected: passedMs < PROJECTED_AFTER_MS ? undefined : addCents(base, spentIn(window, atEnd)),
  };
}

interface CostProps {
  /** 0 while a trial lasts. */
  baseCents: number;
  window: SpendWindow;
  used: number;
  nowMs: number;
}

export const CostFigures: FC<CostProps> = ({ baseCents, window, used, nowMs }) => {
  const { soFar, overage, projected } = costOf(baseCents, window, used, nowMs);
  const { includedUnits, unitAmountCents, capCents, maxUnits } = window;
  return (
    <div class="grid">
      <Figure
        name="Included units"
        value={count(used)}
        of={`of ${count(includedUnits)}`}
        meter={{ used, limit: includedUnits, label: "Included units" }}
        note={`Each more is ${dollars(centsOf(unitAmountCents))}`}
      />
      <Figure
        name="Cost so far"
        value={dollars(soFar)}
        note={`${dollars(baseCents)} base, ${dollars(overage)} for more units`}
      />
      <Figure
        name="Projected cost"
        value={projected === undefined ? "–" : dollars(projected)}
        note={projected === undefined ? "Known a day after the period's start" : "If the period continues like this"}
      />
      {capCents === null || maxUnits === null ? (
        <Figure name="Spend cap" value="None" note="Units beyond the included ones are not stopped" />
      ) : (
        <Figure
          name="Spend cap"
          value={dollars(overage)}
          of={`of ${dollars(capCents)}`}
          meter={{
            used: Math.max(0, used - includedUnits),
            limit: Math.max(0, maxUnits - includedUnits),
            label: "Units that the spend cap pays for",
          }}
          note={
            used >= maxUnits ? "Reached: calls stop until it is raised" : `${units(maxUnits - used)} until calls stop`
          }
        />
      )}
    </div>
  );
};
