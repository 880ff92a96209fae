// Calls in words: their outcome, and who made them.
import type { FC } from "hono/jsx";
import { type CallEnd, callEnds } from "../../core/call.ts";
import { ERRORS_PATH } from "../../http.ts";
import type { CallerParts } from "../../metering/metrics/api.ts";
import { Badge, type Tone } from "../parts/notice.tsx";

export const outcomeWords: Readonly<Record<CallEnd, { text: string; tone: Tone; meaning: string }>> = {
  ok: { text: "OK", tone: "good", meaning: "The tool answered. Its units are charged." },
  failed: { text: "Failed", tone: "bad", meaning: "The tool did not succeed. Nothing is charged." },
  refused: { text: "Refused", tone: "warn", meaning: "The call did not run. Nothing is charged." },
  repeated: {
    ...{ text: "Repeated", tone: "neutral" },
    meaning: "The answer of an earlier call, which was charged then.",
  },
};

export function isOutcome(text: string): text is CallEnd {
  return (callEnds as readonly string[]).includes(text);
}

export const Outcome: FC<{ outcome: CallEnd; code: string | null }> = ({ outcome, code }) => {
  const { text, tone, meaning } = outcomeWords[outcome];
  return (
    <span title={meaning}>
      <Badge tone={tone}>{text}</Badge>
      {code !== null && code !== "" && (
        <>
          {" "}
          <a class="code" href={`${ERRORS_PATH}#${code}`}>
            {code}
          </a>
        </>
      )}
    </span>
  );
};

/** Who called. `name`: the name of the API key or member. */
export const CallerName: FC<{ caller: CallerParts | null; name: string | null | undefined }> = ({ caller, name }) => {
  if (caller === null) return <span class="muted">–</span>;
  const { kind, id } = caller;
  if (kind === "key" || kind === "member")
    return (
      <>
        {name ?? id} <span class="muted small">{kind === "key" ? "API key" : "member"}</span>
      </>
    );
  if (kind === "user")
    return (
      <>
        {id} <span class="muted small">not a member</span>
      </>
    );
  return <span class="muted">{otherCallers[kind] ?? kind}</span>;
};

const otherCallers: Readonly<Record<string, string>> = {
  canary: "The check of the set-up",
  other: "Others",
  fallback: "Not known: the account's memory was out of reach",
};
