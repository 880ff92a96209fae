// The operator's view of metering and billing: every figure with its level and what to do about it.
import { Hono } from "hono";
import { controlAlarms } from "./alarms-store.ts";
import { controlUsage } from "../control/ledger-store.ts";
import { connectControl } from "../adapters/neon.ts";
import { alarmLevels, readIndicators } from "./indicators.ts";
import type { HttpEnv } from "../http.ts";

export const billingApi = new Hono<HttpEnv>();

billingApi.get("/", async (c) => {
  const now = Date.now();
  const control = connectControl(c.env);
  const readings = readIndicators(await controlUsage(control).pipeline(now));
  const records = new Map((await controlAlarms(control).take(readings, now)).map((record) => [record.name, record]));
  const worst = Math.max(...readings.map(({ level }) => alarmLevels.indexOf(level)));
  return c.json({
    level: alarmLevels[worst],
    at: new Date(now).toISOString(),
    indicators: readings.map((reading) => {
      const record = records.get(reading.name);
      return {
        ...reading,
        since: record === undefined ? null : new Date(record.sinceMs).toISOString(),
        told:
          record?.told === undefined
            ? null
            : { level: record.told.level, at: new Date(record.told.atMs).toISOString() },
      };
    }),
  });
});
