// What the pages about keys show of one.
import type { FC } from "hono/jsx";
import { config } from "../../../../core/app-config.ts";
import type { KeySummary } from "../../../../identity/keys/api.ts";
import { ADMIN_SCOPE } from "../../../../identity/keys/keys.ts";
import { Instant, Meter, count, units } from "../../../parts/figures.tsx";
import { Badge } from "../../../parts/notice.tsx";

/** Whether the key works, and until when. */
export const KeyState: FC<{ of: KeySummary; nowMs: number }> = ({
  of: { revokedAt, expiresAt, replacedBy },
  nowMs,
}) => {
  if (revokedAt !== null) return <Badge>revoked</Badge>;
  if (expiresAt !== null && Date.parse(expiresAt) <= nowMs)
    return <Badge>{replacedBy === null ? "expired" : "rotated"}</Badge>;
  return (
    <>
      {replacedBy === null ? <Badge tone="good">works</Badge> : <Badge tone="warn">rotated</Badge>}
      {expiresAt !== null && (
        <div class="small muted">
          until <Instant at={expiresAt} />
        </div>
      )}
    </>
  );
};

/** What each scope lets a key do, in words. */
export const scopeWords: Readonly<Record<string, string>> = {
  ...config.scopes,
  [ADMIN_SCOPE]: "Manage the account by its API",
};

export const Scopes: FC<{ scopes: readonly string[] }> = ({ scopes }) => (
  <>
    {scopes.map((scope) => (
      <div class="small" title={scopeWords[scope]}>
        <code>{scope}</code>
      </div>
    ))}
  </>
);

export const Budget: FC<{ of: Pick<KeySummary, "unitsPerMonth" | "unitsUsed"> }> = ({
  of: { unitsPerMonth, unitsUsed },
}) => (
  <div class="nowrap">
    {unitsUsed === null ? "–" : count(unitsUsed)}
    {unitsPerMonth !== null && (
      <>
        <span class="muted"> of {units(unitsPerMonth)}</span>
        <Meter label="Units this month" used={unitsUsed ?? 0} limit={unitsPerMonth} />
      </>
    )}
  </div>
);

/** Who made the key. Its member has a row on the page of the members. */
const Maker: FC<{ of: KeySummary; members: string | undefined }> = ({ of: { createdBy }, members }) => {
  if (createdBy.kind === "buyer") return <>the buyer</>;
  if (createdBy.kind !== "member") return <>the operator</>;
  return members === undefined ? <>a member</> : <a href={`${members}#${createdBy.id ?? ""}`}>a member</a>;
};

export const Facts: FC<{ of: KeySummary; path: string; members: string | undefined }> = ({
  of: key,
  path,
  members,
}) => (
  <dl class="facts">
    <dt>State</dt>
    <dd>
      <KeyState of={key} nowMs={Date.now()} />
    </dd>
    <dt>Begins with</dt>
    <dd>
      <code>{key.prefix}</code>
    </dd>
    <dt>May</dt>
    <dd>
      <Scopes scopes={key.scopes} />
    </dd>
    <dt>Tools</dt>
    <dd>{key.tools === null ? "All" : key.tools.join(", ")}</dd>
    <dt>Units this month</dt>
    <dd>
      <Budget of={key} />
    </dd>
    <dt>Last use</dt>
    <dd>{key.lastUsedAt === null ? "–" : <Instant at={key.lastUsedAt} />}</dd>
    <dt>Made</dt>
    <dd>
      <Instant at={key.createdAt} /> by <Maker of={key} members={members} />
    </dd>
    {key.revokedAt !== null && (
      <>
        <dt>Revoked</dt>
        <dd>
          <Instant at={key.revokedAt} />
        </dd>
      </>
    )}
    {[
      ["Replaces", key.replaces],
      ["Replaced by", key.replacedBy],
    ].map(
      ([name, id]) =>
        typeof id === "string" && (
          <>
            <dt>{name}</dt>
            <dd>
              <a href={`${path}/${id}`}>
                <code>{id}</code>
              </a>
            </dd>
          </>
        ),
    )}
  </dl>
);
