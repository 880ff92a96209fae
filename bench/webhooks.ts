// Measures how long Stripe waits for the acknowledgement of a webhook: signature, inbox, 200. Each event is new and concerns an
// existing tenant, so that Tollgate applies earlier events while it receives the next ones.
import { createHmac } from "node:crypto";
import { signUp } from "../dev/demo.ts";
import { freePort } from "../cli/ports.ts";
import { startSystem } from "../dev/system.ts";

const EVENTS = 400;
const AT_ONCE = 8;
/** The Worker's first requests compile it. */
const WARM_UP = 40;

/** Measures and prints. Throws when an event is not acknowledged. */
export async function benchWebhooks(options: { dir: string; running: (() => Promise<unknown>)[] }): Promise<void> {
  const system = await startSystem({ dir: options.dir, port: await freePort() });
  options.running.push(() => system.stop());
  const { publicUrl } = system;
  const { stripeWebhookSecret } = system.settings.secrets;
  const { tenantId } = await signUp(publicUrl, { plan: "free", name: "Acknowledged" });
  let sent = 0;
  const acknowledge = async (): Promise<number> => {
    sent += 1;
    const body = JSON.stringify({
      id: `evt_bench_${sent}`,
      object: "event",
      type: "customer.subscription.updated",
      data: { object: { id: "sub_bench", object: "subscription", metadata: { tenant_id: tenantId } } },
    });
    const at = Math.floor(Date.now() / 1000);
    const signature = createHmac("sha256", stripeWebhookSecret).update(`${at}.${body}`).digest("hex");
    const startedAt = performance.now();
    const response = await fetch(`${publicUrl}/webhooks/stripe`, {
      method: "POST",
      headers: { "content-type": "application/json", "stripe-signature": `t=${at},v1=${signature}` },
      body,
    });
    await response.arrayBuffer();
    if (response.status !== 200) throw new Error(`An event was answered with ${response.status}`);
    return performance.now() - startedAt;
  };

  for (let event = 0; event < WARM_UP; event += 1) await acknowledge();
  const inTurn: number[] = [];
  for (let event = 0; event < EVENTS; event += 1) inTurn.push(await acknowledge());
  report("one after another", inTurn);
  const together: number[] = [];
  const sender = async (): Promise<void> => {
    while (together.length < EVENTS) together.push(await acknowledge());
  };
  await Promise.all(Array.from({ length: AT_ONCE }, sender));
  report(`${AT_ONCE} at once`, together);
}

function report(title: string, tookMs: readonly number[]): void {
  const sorted = tookMs.toSorted((a, b) => a - b);
  // The nearest-rank percentile.
  const at = (share: number): string => (sorted[Math.ceil(share * sorted.length) - 1] ?? NaN).toFixed(1);
  process.stdout.write(
    `${tookMs.length} webhooks acknowledged, ${title}: p50 ${at(0.5)} ms, p95 ${at(0.95)} ms, p99 ${at(0.99)} ms\n`,
  );
}
