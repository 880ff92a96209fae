// Appends events of concurrent requests to the audit log together: each append locks the end of its chain, and one transaction
// for a crowd costs little more than one for an event. An event that comes alone is written at once. Those that come while it is
// written wait, and are written together.
// A request never awaits another one's promise, because the platform cancels the work of a request that ends. So it polls, and
// writes itself when another one has not written its event in time. An event may be sent twice: the log stores it once, by its id.
import type { ControlDatabase } from "../../adapters/neon.ts";
import { describeError } from "../../log.ts";
import type { AuditEvent } from "./audit.ts";
import { auditStore } from "./audit-store.ts";

/** How often a request sees whether it can write. A short interval costs a crowd more than the writes. */
const POLL_MS = 250;
/** Longer than a write takes. After this time the writer counts as cancelled. */
const WRITE_MS = 5_000;
/** Events in one transaction. They lock their chains until it ends. */
const MAX_EVENTS = 50;

interface Entry {
  event: AuditEvent;
  /** `refused`: the events were refused together, perhaps because of another one. */
  outcome: "waiting" | "stored" | "refused";
  /** Why the event itself was refused. */
  error?: Error;
}

const waiting = new Set<Entry>();
/** While a request of this isolate gathers and writes. */
let writingUntilMs = 0;

/** Stores an event at the end of its chain, with those of other requests. Throws when it cannot be stored. */
export async function appendTogether(control: ControlDatabase, event: AuditEvent): Promise<void> {
  const own: Entry = { event, outcome: "waiting" };
  waiting.add(own);
  while (own.outcome === "waiting") {
    if (Date.now() >= writingUntilMs) await writeWaiting(control);
    else await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  if (own.error !== undefined) throw own.error;
  if (own.outcome === "refused") await auditStore(control).append(event);
}

async function writeWaiting(control: ControlDatabase): Promise<void> {
  const untilMs = (writingUntilMs = Date.now() + WRITE_MS);
  const entries = [...waiting].slice(0, MAX_EVENTS);
  try {
    await auditStore(control).appendAll(entries.map(({ event }) => event));
    settle(entries, "stored");
  } catch (error) {
    const [first, ...others] = entries;
    if (first !== undefined && others.length === 0) first.error = asError(error);
    settle(entries, "refused");
  } finally {
    if (writingUntilMs === untilMs) writingUntilMs = 0;
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(describeError(error));
}

function settle(entries: readonly Entry[], outcome: "stored" | "refused"): void {
  for (const entry of entries) {
    entry.outcome = outcome;
    waiting.delete(entry);
  }
}
