// How much of its limits an account uses at this moment, and how much it has stored. The part with the limits renews itself every
// few seconds and reads no ledger for it.
import type { FC } from "hono/jsx";
import { createTenantFiles } from "../../adapters/files.ts";
import type { QuotaStatus } from "../../core/call.ts";
import { type HttpContext, tenantOf } from "../../http.ts";
import { describeError, log } from "../../log.ts";
import { Figure, bytes, count, counted } from "../parts/figures.tsx";
import { Notice } from "../parts/notice.tsx";

/** Each renewal is one request of the account's minute. */
const POLL = "every 5s";

interface LimitsProps {
  /** The page's own path, which answers this part, too. */
  path: string;
  /** `undefined`: the account's object does not answer. */
  quota: QuotaStatus | undefined;
}

export const Limits: FC<LimitsProps> = ({ path, quota }) => (
  <section id="limits" aria-label="Limits" hx-get={path} hx-trigger={POLL} hx-swap="outerHTML" hx-target="this">
    {quota === undefined ? (
      <Notice tone="warn">The meters do not answer at the moment. They are asked again every few seconds.</Notice>
    ) : (
      <>
        <Reached path={path} quota={quota} />
        <div class="grid">
          <Limit name="Units this hour" {...quota.hour} note={hourNote(quota.hour)} />
          {quota.month.limit !== null && (
            <Limit
              name="Units this month"
              {...quota.month}
              note={`The calendar month ends in ${inTime(quota.month.resetSeconds)}`}
            />
          )}
          <Limit name="Requests this minute" {...quota.minute} note="Tool calls and other messages" />
        </div>
      </>
    )}
  </section>
);

/** The limit that refuses agents for the longest time. It is no alert: the part renews itself, and would be read out each time. */
const Reached: FC<{ path: string; quota: QuotaStatus }> = ({ path, quota: { hour, month } }) => {
  const reached = [
    { words: "of this month", ...month },
    { words: "of this hour", ...hour },
  ].find(({ used, limit }) => limit !== null && used >= limit);
  if (reached === undefined) return null;
  return (
    <p class="notice bad">
      The units {reached.words} are used up, so agents are refused. The first are free again in{" "}
      {inTime(reached.resetSeconds)}. <a href={`${path}/limit`}>Raise a limit</a>
    </p>
  );
};

const Limit: FC<{ name: string; limit: number | null; used: number; note: string }> = (props) => {
  const { name, limit, used, note } = props;
  return (
    <Figure
      name={name}
      value={count(used)}
      of={limit === null ? "no limit" : `of ${count(limit)}`}
      {...(limit !== null && { meter: { used, limit, label: name } })}
      note={note}
    />
  );
};

function hourNote({ used, resetSeconds }: QuotaStatus["hour"]): string {
  return used === 0 ? "Of the last 60 minutes" : `The first are free again in ${inTime(resetSeconds)}`;
}

/** `12 minutes`, `3 days`, rounded up. */
function inTime(seconds: number): string {
  const parts = [
    { seconds: 86_400, word: "day" },
    { seconds: 3_600, word: "hour" },
    { seconds: 60, word: "minute" },
  ];
  const part = parts.find((each) => seconds > each.seconds) ?? { seconds: 1, word: "second" };
  const whole = Math.max(1, Math.ceil(seconds / part.seconds));
  return `${whole} ${part.word}${whole === 1 ? "" : "s"}`;
}

interface Stored {
  documents: number;
  sizeBytes: number;
  /** There are more documents than one request of R2 lists. */
  isMore: boolean;
}

/** The account's documents; `undefined` while R2 does not answer. */
export async function storedBy(c: HttpContext): Promise<Stored | undefined> {
  try {
    const { files, cursor } = await createTenantFiles({ bucket: c.env.FILES, tenantId: tenantOf(c) }).list();
    const sizeBytes = files.reduce((sum, file) => sum + file.sizeBytes, 0);
    return { documents: files.length, sizeBytes, isMore: cursor !== undefined };
  } catch (error) {
    log("warn", "storage_unknown", { tenantId: tenantOf(c), error: describeError(error) });
    return undefined;
  }
}

export const Storage: FC<{ of: Stored | undefined }> = ({ of }) =>
  of === undefined ? null : (
    <Figure
      name="Documents now"
      value={bytes(of.sizeBytes)}
      note={`${of.isMore ? "More than " : ""}${counted(of.documents, "document")}`}
    />
  );
