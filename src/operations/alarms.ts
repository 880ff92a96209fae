// Notifies the operator's webhook when an indicator gets worse or recovers. At least once: the next sweep repeats a
// notification that failed. A chat shows the message's `text`; the other fields are for programs.
import type { Context } from "../control/context.ts";
import { describeError, log } from "../log.ts";
import { alarmsStore } from "./alarms-store.ts";
import { readDeployment } from "./deployment-state.ts";
import { type AlarmLevel, type Reading, mustNotify, readIndicators } from "./indicators.ts";

/** A webhook answers at once. The sweep has other work and cannot wait longer. */
const WEBHOOK_TIMEOUT_MS = 5_000;
/** Interval between notifications of an outage of the control database. Only this isolate remembers the last one. */
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

let outageNotifiedMs = -Infinity;

/** Reads every indicator and notifies of changes. Never throws for a webhook that does not answer. */
export async function raiseAlarms(context: Context, nowMs: number): Promise<void> {
  const { env, control } = context;
  const store = alarmsStore(control);
  let readings: Reading[];
  try {
    readings = readIndicators(await readDeployment(context, nowMs));
  } catch (error) {
    log("error", "alarms_not_read", { error: describeError(error) });
    const due = nowMs - outageNotifiedMs >= REPEAT_OUTAGE_MS;
    if (due && (await notify(env, [outage(nowMs)], nowMs))) outageNotifiedMs = nowMs;
    return;
  }
  outageNotifiedMs = -Infinity;
  const records = new Map((await store.store(readings, nowMs)).map((record) => [record.name, record]));
  const due = readings.flatMap((reading): Alarm[] => {
    const { name, title, level, value, unit, runbook } = reading;
    const record = records.get(name);
    if (record === undefined || !mustNotify(level, record.notified, nowMs)) return [];
    const since = new Date(record.sinceMs).toISOString();
    return [{ name, title, level, was: record.notified?.level ?? "ok", since, value, unit, runbook }];
  });
  if (due.length === 0) return;
  for (const { name, level, was, value } of due) {
    log(level === "ok" ? "info" : "error", "alarm", { alarm: name, level, was, value });
  }
  if (await notify(env, due, nowMs)) await store.recordNotified(due, nowMs);
}

/** Returns whether the webhook accepted the message. Without a webhook the log is the only notification. */
async function notify(env: Env, alarms: readonly Alarm[], nowMs: number): Promise<boolean> {
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
    if (!response.ok) log("error", "alarm_not_sent", { status: response.status });
    return response.ok;
  } catch (error) {
    log("error", "alarm_not_sent", { error: describeError(error) });
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
    runbook: "See Neon's status page. Charges wait in the tenants' objects. Sign-ups and changes wait too.",
  };
}
