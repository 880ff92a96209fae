// Tells the operator's webhook when a figure of metering or billing gets bad, worse or well again. At least once: what
// could not be told is told by the next sweep. The message's `text` is what a chat's webhook shows; the rest is for programs.
import { alarmsStore } from "./alarms-store.ts";
import { ledgerStore } from "../control/ledger-store.ts";
import { connectControl } from "../adapters/neon.ts";
import { type AlarmLevel, type Reading, mustTell, readIndicators } from "./indicators.ts";
import { describeError, log } from "../log.ts";

/** A webhook answers at once; the sweep has more to do. */
const WEBHOOK_TIMEOUT_MS = 5_000;
/** Without the control database nobody remembers what was told: this isolate does, and repeats itself this often. */
const REPEAT_OUTAGE_MS = 10 * 60_000;

interface Alarm {
  name: string;
  title: string;
  level: AlarmLevel;
  was: AlarmLevel;
  since: string;
  value: number | null;
  unit: Reading["unit"] | null;
  runbook: string;
}

let outageToldMs = -Infinity;

/** Looks at every figure and tells what has changed. Never throws for a webhook that does not answer. */
export async function raiseAlarms(env: Env, nowMs: number): Promise<void> {
  const control = connectControl(env);
  let readings: Reading[];
  try {
    readings = readIndicators(await ledgerStore(control).pipeline(nowMs));
  } catch (error) {
    log("error", "alarms_not_read", { error: describeError(error) });
    if (nowMs - outageToldMs >= REPEAT_OUTAGE_MS && (await tell(env, [outage(nowMs)], nowMs))) outageToldMs = nowMs;
    return;
  }
  outageToldMs = -Infinity;
  const records = new Map((await alarmsStore(control).take(readings, nowMs)).map((record) => [record.name, record]));
  const due = readings.flatMap((reading): Alarm[] => {
    const { name, title, level, value, unit, runbook } = reading;
    const record = records.get(name);
    if (record === undefined || !mustTell(level, record.told, nowMs)) return [];
    const since = new Date(record.sinceMs).toISOString();
    return [{ name, title, level, was: record.told?.level ?? "ok", since, value, unit, runbook }];
  });
  if (due.length === 0) return;
  for (const { name, level, was, value } of due) {
    log(level === "ok" ? "info" : "error", "alarm", { alarm: name, level, was, value });
  }
  if (await tell(env, due, nowMs)) await alarmsStore(control).told(due, nowMs);
}

/** Whether the webhook has taken it. Without one, the log is all there is to tell. */
async function tell(env: Env, alarms: readonly Alarm[], nowMs: number): Promise<boolean> {
  if (env.ALARM_WEBHOOK_URL === "") return true;
  const text = alarms.map(({ level, title, value }) => `${level}: ${title}${value === null ? "" : ` (${value})`}`);
  try {
    const response = await fetch(env.ALARM_WEBHOOK_URL, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        text: `Tollgate at ${env.PUBLIC_URL}\n${text.join("\n")}`,
        deployment: env.PUBLIC_URL,
        at: new Date(nowMs).toISOString(),
        alarms,
      }),
      redirect: "manual",
      signal: AbortSignal.timeout(WEBHOOK_TIMEOUT_MS),
    });
    await response.body?.cancel();
    if (!response.ok) log("error", "alarm_not_told", { status: response.status });
    return response.ok;
  } catch (error) {
    log("error", "alarm_not_told", { error: describeError(error) });
    return false;
  }
}

function outage(nowMs: number): Alarm {
  return {
    name: "control_database",
    title: "The control database cannot be read",
    level: "critical",
    was: "ok",
    since: new Date(nowMs).toISOString(),
    value: null,
    unit: null,
    runbook: "See Neon's status page. Charges wait in the tenants' objects; sign-ups and changes wait, too.",
  };
}
