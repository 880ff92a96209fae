// Appends events of concurrent requests to the audit log together: each append locks the end of its chain, and one transaction
// for a crowd costs little more than one for an event.
// A request never awaits another one's promise, because the platform cancels the work of a request that ends. So it polls, and
// writes itself when another one has not written its event in time. An event may be sent twice: the log stores it once, by its id.
import type { ControlDatabase } from "../../adapters/neon.ts";
import type { AuditEvent } from "./audit.ts";
import { auditStore } from "./audit-store.ts";

/** How long the first event waits for others. Nothing waits for an event to be stored. */
const GATHER_MS = 100;
/** How often a request sees whether another one has written its event. A short interval costs a crowd more than the writes. */
const POLL_MS = 250;
/** Longer than a write takes. After this time the writer counts as cancelled. */
const WRITE_MS = 5_000;
/** Events in one transaction. They lock their chains until it ends. */
const MAX_EVENTS = 50;

interface Entry {
  event: AuditEvent;
  /** `refused`: the events were refused together, perhaps because of another one. */
  outcome: "waiting" | "stored" | "refused";
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
  if (own.outcome === "refused") await auditStore(control).append(event);
}

async function writeWaiting(control: ControlDatabase): Promise<void> {
  const untilMs = (writingUntilMs = Date.now() + WRITE_MS);
  let entries: Entry[] = [];
  try {
    await new Promise((resolve) => setTimeout(resolve, GATHER_MS));
    entries = [...waiting].slice(0, MAX_EVENTS);
    await auditStore(control).appendAll(entries.map(({ event }) => event));
    settle(entries, "stored");
  } catch {
    settle(entries, "refused");
  } finally {
    if (writingUntilMs === untilMs) writingUntilMs = 0;
  }
}

function settle(entries: readonly Entry[], outcome: "stored" | "refused"): void {
  for (const entry of entries) {
    entry.outcome = outcome;
    waiting.delete(entry);
  }
}
